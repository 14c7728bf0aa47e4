// Package growth is the program that shows what memlimit does: it takes off-heap
// memory step by step up to a part of its budget while it makes garbage for Go's
// collector, stays there, and gives it back, and measures itself meanwhile.
package growth

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/memlimit"
)

// Mode is who sets Go's memory limit and GC percentage.
type Mode string

// The modes.
const (
	Limiter Mode = "limiter" // a memlimit.Limiter with Config.Budget
	Static  Mode = "static"  // nobody: it is Config.Budget all the time
	Ideal   Mode = "ideal"   // somebody who knows the future: Config.Budget less all that will be off-heap
	Unpaced Mode = "unpaced" // nobody: there is none
	Paced   Mode = "paced"   // nobody, and a memlimit.Pacer sets the GC percentage
	OnHeap  Mode = "heap"    // nobody, and the memory that is off-heap in other modes is on the Go heap
)

// Config says what is done. Sizes are in bytes.
type Config struct {
	Mode     Mode
	Budget   int64 // 0 leaves the Limiter to find it
	OffHeap  int64 // at most
	Live     int64 // in Go's heap, all the time
	Hold     int   // steps at the top
	Shrink   bool  // give it back, and hold again
	Interval time.Duration
}

const (
	stepSize = 1 << 20 // off-heap memory of a step
	churn    = 1 << 20 // garbage of a step
	pause    = 2 * time.Millisecond
)

// Sample is how the program stood at one moment. All but At are bytes.
type Sample struct {
	At                  time.Duration
	RSS, OffHeap, Limit int64
}

// Result is what was measured.
type Result struct {
	Samples []Sample
	Peak    int64          // the most that was resident, as the kernel knows it
	HoldGC  float64        // seconds of processor time the collector took at the top, as the runtime estimates it
	HoldCPU float64        // seconds of processor time used in all at the top, as the kernel knows it
	Cycles  uint64         // collections at the top
	GaveUp  uint64         // the last collection at which the runtime let the limit go, not to take more than half of the processor time; 0 if none
	Limit   memlimit.Stats // of the Limiter
	Pace    memlimit.PacerStats
}

// node has a pointer, so that the collector looks into it.
type node struct {
	_ *node
	_ [1016]byte
}

// Run runs the program. It must have the process for itself.
func Run(c Config) (r Result, err error) {
	var pool blockalloc.Pool
	inner := blockalloc.Allocator(&pool)
	if c.Mode == OnHeap {
		inner = new(blockalloc.Heap)
	}
	mem := alloctrace.Wrap(inner)
	switch c.Mode {
	case Limiter:
		l, err := memlimit.New(memlimit.Options{Budget: c.Budget, Interval: c.Interval}, memlimit.Pool(&pool))
		if err != nil {
			return r, err
		}
		defer l.Close()
		defer func() { r.Limit = l.Stats() }()
	case Static:
		debug.SetMemoryLimit(c.Budget)
	case Ideal:
		debug.SetMemoryLimit(c.Budget - c.OffHeap)
	case Paced:
		p, err := memlimit.NewPacer(memlimit.PacerOptions{Budget: c.Budget}, memlimit.Pool(&pool))
		if err != nil {
			return r, err
		}
		defer p.Close()
		defer func() { r.Pace = p.Stats() }()
	case Unpaced, OnHeap:
	default:
		return r, fmt.Errorf("growth: mode %q: want limiter, static, ideal, unpaced, paced or heap", c.Mode)
	}

	stop := make(chan struct{})
	var sampler sync.WaitGroup
	sampler.Go(func() { r.Samples = sample(stop, mem) })
	live := make([]*node, c.Live/1024)
	for i := range live {
		live[i] = new(node)
	}
	work := func() { // what any program does: some new objects that stay, and old ones that go
		for range churn / 1024 {
			live[rand.IntN(len(live))] = new(node)
		}
		time.Sleep(pause)
	}
	var blocks []blockalloc.Block
	for range c.OffHeap / stepSize {
		b, err := mem.Allocate(blockalloc.Layout{Size: stepSize, Align: 4096})
		if err != nil {
			return r, err
		}
		for i := 0; i < len(b.Bytes()); i += 4096 {
			b.Bytes()[i] = 1
		}
		blocks = append(blocks, b)
		work()
	}
	gc, cpu, cycles := collector()
	for range c.Hold {
		work()
	}
	gc2, cpu2, cycles2 := collector()
	r.HoldGC, r.HoldCPU, r.Cycles = gc2-gc, cpu2-cpu, cycles2-cycles
	for _, b := range blocks {
		if err := mem.Free(b); err != nil {
			return r, err
		}
		if c.Shrink {
			pool.Trim()
			work()
		}
	}
	if c.Shrink {
		for range c.Hold {
			work()
		}
	}
	close(stop)
	sampler.Wait()
	gaveUp := []metrics.Sample{{Name: "/gc/limiter/last-enabled:gc-cycle"}}
	metrics.Read(gaveUp)
	r.GaveUp = gaveUp[0].Value.Uint64()
	r.Peak, err = peak()
	return r, err
}

// collector returns the processor time of the collector and of all, and the collections.
func collector() (gc, cpu float64, cycles uint64) {
	s := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}, {Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(s)
	stat, _ := os.ReadFile("/proc/self/stat") // no such file, no figure; peak tells of it
	_, after, _ := strings.Cut(string(stat), ") ")
	if f := strings.Fields(after); len(f) > 12 {
		user, _ := strconv.ParseFloat(f[11], 64)
		system, _ := strconv.ParseFloat(f[12], 64)
		cpu = (user + system) / 100 // USER_HZ
	}
	return s[0].Value.Float64(), cpu, s[1].Value.Uint64()
}

// sample takes a Sample every 10 ms.
func sample(stop <-chan struct{}, mem *alloctrace.Proxy) (samples []Sample) {
	start := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		var pages, resident int64
		if statm, err := os.ReadFile("/proc/self/statm"); err == nil {
			_, _ = fmt.Sscan(string(statm), &pages, &resident)
		}
		limit := debug.SetMemoryLimit(-1)
		if limit == math.MaxInt64 {
			limit = 0
		}
		samples = append(samples, Sample{time.Since(start), resident * int64(os.Getpagesize()), mem.Stats().LiveBytes, limit})
		select {
		case <-stop:
			return samples
		case <-tick.C:
		}
	}
}

// peak reads the most that was ever resident of this process.
func peak() (int64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("growth: the peak is read from /proc/self/status, which only Linux has: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if kib, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			var n int64
			if _, err := fmt.Sscan(kib, &n); err != nil {
				return 0, fmt.Errorf("growth: VmHWM %q in /proc/self/status: %w", kib, err)
			}
			return n << 10, nil
		}
	}
	return 0, fmt.Errorf("growth: no VmHWM in /proc/self/status")
}
