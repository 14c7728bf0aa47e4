package replay_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/replay"
)

// storm records goroutines that allocate, reallocate and free at random, and hand blocks to each other. Some operations fail. If
// all is to be freed, nothing is live at the end.
func storm(t testing.TB, goroutines, ops int, freeAll bool) (file []byte, stats counter.Stats) {
	t.Helper()
	var out bytes.Buffer
	rec, err := recording.New(&out, recording.Options{Queue: max(64, 4*goroutines*ops)})
	if err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int64
	inner := failing.If(new(blockalloc.Pool), func(failing.Call) bool { return calls.Add(1)%50 == 0 })
	mem := alloctrace.Wrap(inner, alloctrace.WithName("mem"), alloctrace.WithHooks(rec))
	handed := make(chan blockalloc.Block, 100)
	free := func(b blockalloc.Block) {
		for !b.IsZero() && mem.Free(b) != nil { // it was made to fail
		}
	}
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(g)))
			for range ops {
				b, err := mem.Allocate(blockalloc.Layout{Size: uintptr(1 + rng.IntN(8000)), Align: 1 << rng.IntN(8)})
				if err != nil {
					continue
				}
				switch n := rng.IntN(100); {
				case n == 0:
					b, _ = mem.Reallocate(b, 0)
				case n < 50:
					b, _ = mem.Reallocate(b, uintptr(1+rng.IntN(8000)))
				}
				select {
				case handed <- b:
				default:
					free(<-handed)
					free(b)
				}
			}
		})
	}
	wg.Wait()
	for freeAll && len(handed) > 0 {
		free(<-handed)
	}
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	if n := rec.Usage().Dropped; n > 0 {
		t.Fatalf("%d events were dropped", n)
	}
	return out.Bytes(), mem.Stats()
}

