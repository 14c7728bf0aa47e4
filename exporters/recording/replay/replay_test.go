package replay_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
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

// A rogue is an allocator that does something wrong with the nth allocation of a size, or reallocation to it.
type rogue struct {
	blockalloc.Heap
	size  uintptr
	nth   int
	wrong string

	seen int
	last blockalloc.Block // that was allocated before
}

func (r *rogue) now(size uintptr, of string) bool {
	if size != r.size || of != r.wrong[:len(of)] {
		return false
	}
	r.seen++
	return r.seen == r.nth
}

func (r *rogue) Allocate(l blockalloc.Layout) (b blockalloc.Block, err error) {
	now := r.now(l.Size, "allocate")
	last := r.last
	switch {
	case now && r.wrong == "allocate: overlap" && last.Size() >= l.Size: // it holds last, which so stays memory
		return blockalloc.NewBlock(last.Pointer(), l.Size, l)
	case now && r.wrong == "allocate: panic":
		panic("at the disco")
	case now && r.wrong == "allocate: goexit":
		runtime.Goexit()
	case now && r.wrong == "allocate: misaligned":
		big, err := r.Heap.Allocate(blockalloc.Layout{Size: l.Size + l.Align, Align: l.Align})
		if err != nil {
			return big, err
		}
		return blockalloc.FromRaw(addOne(big), blockalloc.Layout{Size: l.Size, Align: 1})
	case now && r.wrong == "allocate: small":
		return r.Heap.Allocate(blockalloc.Layout{Size: l.Size - 1, Align: l.Align})
	case now && r.wrong == "allocate: neighbour" && !last.IsZero():
		last.Bytes()[last.Size()-1]++
	}
	b, err = r.Heap.Allocate(l)
	r.last = b
	return b, err
}

func (r *rogue) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	n, err := r.Heap.Reallocate(b, size)
	if err == nil && size > 0 && r.now(size, "reallocate") {
		clear(n.Bytes()[:min(9, size)][8:])
	}
	return n, err
}

func (r *rogue) Free(b blockalloc.Block) error {
	if r.now(b.Size(), "free") {
		return fmt.Errorf("no: %w", blockalloc.ErrNotOwned)
	}
	return r.Heap.Free(b)
}

// planted is a recording in which blocks of 96 bytes come now and then, every third of them after another.
func planted() list {
	var l list
	rng := rand.New(rand.NewPCG(3, 3))
	type block struct{ addr, size uintptr }
	var live []block
	next := uintptr(1 << 16)
	for i := range 2000 {
		switch n := rng.IntN(10); {
		case n < 4 && len(live) > 20:
			j := rng.IntN(len(live))
			l.add(alloctrace.Freeing, live[j].addr, live[j].size)
			live = slices.Delete(live, j, j+1)
		case n < 6 && len(live) > 0:
			j := rng.IntN(len(live))
			l.add(alloctrace.Reallocating, live[j].addr, live[j].size)
			live[j] = block{next, uintptr(16 + 8*rng.IntN(100))}
			if i%40 == 0 {
				live[j].size = 96
			}
			l.add(alloctrace.Reallocated, live[j].addr, live[j].size)
		default:
			b := block{next, uintptr(104 + 8*rng.IntN(100))}
			if i%13 == 0 {
				b.size = 96
			}
			l.add(alloctrace.Allocated, b.addr, b.size)
			live = append(live, b)
		}
		next += 1 << 12
	}
	return l
}

// nth returns the number of the nth event of a kind and size.
func nth(events []recording.Event, n int, size uintptr, kinds ...alloctrace.Kind) int64 {
	for i, e := range events {
		if e.Size == size && slices.Contains(kinds, e.Kind) {
			if n--; n == 0 {
				return int64(i + 1)
			}
		}
	}
	return -1
}

