package main

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"
)

// A cost is what was allocated on the Go heap. Bytes are those of size classes: 24 for 20 that were asked for. Objects without
// pointers of less than 16 bytes share blocks of 16, which count for the object that begins one.
type cost struct{ Bytes, Objects float64 }

// allocated is all that this process has allocated until now, to the object: it stops the world and empties the processors'
// caches. Package runtime/metrics leaves the caches as they are, and counts the objects of a span when the span is full.
func allocated() cost {
	runtime.ReadMemStats(&stats)
	return cost{float64(stats.TotalAlloc), float64(stats.Mallocs)}
}

var stats runtime.MemStats // on the stack it would escape, and count

// beforeMain is what was allocated before main: by the runtime, for itself, the arguments and the environment, and by whatever the
// packages that are linked in make when they are initialized. This one is the last.
var beforeMain = allocated()

// A result is the costs of one construct: of the first call, of all the next ones up to call number warm, and of each after these.
type result struct{ First, Next, Each cost }

// After as many calls everything has been made that is made once: pools are full, and a Proxy that is busy has its counts for
// each processor. An object that is allocated now and then shows as a fraction of a call.
const warm = 1000

// measureRow measures the row of that name. Nothing else allocates in the process meanwhile: no other goroutine of the program
// runs, and the environment has turned the collector off.
func measureRow(name string) (result, error) {
	if name == beforeMainRow {
		return result{First: beforeMain}, nil
	}
	list := constructs()
	i := slices.IndexFunc(list, func(c construct) bool { return c.name == name })
	if i < 0 {
		return result{}, fmt.Errorf("there is no row %q", name)
	}
	run, err := list[i].prepare()
	if err != nil {
		return result{}, err
	}
	settle()
	runtime.GC()
	runtime.GC() // the pools of package sync are empty, whatever has used them before main
	var r result
	for _, phase := range []struct {
		calls int
		of    *cost
	}{{1, &r.First}, {warm - 1, &r.Next}, {warm, &r.Each}} {
		start := allocated()
		for range phase.calls {
			if err := run(); err != nil {
				return result{}, err
			}
		}
		end := allocated()
		*phase.of = cost{end.Bytes - start.Bytes, end.Objects - start.Objects}
	}
	r.Each.Bytes /= warm
	r.Each.Objects /= warm
	return r, nil
}

// settle makes the runtime allocate now what it would allocate when the machine is busy, in the middle of a row. It makes a thread
// when a write to a file takes long, and has a list of timers, in which the collector's scavenger waits for its turn.
func settle() {
	const enough = 8 // threads, and timers at once: the only goroutine of this program needs two or three
	var running, end sync.WaitGroup
	running.Add(enough)
	for range enough {
		end.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			running.Done()
			running.Wait()
		})
	}
	end.Wait()
	var timers [enough]*time.Timer
	for i := range timers {
		timers[i] = time.AfterFunc(time.Hour, func() {})
	}
	for _, t := range timers {
		t.Stop()
	}
}
