package recording_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/hooks/ring"
	"github.com/alloctrace/alloctrace/tracer"
)

// read returns what a Reader yields.
func read(t *testing.T, in io.Reader) (list []recording.Event, r *recording.Reader, err error) {
	t.Helper()
	r, err = recording.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for e, err := range r.Events() {
		if err != nil {
			return list, r, err
		}
		list = append(list, e)
	}
	return list, r, nil
}

// TestEvents: each event comes back with all that it had.
func TestEvents(t *testing.T) {
	var out bytes.Buffer
	rec, err := recording.New(&out, recording.Options{FreeStacks: true})
	if err != nil {
		t.Fatal(err)
	}
	p := alloctrace.Wrap(blockalloc.NewLimit(&blockalloc.Heap{}, 1<<20), alloctrace.WithName("mem"), alloctrace.WithHooks(rec))
	child := p.Child("cache")
	ctx, region := tracer.Start(context.Background(), "GET /", p)
	b, err := child.WithContext(ctx).Allocate(blockalloc.Layout{Size: 100, Align: 64})
	if err != nil {
		t.Fatal(err)
	}
	n, err := child.Reallocate(b, 5000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Allocate(blockalloc.BlockLayout(2 << 20)); !errors.Is(err, blockalloc.ErrLimit) {
		t.Fatal(err)
	}
	if err := child.Free(n); err != nil {
		t.Fatal(err)
	}
	if err := p.Free(n); err == nil {
		t.Fatal("a second free succeeded")
	}
	region.End()
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	if err := rec.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
	if err := rec.Flush(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Flush after Close: %v", err)
	}
	list, r, err := read(t, &out)
	if err != nil || !r.Ended() {
		t.Fatalf("%v, ended: %t", err, r.Ended())
	}
	if h := r.Header(); h.PID != os.Getpid() || !h.Stacks || !h.FreeStacks || time.Since(h.Began) < 0 || time.Since(h.Began) > time.Hour {
		t.Errorf("%+v", h)
	}
	event := func(k alloctrace.Kind, b blockalloc.Block) alloctrace.Event {
		return alloctrace.Event{Kind: k, Addr: b.Addr(), Size: b.Size(), Align: b.Align()}
	}
	want := []recording.Event{
		{Event: event(alloctrace.Allocated, b), Requested: 100, Proxy: "mem", Child: "cache", Region: "GET /"},
		{Event: event(alloctrace.Reallocating, b), Proxy: "mem", Child: "cache"},
		{Event: event(alloctrace.Reallocated, n), Requested: 5000, Proxy: "mem", Child: "cache"},
		{Event: alloctrace.Event{Kind: alloctrace.AllocateFailed, Size: 2 << 20, Align: 2 << 20}, Proxy: "mem"},
		{Event: event(alloctrace.Freeing, n), Proxy: "mem", Child: "cache"},
		{Event: event(alloctrace.Freeing, n), Proxy: "mem"},
		{Event: event(alloctrace.FreeFailed, n), Proxy: "mem"},
	}
	if len(list) != len(want) {
		t.Fatalf("%d events, want %d: %+v", len(list), len(want), list)
	}
	if list[1].Reallocation == 0 {
		t.Error("a reallocation has no number")
	}
	want[1].Reallocation, want[2].Reallocation = list[1].Reallocation, list[1].Reallocation
	var at time.Duration
	for i, e := range list {
		if e.At < at || e.Stack == nil || len(e.Stack.Frames) == 0 || !strings.HasSuffix(e.Stack.Frames[0].Function, ".TestEvents") || e.Stack.Frames[0].Line == 0 {
			t.Errorf("%+v, stack %+v", e, e.Stack)
		}
		at, e.At, e.Stack = e.At, 0, nil
		if e != want[i] {
			t.Errorf("event %d is\n%+v, want\n%+v", i, e, want[i])
		}
	}
}

// TestBehindOthers: a Recorder behind a hook that hands on some events, or that does so later, records those and no others.
func TestBehindOthers(t *testing.T) {
	for name, c := range map[string]struct {
		around func(rec *recording.Recorder) (h alloctrace.Hook, done func())
		want   string
		known  bool // what was requested, and which events are of one reallocation
	}{
		"Filter": {func(rec *recording.Recorder) (alloctrace.Hook, func()) {
			return hooks.Filter(rec, hooks.MinSize(1000)), func() {}
		}, "reallocated 2000, freeing 2000, allocated 1000, freeing 1000, ", true},
		"Sample": {func(rec *recording.Recorder) (alloctrace.Hook, func()) { return hooks.Sample(rec, 2), func() {} },
			"allocated 10, reallocating 10, reallocated 2000, freeing 2000, ", true},
		"Meter": {func(rec *recording.Recorder) (alloctrace.Hook, func()) { return hooks.NewMeter(rec), func() {} },
			"allocated 10, reallocating 10, reallocated 2000, freeing 2000, allocated 1000, freeing 1000, ", true},
		"a function": {func(rec *recording.Recorder) (alloctrace.Hook, func()) {
			return alloctrace.HookFunc(rec.Observe), func() {}
		},
			"allocated 10, reallocating 10, reallocated 2000, freeing 2000, allocated 1000, freeing 1000, ", false},
		"Drainer": {func(rec *recording.Recorder) (alloctrace.Hook, func()) {
			r := ring.New(100, ring.PreciseClock())
			d := ring.NewDrainer(r, rec, time.Hour)
			return r, func() { _ = d.Close() }
		}, "allocated 10, reallocating 10, reallocated 2000, freeing 2000, allocated 1000, freeing 1000, ", false},
	} {
		var out bytes.Buffer
		rec, err := recording.New(&out, recording.Options{})
		if err != nil {
			t.Fatal(err)
		}
		h, done := c.around(rec)
		p := alloctrace.Wrap(&blockalloc.Heap{}, alloctrace.WithHooks(h))
		small, err := p.Allocate(blockalloc.Layout{Size: 10, Align: 8})
		if err == nil {
			small, err = p.Reallocate(small, 2000)
		}
		if err == nil {
			err = p.Free(small)
		}
		large, failed := p.Allocate(blockalloc.Layout{Size: 1000, Align: 8})
		if err = errors.Join(err, failed, p.Free(large)); err != nil {
			t.Fatal(err)
		}
		done()
		if err := rec.Close(); err != nil {
			t.Fatal(err)
		}
		list, _, err := read(t, &out)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, e := range list {
			got += fmt.Sprintf("%v %d, ", e.Kind, e.Size)
			of := e.Kind == alloctrace.Reallocating || e.Kind == alloctrace.Reallocated
			if known := e.Requested == e.Size; e.Kind <= alloctrace.Reallocated && known != c.known {
				t.Errorf("%s: %+v", name, e)
			}
			if e.Reallocation != 0 && !of {
				t.Errorf("%s: %+v", name, e)
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// A history knows which blocks are live, by what a recording says.
type history struct {
	live map[uintptr]uintptr
	at   time.Duration
}

func (h *history) add(e recording.Event) error {
	if e.At < h.at {
		return fmt.Errorf("%v after %v", e.At, h.at)
	}
	h.at = e.At
	size, live := h.live[e.Addr]
	switch e.Kind {
	case alloctrace.Allocated, alloctrace.Reallocated:
		if live {
			return fmt.Errorf("%+v: a block of %d B is live there", e, size)
		}
		h.live[e.Addr] = e.Size
	case alloctrace.Reallocating, alloctrace.Freeing:
		if !live || size != e.Size {
			return fmt.Errorf("%+v: a block of %d B is live there", e, size)
		}
		delete(h.live, e.Addr)
	}
	return nil
}

// TestStorm: goroutines that hand blocks to each other make a history in which no address is live twice, and no block is
// released before it was acquired. All that they did is there.
func TestStorm(t *testing.T) {
	ops := 20_000
	if testing.Short() {
		ops = 5000
	}
	const goroutines = 4
	var out bytes.Buffer
	rec, err := recording.New(&out, recording.Options{Queue: 4 * goroutines * ops, FlushEvery: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	p := alloctrace.Wrap(&blockalloc.Pool{}, alloctrace.WithHooks(rec))
	handed := make(chan blockalloc.Block, 100)
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(g)))
			var own []blockalloc.Block
			for range ops {
				if rng.IntN(3) == 0 && len(own) > 0 {
					i := rng.IntN(len(own))
					n, err := p.Reallocate(own[i], uintptr(1+rng.IntN(20_000)))
					if err != nil {
						t.Error(err)
						return
					}
					own[i] = n
					continue
				}
				if len(own) < 20 {
					b, err := p.Allocate(blockalloc.Layout{Size: uintptr(1 + rng.IntN(20_000)), Align: 1})
					if err != nil {
						t.Error(err)
						return
					}
					own = append(own, b)
				}
				b := own[len(own)-1]
				own = own[:len(own)-1]
				select {
				case handed <- b:
				case other := <-handed:
					own = append(own, b)
					if err := p.Free(other); err != nil {
						t.Error(err)
					}
				}
			}
			for _, b := range own {
				if err := p.Free(b); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for len(handed) > 0 {
		if err := p.Free(<-handed); err != nil {
			t.Error(err)
		}
	}
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	list, _, err := read(t, &out)
	if err != nil {
		t.Fatal(err)
	}
	h := history{live: make(map[uintptr]uintptr)}
	var allocated, reallocated, freed uint64
	for _, e := range list {
		if err := h.add(e); err != nil {
			t.Fatal(err)
		}
		switch e.Kind {
		case alloctrace.Allocated:
			allocated++
		case alloctrace.Reallocated:
			reallocated++
		case alloctrace.Freeing:
			freed++
		}
	}
	s := p.Stats()
	if len(h.live) != 0 || allocated != uint64(s.Allocations) || reallocated != uint64(s.Reallocations) || freed != uint64(s.Frees) || rec.Usage().Dropped != 0 {
		t.Errorf("%d blocks are live; %d, %d and %d events, want those of %+v; %+v", len(h.live), allocated, reallocated, freed, s, rec.Usage())
	}
}

// A gate is a Writer that waits until it is opened.
type gate struct {
	bytes.Buffer
	reached, open chan struct{}
	shut          bool
}

func (g *gate) Write(b []byte) (int, error) {
	if g.shut {
		g.reached <- struct{}{}
		<-g.open
	}
	return g.Buffer.Write(b)
}

// TestDropped: while the writer waits nobody else does. What finds no room is missing where the recording says so.
func TestDropped(t *testing.T) {
	out := &gate{reached: make(chan struct{}, 100), open: make(chan struct{})}
	rec, err := recording.New(out, recording.Options{Queue: 64, FlushEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	p := alloctrace.Wrap(&blockalloc.Heap{}, alloctrace.WithHooks(rec))
	pairs := func(n int, size uintptr) {
		for range n {
			b, err := p.Allocate(blockalloc.Layout{Size: size, Align: 1})
			if err == nil {
				err = p.Free(b)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	pairs(5, 16)
	if err := rec.Flush(); err != nil {
		t.Fatal(err)
	}
	out.shut = true // the writer is at rest: it sees this with what it is asked next
	flushed := make(chan error)
	pairs(1, 32)
	go func() { flushed <- rec.Flush() }()
	<-out.reached
	pairs(1000, 48)
	close(out.open)
	if err := <-flushed; err != nil {
		t.Fatal(err)
	}
	pairs(5, 64)
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	list, _, err := read(t, &out.Buffer)
	if err != nil {
		t.Fatal(err)
	}
	var there, missing int64
	seen := map[uintptr]int{}
	for _, e := range list {
		missing += e.Dropped
		if e.Dropped == 0 {
			there++
			seen[e.Requested]++
		} else if e.Kind != 0 || seen[16] != 5 {
			t.Errorf("%+v, after %d blocks of 16 B", e, seen[16])
		}
	}
	u := rec.Usage()
	if there+missing != 2*1011 || missing == 0 || u.Dropped != missing || u.Sampled != there || seen[16] != 5 {
		t.Errorf("%d events and %d dropped, want %d in all; %+v", there, missing, 2*1011, u)
	}
}

// TestOptions: what cannot be is an error that says what can.
func TestOptions(t *testing.T) {
	for want, o := range map[string]recording.Options{
		"Options.Queue is 1: use 2 to 16777216, or 0 for 32768":                   {Queue: 1},
		"Options.FlushEvery is 1ns: use a millisecond or more, or 0 for a second": {FlushEvery: 1},
		"Options.Skip has \"./a\": it is a folder: use import paths, such as":     {Skip: []string{"./a"}},
		"Options.MaxBytes is 1: use 12582912 or more, or 0 for a GiB":             {MaxBytes: 1},
		"Options.MaxBytes is -1: use 12582912 or more, or 0 for a GiB":            {MaxBytes: -1},
		"Options.FlushEvery is -1s: use a millisecond or more, or 0 for a second": {FlushEvery: -time.Second},
		"Options.Queue is 33554432: use 2 to 16777216, or 0 for 32768":            {Queue: 1 << 25},
	} {
		path := filepath.Join(t.TempDir(), "a")
		_, err := recording.Create(path, o)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", o, err, want)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%+v: a file is left: %v", o, err)
		}
	}
	if _, err := recording.New(nil, recording.Options{}); err == nil {
		t.Error("New(nil) succeeded")
	}
	if _, err := recording.Create(filepath.Join(t.TempDir(), "none", "a"), recording.Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("in a folder that is not there: %v", err)
	}
	if _, err := recording.Open(filepath.Join(t.TempDir(), "a")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	for _, b := range []string{"", "hello", strings.Repeat("x", 1000)} {
		if _, err := recording.NewReader(strings.NewReader(b)); !errors.Is(err, recording.ErrFormat) {
			t.Errorf("of %d bytes: %v", len(b), err)
		}
	}
}

// TestAllocatesNothing: an event allocates nothing on the Go heap.
func TestAllocatesNothing(t *testing.T) {
	rec, err := recording.New(io.Discard, recording.Options{FreeStacks: true, FlushEvery: time.Hour, Queue: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Close()
	var pool blockalloc.Pool
	operations := func(a blockalloc.Allocator) func() {
		return func() {
			b, _ := a.Allocate(blockalloc.Layout{Size: 64, Align: 8})
			b, _ = a.Reallocate(b, 10_000)
			_ = a.Free(b)
			b, _ = a.Allocate(blockalloc.Layout{Size: 64, Align: 8})
			_, _ = a.Reallocate(b, 0)
		}
	}
	bare := testing.AllocsPerRun(500, operations(&pool))
	q := alloctrace.Wrap(&pool, alloctrace.WithHooks(rec))
	if n := testing.AllocsPerRun(500, operations(q)); n > bare {
		t.Errorf("%v allocations, %v without a Recorder", n, bare)
	}
}

// TestHoldsNothing: what a Recorder knows of blocks does not hold them. They are where no earlier test had any, whose events may have their addresses still.
func TestHoldsNothing(t *testing.T) {
	looks := 1
	if bits.UintSize == 32 { // where numbers that look like addresses can hold some, and not each time
		looks = 3
	}
	for range looks {
		if holdsNothing(t) {
			return
		}
	}
	t.Error("blocks are held each time")
}

func holdsNothing(t *testing.T) bool {
	t.Helper()
	rec, err := recording.New(io.Discard, recording.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Close()
	profile := heapprofile.New(heapprofile.Options{Rate: 1})
	p := alloctrace.Wrap(&blockalloc.Reserved{Max: 1 << 20}, alloctrace.WithHooks(profile, rec))
	const blocks = 20
	done := make(chan struct{})
	go func() { // whose stack is gone then
		defer close(done)
		for range blocks {
			// They are small, for where addresses have 32 bits any number can be one in a block.
			if _, err := p.Allocate(blockalloc.BlockLayout(64)); err != nil {
				t.Error(err)
			}
		}
	}()
	<-done
	if err := rec.Flush(); err != nil {
		t.Fatal(err)
	}
	u, err := profile.Unreachable(t.Context())
	if errors.Is(err, errors.ErrUnsupported) {
		return true // Go writes no dump of its heap here
	}
	if err != nil {
		t.Fatal(err)
	}
	if u.Looked != blocks || u.Report.Blocks < blocks/2 { // a stale address can hide one
		t.Logf("of %d blocks, all of which were dropped, %d are unreachable", u.Looked, u.Report.Blocks)
		return false
	}
	return true
}