func load(t testing.TB, file []byte) *replay.Program {
	t.Helper()
	r, err := recording.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := replay.Load(r.Events())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func slab(t testing.TB) *blockalloc.Slab {
	t.Helper()
	s, err := blockalloc.NewSlab(new(blockalloc.Pool), 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestRun: what several goroutines did is done again on each allocator, by one goroutine or several, with nothing wrong.
func TestRun(t *testing.T) {
	ops := 1000
	if testing.Short() {
		ops = 200
	}
	for _, freeAll := range []bool{true, false} {
		file, stats := storm(t, 4, ops, freeAll)
		p := load(t, file)
		did := stats.Allocations + stats.Reallocations + stats.Frees
		if r := p.Recorded(); r.Operations != did || r.Skipped.Failed != stats.Failures() || r.Skipped.Failed == 0 || r.Skipped.Unknown+r.Skipped.Dropped+r.Lost > 0 || r.Peak.Granted <= 0 || r.Peak.Requested >= r.Peak.Granted {
			t.Errorf("the recording of %+v has %+v", stats, r)
		}
		for _, o := range []replay.Options{{}, {Addresses: true}, {Edges: true, KeepGoing: true}, {Goroutines: 4}, {Goroutines: 3, Addresses: true}} {
			pool, overPool := new(blockalloc.Pool), slab(t)
			for name, a := range map[string]blockalloc.Allocator{"Pool": pool, "Slab": overPool, "Heap": new(blockalloc.Heap), "System": new(blockalloc.System)} {
				if name == "System" && (o.Addresses || o.Edges) {
					continue // each operation takes a system call or several
				}
				counted := alloctrace.Wrap(a)
				r, err := replay.Run(context.Background(), p, counted, o)
				if err != nil {
					t.Fatalf("%s, %+v: %v", name, o, err)
				}
				live := counted.Stats()
				if r.Operations != did || live.LiveBlocks != 0 || r.Left.Blocks != stats.LiveBlocks || freeAll != (r.Left.Blocks == 0) || r.Failed != 0 {
					t.Errorf("%s, %+v: %+v; %d were done, %d blocks left; %+v", name, o, r, did, stats.LiveBlocks, live)
				}
				if r.Peak.Granted < r.Peak.Requested || r.Peak.Blocks <= 0 || o.Goroutines == 0 && name == "Heap" && r.Peak.Slack() != 0 {
					t.Errorf("%s, %+v: peak %+v", name, o, r.Peak)
				}
				if r.Calls.Allocate.Count != stats.Allocations || r.Calls.Reallocate.Count+r.Calls.Free.Count != stats.Reallocations+stats.Frees || r.Calls.Allocate.Time < 0 {
					t.Errorf("%s, %+v: calls %+v of %+v", name, o, r.Calls, stats)
				}
				if (r.Backend != nil) != (name == "Pool" || name == "Slab") || runtime.GOOS == "linux" && r.Resident.Peak == 0 {
					t.Errorf("%s, %+v: %+v, %+v", name, o, r.Backend, r.Resident)
				}
			}
			if err := errors.Join(overPool.Close(), pool.Close()); err != nil {
				t.Error(err)
			}
		}
	}
}

// A list makes events by hand. What ends a reallocation ends the last that began.
type list []recording.Event

func (l *list) add(k alloctrace.Kind, addr, size uintptr) {
	var reallocation uint64
	switch k {
	case alloctrace.Reallocating:
		reallocation = uint64(len(*l) + 1)
	case alloctrace.Reallocated, alloctrace.ReallocateFailed:
		for _, e := range *l {
			reallocation = max(reallocation, e.Reallocation)
		}
	}
	*l = append(*l, recording.Event{
		Event: alloctrace.Event{Kind: k, Addr: addr, Size: size, Align: 8}, At: time.Duration(len(*l)) * time.Millisecond,
		Stack:        &recording.Stack{Frames: []recording.Frame{{Function: fmt.Sprintf("example.com/p.f%d", len(*l)+1), File: "/src/p.go", Line: 7}}},
		Reallocation: reallocation,
	})
}

// A seen notes what is asked of it.
type seen struct {
	blockalloc.Heap
	calls []string
}

func (s *seen) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	s.calls = append(s.calls, fmt.Sprintf("+%d", l.Size))
	return s.Heap.Allocate(l)
}

func (s *seen) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	s.calls = append(s.calls, fmt.Sprintf("%d>%d", b.Size(), size))
	return s.Heap.Reallocate(b, size)
}

func (s *seen) Free(b blockalloc.Block) error {
	s.calls = append(s.calls, fmt.Sprintf("-%d", b.Size()))
	return s.Heap.Free(b)
}

// TestOperations: events become the operations that they are of.
func TestOperations(t *testing.T) {
	const (
		allocated, reallocated, reallocating, freeing = alloctrace.Allocated, alloctrace.Reallocated, alloctrace.Reallocating, alloctrace.Freeing
		allocateFailed, reallocateFailed, freeFailed  = alloctrace.AllocateFailed, alloctrace.ReallocateFailed, alloctrace.FreeFailed
	)
	type event struct {
		k          alloctrace.Kind
		addr, size uintptr
	}
	reallocations := map[string][]uint64{ // of the events in order, where it is not the last that began
		"two at once": {0, 0, 1, 2, 1, 2, 0, 0},
		"two at once that take each other's place":   {0, 0, 1, 2, 2, 1, 0, 0},
		"one after another at one address":           {0, 1, 0, 2, 2, 1, 0, 0},
		"a failure among others":                     {0, 0, 1, 2, 1, 2, 0, 0},
		"a stale one at the same time":               {0, 1, 2, 1, 2, 0},
		"not known":                                  {0, 0, 0, 0},
		"not known to fail":                          {0, 0, 0, 0},
		"its beginning was dropped":                  {0, 0, 1, 0, 0},
		"a failure whose beginning was dropped":      {0, 0, 0, 7, 0},
		"the end of another's beginning was dropped": {0, 0, 1, 2, 0, 2, 0, 0},
	}
	for _, c := range []struct {
		name    string
		events  []event
		want    string
		skipped replay.Skipped
		lost    int64
	}{
		{"a pair", []event{{allocated, 64, 10}, {freeing, 64, 10}}, "+10 -10", replay.Skipped{}, 0},
		{"left", []event{{allocated, 64, 10}}, "+10 -10", replay.Skipped{}, 0},
		{"no bytes", []event{{allocated, 64, 0}, {freeing, 64, 0}}, "+1 -1", replay.Skipped{}, 0},
		{"in place", []event{{allocated, 64, 10}, {reallocating, 64, 10}, {reallocated, 64, 20}, {freeing, 64, 20}}, "+10 10>20 -20", replay.Skipped{}, 0},
		{"moves", []event{{allocated, 64, 10}, {reallocating, 64, 10}, {reallocated, 128, 20}, {allocated, 64, 5}, {freeing, 128, 20}, {freeing, 64, 5}}, "+10 10>20 +5 -20 -5", replay.Skipped{}, 0},
		{"its address is taken at once", []event{{allocated, 64, 10}, {reallocating, 64, 10}, {allocated, 64, 5}, {reallocated, 128, 20}, {freeing, 64, 5}, {freeing, 128, 20}}, "+10 +5 10>20 -5 -20", replay.Skipped{}, 0},
		{"two at once", []event{{allocated, 64, 10}, {allocated, 128, 30}, {reallocating, 64, 10}, {reallocating, 128, 30}, {reallocated, 64, 11}, {reallocated, 256, 31}, {freeing, 64, 11}, {freeing, 256, 31}}, "+10 +30 10>11 30>31 -11 -31", replay.Skipped{}, 0},
		{"to zero", []event{{allocated, 64, 10}, {reallocating, 64, 10}, {allocated, 64, 7}, {freeing, 64, 7}}, "+10 -10 +7 -7", replay.Skipped{}, 0},
		{"failed", []event{{allocateFailed, 0, 9}, {allocated, 64, 10}, {reallocating, 64, 10}, {reallocateFailed, 64, 10}, {freeing, 64, 10}, {freeFailed, 64, 10}, {freeing, 64, 10}}, "+10 -10", replay.Skipped{Failed: 3}, 0},
		{"a second free", []event{{allocated, 64, 10}, {freeing, 64, 10}, {freeing, 64, 10}, {freeFailed, 64, 10}}, "+10 -10", replay.Skipped{Failed: 1}, 0},
		{"older", []event{{freeing, 64, 10}, {reallocating, 128, 10}, {reallocated, 256, 20}, {freeing, 256, 20}, {reallocating, 512, 1}, {reallocateFailed, 512, 1}}, "+20 -20", replay.Skipped{Unknown: 2, Failed: 1}, 0},
		{"a free of another size", []event{{allocated, 64, 10}, {freeing, 64, 11}, {freeFailed, 64, 11}, {freeing, 64, 10}}, "+10 -10", replay.Skipped{Failed: 1}, 0},
		{"its free was dropped", []event{{allocated, 64, 10}, {0, 0, 5}, {allocated, 64, 20}, {freeing, 64, 20}}, "+10 -10 +20 -20", replay.Skipped{Dropped: 5}, 1},
		{"its acquisition was dropped", []event{{0, 0, 5}, {freeing, 64, 20}}, "", replay.Skipped{Dropped: 5, Unknown: 1}, 0},
		{"between both events one was dropped", []event{{allocated, 64, 10}, {reallocating, 64, 10}, {0, 0, 1}, {reallocated, 128, 20}, {freeing, 128, 20}}, "+10 10>20 -20", replay.Skipped{Dropped: 1}, 0},
		{"its end was dropped", []event{{allocated, 64, 10}, {reallocating, 64, 10}, {0, 0, 1}, {freeing, 128, 20}}, "+10 -10", replay.Skipped{Dropped: 1, Unknown: 1}, 0},
		{"its beginning was dropped", []event{{allocated, 64, 10}, {0, 0, 1}, {reallocated, 128, 20}, {freeing, 128, 20}, {freeing, 64, 10}}, "+10 +20 -20 -10", replay.Skipped{Dropped: 1}, 0},
		{"a failure whose beginning was dropped", []event{{allocated, 64, 10}, {freeing, 64, 10}, {0, 0, 1}, {reallocateFailed, 64, 10}, {allocated, 64, 10}}, "+10 -10 +10 -10", replay.Skipped{Dropped: 1, Failed: 1}, 0},
		{"the end of another's beginning was dropped", []event{{allocated, 64, 10}, {allocated, 128, 11}, {reallocating, 64, 10}, {reallocating, 128, 11}, {0, 0, 1}, {reallocated, 256, 12}, {freeing, 256, 12}, {freeing, 512, 20}}, "+10 +11 -10 11>12 -12", replay.Skipped{Dropped: 1, Unknown: 1}, 0},
		{"two at once that take each other's place", []event{{allocated, 64, 10}, {allocated, 128, 30}, {reallocating, 64, 10}, {reallocating, 128, 30}, {reallocated, 64, 31}, {reallocated, 128, 11}, {freeing, 64, 31}, {freeing, 128, 11}}, "+10 +30 30>31 10>11 -31 -11", replay.Skipped{}, 0},
		{"one after another at one address", []event{{allocated, 64, 10}, {reallocating, 64, 10}, {allocated, 64, 10}, {reallocating, 64, 10}, {reallocated, 128, 40}, {reallocated, 256, 50}, {freeing, 128, 40}, {freeing, 256, 50}}, "+10 +10 10>40 10>50 -40 -50", replay.Skipped{}, 0},
		{"a failure among others", []event{{allocated, 64, 10}, {allocated, 128, 30}, {reallocating, 64, 10}, {reallocating, 128, 30}, {reallocateFailed, 64, 10}, {reallocated, 256, 31}, {freeing, 64, 10}, {freeing, 256, 31}}, "+10 +30 30>31 -10 -31", replay.Skipped{Failed: 1}, 0},
		{"a stale one at the same time", []event{{allocated, 64, 10}, {reallocating, 64, 10}, {reallocating, 64, 10}, {reallocated, 128, 20}, {reallocateFailed, 64, 10}, {freeing, 128, 20}}, "+10 10>20 -20", replay.Skipped{Failed: 1}, 0},
		{"a stale free at the same time", []event{{allocated, 64, 10}, {reallocating, 64, 10}, {freeing, 64, 10}, {freeFailed, 64, 10}, {reallocated, 64, 20}, {freeing, 64, 20}}, "+10 10>20 -20", replay.Skipped{Failed: 1}, 0},
		{"not known", []event{{allocated, 64, 10}, {reallocating, 64, 10}, {reallocated, 128, 20}, {freeing, 128, 20}}, "+10 -10 +20 -20", replay.Skipped{}, 0},
		{"not known to fail", []event{{allocated, 64, 10}, {reallocating, 64, 10}, {reallocateFailed, 64, 10}, {freeing, 64, 10}}, "+10 -10", replay.Skipped{Failed: 1}, 0},
		{"nothing", nil, "", replay.Skipped{}, 0},
	} {
		var l list
		for _, e := range c.events {
			if l.add(e.k, e.addr, e.size); e.k == 0 {
				l[len(l)-1] = recording.Event{At: l[len(l)-1].At, Dropped: int64(e.size)}
			}
			if of := reallocations[c.name]; of != nil {
				l[len(l)-1].Reallocation = of[len(l)-1]
			}
		}
		a := new(seen)
		p := replay.New(l)
		r, err := replay.Run(context.Background(), p, a, replay.Options{})
		if got := strings.Join(a.calls, " "); got != c.want || err != nil || r.Skipped != c.skipped || r.Recorded.Lost != c.lost {
			t.Errorf("%s: %q, want %q; %v, %+v, %d lost", c.name, got, c.want, err, r.Skipped, r.Recorded.Lost)
		}
	}
}

// TestPaced: no operation begins before its time, and a replay that is cancelled ends.
func TestPaced(t *testing.T) {
	var l list
	l.add(alloctrace.Allocated, 64, 10)
	l.add(alloctrace.Freeing, 64, 10)
	l[0].At, l[1].At = time.Hour, time.Hour+30*time.Millisecond
	r, err := replay.Run(context.Background(), replay.New(l), new(blockalloc.Heap), replay.Options{Paced: true})
	if err != nil || r.Wall < 30*time.Millisecond || r.Operations != 2 {
		t.Errorf("%v; %v, %v late", err, r.Wall, r.Late)
	}
	l[1].At = 2 * time.Hour
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	counted := alloctrace.Wrap(new(blockalloc.Heap))
	time.AfterFunc(10*time.Millisecond, func() { cancel(why) })
	r, err = replay.Run(ctx, replay.New(l), counted, replay.Options{Paced: true})
	if !errors.Is(err, why) || r.Operations > 1 || counted.Stats().LiveBlocks != 0 {
		t.Errorf("%v; %+v, %+v", err, r, counted.Stats())
	}
}

// TestDamaged: of a damaged recording there is what came before the damage.
func TestDamaged(t *testing.T) {
	file, _ := storm(t, 1, 2000, true)
	r, err := recording.NewReader(bytes.NewReader(file[:len(file)-10]))
	if err != nil {
		t.Fatal(err)
	}
	p, err := replay.Load(r.Events())
	var damaged *recording.DamagedError
	if !errors.As(err, &damaged) || p == nil {
		t.Fatalf("%v", err)
	}
	if _, err := replay.Run(context.Background(), p, new(blockalloc.Heap), replay.Options{}); err != nil {
		t.Error(err)
	}
}