// TestFailures: what an allocator does wrong is found, at its event, and shrunk to few events that still fail.
func TestFailures(t *testing.T) {
	events := planted()
	allocation := nth(events, 3, 96, alloctrace.Allocated)
	for _, c := range []struct {
		wrong  string
		o      replay.Options
		reason replay.Reason
		event  int64 // 0: a later one
		most   int   // events of the smallest
	}{
		{"allocate: overlap", replay.Options{}, replay.Changed, 0, 10},
		{"allocate: overlap", replay.Options{Edges: true}, replay.Changed, 0, 10},
		{"allocate: overlap", replay.Options{Addresses: true}, replay.Overlaps, allocation, 10},
		{"allocate: neighbour", replay.Options{}, replay.Changed, 0, 10},
		{"allocate: misaligned", replay.Options{}, replay.Misaligned, allocation, 3},
		{"allocate: small", replay.Options{}, replay.TooSmall, allocation, 3},
		{"allocate: panic", replay.Options{}, replay.Panicked, allocation, 3},
		{"allocate: goexit", replay.Options{}, replay.Panicked, allocation, 3},
		{"reallocate: contents", replay.Options{}, replay.Changed, nth(events, 3, 96, alloctrace.Reallocated), 9},
		{"free: refused", replay.Options{}, replay.Refused, nth(events, 3, 96, alloctrace.Freeing), 6},
	} {
		t.Run(strings.ReplaceAll(c.wrong, ": ", "_"), func(t *testing.T) {
			fails := func(events []recording.Event) error {
				_, err := replay.Run(context.Background(), replay.New(events), &rogue{size: 96, nth: 3, wrong: c.wrong}, c.o)
				return err
			}
			err := fails(events)
			var f *replay.Failure
			if !errors.As(err, &f) || f.Reason != c.reason || c.event > 0 && f.Event.Number != c.event {
				t.Fatalf("%v, want %s at event %d", err, c.reason, c.event)
			}
			e := events[f.Event.Number-1]
			e.Reallocation = 0
			if f.Event.Event != e || !strings.Contains(err.Error(), fmt.Sprintf("event %d (%s %d B aligned to 8 after %v, p.f%d (p.go:7))", f.Event.Number, e.Kind, e.Size, e.At, f.Event.Number)) {
				t.Errorf("%v\nwant it to name %+v", err, e)
			}
			if strings.HasPrefix(c.wrong, "free") && !errors.Is(err, blockalloc.ErrNotOwned) {
				t.Errorf("%v does not wrap the allocator's error", err)
			}
			if strings.HasSuffix(c.wrong, "overlap") && (f.Other == nil || f.Other.Number != allocation && (f.Acquired == nil || f.Acquired.Number != allocation) && f.Event.Number != allocation) {
				t.Errorf("%v\nwant it to name event %d", err, allocation)
			}
			small, err := replay.Shrink(context.Background(), events, fails)
			if err != nil || len(small) > c.most {
				t.Fatalf("%v; %d events are left, want %d at most: %+v", err, len(small), c.most, small)
			}
			if err := fails(small); !errors.As(err, &f) || f.Reason != c.reason {
				t.Errorf("the smallest fails with %v", err)
			}
		})
	}
}

// TestKeepGoing: failures are counted, the first is returned, and what depends on it is skipped.
func TestKeepGoing(t *testing.T) {
	events := planted()
	p := replay.New(events)
	injected := failing.If(new(blockalloc.Heap), func(c failing.Call) bool { return c.Op == failing.OpAllocate && c.Layout.Size == 96 })
	r, err := replay.Run(context.Background(), p, injected, replay.Options{KeepGoing: true})
	var f *replay.Failure
	if !errors.As(err, &f) || f.Event.Number != nth(events, 1, 96, alloctrace.Allocated) || f.Reason != replay.Refused || !errors.Is(err, failing.ErrInjected) || f != r.First {
		t.Errorf("%v", err)
	}
	var allocations int64
	for _, e := range events {
		if e.Kind == alloctrace.Allocated && e.Size == 96 {
			allocations++
		}
	}
	if r.Failed != allocations || r.Skipped.Unavailable == 0 || r.Operations+r.Skipped.Unavailable != p.Recorded().Operations {
		t.Errorf("%d failures, want %d; %+v", r.Failed, allocations, r)
	}
	text, data := r.String(), new(bytes.Buffer)
	if err := json.NewEncoder(data).Encode(r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"failures: ", "skipped: ", " operations in ", "peak: "} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
	var got struct {
		First struct {
			Event struct {
				Number int64
				Stack  []recording.Frame
			}
			Op, Reason, Error string
		} `json:"first_failure"`
	}
	if err := json.Unmarshal(data.Bytes(), &got); err != nil || got.First.Event.Number != f.Event.Number || got.First.Op != "allocate" || got.First.Reason != "refused" || len(got.First.Event.Stack) != 1 || got.First.Error != f.Err.Error() {
		t.Errorf("%v: %+v\n%s", err, got, data)
	}
	// A block that cannot be freed is freed at the end, if it can be then.
	var calls int
	inner := alloctrace.Wrap(new(blockalloc.Heap))
	refusing := failing.If(inner, func(c failing.Call) bool {
		if c.Op == failing.OpFree {
			calls++
		}
		return c.Op == failing.OpFree && calls < 100
	})
	r, err = replay.Run(context.Background(), p, refusing, replay.Options{KeepGoing: true, Addresses: true})
	if !errors.As(err, &f) || f.Op != "free" || r.Failed != 99 || inner.Stats().LiveBlocks != 0 {
		t.Errorf("%v; %d failures, %+v", err, r.Failed, inner.Stats())
	}
	// Without it, the replay ends there.
	injected = failing.If(new(blockalloc.Heap), func(c failing.Call) bool { return c.Op == failing.OpAllocate && c.Layout.Size == 96 })
	r, err = replay.Run(context.Background(), p, injected, replay.Options{})
	if !errors.As(err, &f) || r.Failed != 1 || r.Operations >= f.Event.Number+1 {
		t.Errorf("%v; %+v", err, r)
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
