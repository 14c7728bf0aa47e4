package replay_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/replay"
)

// A hanging allocator does not return from its call number at: it cancels the replay, and waits until it is let go.
type hanging struct {
	blockalloc.Heap
	op     string
	at     int
	cancel func()
	let    chan struct{}

	mu    sync.Mutex
	calls map[string]int
}

func newHanging(op string, at int) (h *hanging, ctx context.Context) {
	h = &hanging{op: op, at: at, let: make(chan struct{}), calls: make(map[string]int)}
	ctx, h.cancel = context.WithCancel(context.Background())
	return h, ctx
}

func (h *hanging) called(op string) {
	h.mu.Lock()
	h.calls[op]++
	hangs := op == h.op && h.calls[op] == h.at
	h.mu.Unlock()
	if hangs {
		h.cancel()
		<-h.let
	}
}

func (h *hanging) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	h.called("allocate")
	return h.Heap.Allocate(l)
}

func (h *hanging) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	h.called("reallocate")
	return h.Heap.Reallocate(b, size)
}

func (h *hanging) Free(b blockalloc.Block) error {
	h.called("free")
	return h.Heap.Free(b)
}

// steps returns many blocks, one in three of which is reallocated, and one in two freed.
func steps() []recording.Event {
	var l list
	for i := range uintptr(300) {
		addr := 0x1000 * (i + 1)
		l.add(alloctrace.Allocated, addr, 100+i)
		if i%3 == 0 {
			l.add(alloctrace.Reallocating, addr, 100+i)
			l.add(alloctrace.Reallocated, addr, 200+i)
			l.add(alloctrace.Freeing, addr, 200+i)
		} else if i%3 == 1 {
			l.add(alloctrace.Freeing, addr, 100+i)
		}
	}
	return l
}

// TestStuck: a call that hangs is named when the replay is to end, and its goroutine does no more.
func TestStuck(t *testing.T) {
	replay.Impatient(t)
	events := steps()
	for _, c := range []struct {
		op         string
		at         int
		goroutines int
		event      int64 // 0 for any
		atEnd      bool
	}{{"allocate", 5, 1, 12, false}, {"reallocate", 2, 1, 10, false}, {"free", 3, 1, 11, false}, {"allocate", 100, 4, 0, false}, {"free", 201, 1, 7, true}} {
		h, ctx := newHanging(c.op, c.at)
		result, err := replay.Run(ctx, replay.New(events), h, replay.Options{Goroutines: c.goroutines})
		var f *replay.Failure
		if !errors.As(err, &f) || !errors.Is(err, context.Canceled) {
			t.Fatalf("%s %d: %v", c.op, c.at, err)
		}
		if f.Reason != replay.Stuck || f.Op != c.op || f.AtEnd != c.atEnd || c.event > 0 && f.Event.Number != c.event || !strings.Contains(err.Error(), "stuck: it has not returned: context canceled") {
			t.Errorf("%s %d: %v", c.op, c.at, err)
		}
		if result.Failed != 1 || c.goroutines == 1 && !c.atEnd && result.Operations >= result.Recorded.Operations {
			t.Errorf("%s %d: %+v", c.op, c.at, result)
		}
		before := maps.Clone(h.calls)
		close(h.let)
		waitForWorkers(t)
		if !maps.Equal(h.calls, before) {
			t.Errorf("%s %d: there were %v calls when the replay had ended, and then %v", c.op, c.at, before, h.calls)
		}
	}
}

// waitForWorkers waits until no goroutine of a replay is left.
func waitForWorkers(t *testing.T) {
	t.Helper()
	b := make([]byte, 1<<20)
	for deadline := time.Now().Add(time.Minute); bytes.Contains(b[:runtime.Stack(b, true)], []byte("replay.(*worker)")); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("a goroutine is left: %s", b)
		}
	}
}

// A dying allocator panics while it holds its lock, which it takes for each call.
type dying struct {
	blockalloc.Heap
	mu   sync.Mutex
	left int
}

func (d *dying) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	d.mu.Lock()
	if d.left--; d.left == 0 {
		panic("dead")
	}
	defer d.mu.Unlock()
	return d.Heap.Allocate(l)
}

func (d *dying) Free(b blockalloc.Block) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.Heap.Free(b)
}

// TestStuckAfter: what has failed is reported, though after that all calls hang.
func TestStuckAfter(t *testing.T) {
	replay.Impatient(t)
	for _, o := range []replay.Options{{}, {Goroutines: 4}} {
		_, err := replay.Run(context.Background(), replay.New(steps()), &dying{left: 50}, o)
		var f *replay.Failure
		if !errors.As(err, &f) || f.Reason != replay.Panicked || f.Err.Error() != "dead" {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// TestShrinkStuck: a recording that has an allocator hang becomes small.
func TestShrinkStuck(t *testing.T) {
	replay.Impatient(t)
	var of []*hanging
	small, err := replay.Shrink(context.Background(), steps(), func(events []recording.Event) error {
		h, ctx := newHanging("reallocate", 2)
		of = append(of, h)
		_, err := replay.Run(ctx, replay.New(events), h, replay.Options{})
		return err
	})
	if err != nil || len(small) > 6 {
		t.Errorf("%v; %+v are left", err, small)
	}
	for _, h := range of {
		close(h.let)
	}
}
