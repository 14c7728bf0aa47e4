package backstop_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/backstop"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/internal/measure"
)

func layout(size uintptr) blockalloc.Layout { return blockalloc.Layout{Size: size, Align: 64} }

func allocate(t *testing.T, s *backstop.Backstop, size uintptr) *[]byte {
	t.Helper()
	handle, err := s.Allocate(layout(size))
	if err != nil {
		t.Fatal(err)
	}
	return handle
}

func collect(t *testing.T) {
	t.Helper()
	if err := backstop.Collect(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// inGoroutine runs f in a goroutine of its own, whose stack is gone then: no word of it keeps a handle.
func inGoroutine(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

// dropSome allocates blocks of a size and drops their handles.
//
//go:noinline
func dropSome(t *testing.T, s *backstop.Backstop, n int, size uintptr) {
	inGoroutine(func() {
		for range n {
			if _, err := s.Allocate(layout(size)); err != nil {
				t.Error(err)
			}
		}
	})
}

func wantStats(t *testing.T, s *backstop.Backstop, want backstop.Stats) {
	t.Helper()
	if got := s.Stats(); got != want {
		t.Errorf("the stats are %+v, want %+v", got, want)
	}
}

func TestFree(t *testing.T) {
	mem := alloctest.New(t)
	s := backstop.New(mem, backstop.Options{OnDrop: func(d backstop.Drop) { t.Errorf("dropped: %v", d) }})
	handle := allocate(t, s, 100)
	if len(*handle) != 100 || cap(*handle) < 100 {
		t.Fatalf("the slice has length %d and capacity %d, want 100", len(*handle), cap(*handle))
	}
	granted := int64(cap(*handle))
	wantStats(t, s, backstop.Stats{LiveBlocks: 1, LiveBytes: granted})
	alloctest.AssertLive(t, mem, granted, 1)
	if err := s.Close(); !errors.Is(err, blockalloc.ErrLive) || !strings.HasPrefix(err.Error(), "backstop: Close: blocks are still live: 1 of them, ") {
		t.Errorf("Close with a live block: %v", err)
	}
	*handle = append((*handle)[:0], "shorter"...)
	if err := s.Free(handle); err != nil || *handle != nil {
		t.Errorf("Free: %v, and the slice is %q", err, *handle)
	}
	if err := s.Free(handle); !errors.Is(err, blockalloc.ErrDoubleFree) {
		t.Errorf("second Free: %v", err)
	}
	collect(t)
	wantStats(t, s, backstop.Stats{})
	alloctest.AssertLive(t, mem, 0, 0)
	if got := mem.Stats(); got.Frees != 1 || got.FailedFrees != 0 {
		t.Errorf("the Proxy has counted %d frees and %d that failed, want 1 and none", got.Frees, got.FailedFrees)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := s.Allocate(layout(100)); !errors.Is(err, blockalloc.ErrClosed) {
		t.Errorf("Allocate after Close: %v", err)
	}
}

func TestFreeBytes(t *testing.T) {
	s := backstop.New(alloctest.New(t), backstop.Options{})
	handle := allocate(t, s, 100)
	memory := (*handle)[:7:7]
	if err := s.FreeBytes(memory[1:]); !errors.Is(err, blockalloc.ErrNotOwned) {
		t.Errorf("of the inside of a block: %v", err)
	}
	if err := s.FreeBytes(memory); err != nil {
		t.Error(err)
	}
	if err := s.FreeBytes(memory); !errors.Is(err, blockalloc.ErrNotOwned) || !strings.HasPrefix(err.Error(), "backstop: FreeBytes(7 bytes at 0x") {
		t.Errorf("the second time: %v", err)
	}
	runtime.KeepAlive(handle)
	collect(t)
	wantStats(t, s, backstop.Stats{})
}

// TestRefused: what is no live block of the Backstop is not freed.
func TestRefused(t *testing.T) {
	s := backstop.New(alloctest.New(t), backstop.Options{})
	other := backstop.New(alloctest.New(t), backstop.Options{})
	handle, foreign := allocate(t, s, 100), allocate(t, other, 100)
	moved := append((*handle)[:cap(*handle):cap(*handle)], 0)
	longer := unsafe.Slice(unsafe.SliceData(*handle), cap(*handle)+1)
	for name, h := range map[string]*[]byte{
		"nil": nil, "of another Backstop": foreign, "of the Go heap": {1}, "moved by append": &moved, "longer than the block": &longer,
	} {
		if err := s.Free(h); !errors.Is(err, blockalloc.ErrNotOwned) {
			t.Errorf("Free of a handle %s: %v", name, err)
		}
	}
	same := *handle
	if err := s.Free(&same); !errors.Is(err, blockalloc.ErrNotOwned) || !strings.Contains(err.Error(), "has another handle") {
		t.Errorf("Free of a copy of the slice: %v", err)
	}
	for name, c := range map[string]struct {
		memory []byte
		want   bool
	}{
		"nil": {nil, false}, "the slice": {*handle, true}, "its beginning": {same[:1:1], true}, "its end": {same[1:], false}, "of another": {*foreign, false},
	} {
		if got := s.Owns(c.memory); got != c.want {
			t.Errorf("Owns of %s: %v", name, got)
		}
	}
	wantStats(t, s, backstop.Stats{LiveBlocks: 1, LiveBytes: int64(cap(*handle))})
	for s, h := range map[*backstop.Backstop]*[]byte{s: handle, other: foreign} {
		if err := s.Free(h); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Allocate(blockalloc.Layout{Size: 1, Align: 3}); !errors.Is(err, blockalloc.ErrBadLayout) {
		t.Errorf("Allocate with an alignment of 3: %v", err)
	}
	defer func() {
		if text, _ := recover().(string); !strings.HasPrefix(text, "backstop: New(nil): pass ") {
			t.Errorf("New(nil) panics with %q", text)
		}
	}()
	backstop.New(nil, backstop.Options{})
}

func TestSizeZero(t *testing.T) {
	s := backstop.New(alloctest.New(t), backstop.Options{})
	handle := allocate(t, s, 0)
	if *handle == nil || len(*handle) != 0 {
		t.Errorf("the slice is %#v", *handle)
	}
	for range 2 {
		if err := s.Free(handle); err != nil {
			t.Error(err)
		}
	}
	wantStats(t, s, backstop.Stats{})
}

// TestFreeFails: a block that the inner allocator does not take back stays live, and can be freed again or
// dropped.
func TestFreeFails(t *testing.T) {
	mem := alloctest.New(t)
	var fail atomic.Bool
	s := backstop.New(failing.If(mem, func(c failing.Call) bool { return c.Op == failing.OpFree && fail.Load() }), backstop.Options{})
	handle := allocate(t, s, 64)
	fail.Store(true)
	for range 2 {
		if err := s.Free(handle); !errors.Is(err, failing.ErrInjected) || *handle == nil {
			t.Errorf("a free that fails: %v, and the slice is %v", err, *handle)
		}
	}
	wantStats(t, s, backstop.Stats{LiveBlocks: 1, LiveBytes: 64})
	fail.Store(false)
	if err := s.Free(handle); err != nil {
		t.Error(err)
	}
	inGoroutine(func() {
		handle := allocate(t, s, 64)
		fail.Store(true)
		if err := s.Free(handle); !errors.Is(err, failing.ErrInjected) {
			t.Errorf("a free that fails: %v", err)
		}
		fail.Store(false)
	})
	collect(t)
	wantStats(t, s, backstop.Stats{DroppedBlocks: 1, DroppedBytes: 64})
}

// ending is an allocator whose Free calls a function before or after the inner Free.
type ending struct {
	blockalloc.Allocator
	before, after func()
}

func (e *ending) Unwrap() blockalloc.Allocator { return e.Allocator }

func (e *ending) Owns(b blockalloc.Block) bool { return e.Allocator.(blockalloc.Owner).Owns(b) }

func (e *ending) Free(b blockalloc.Block) error {
	if e.before != nil {
		e.before()
	}
	err := e.Allocator.Free(b)
	if e.after != nil {
		e.after()
	}
	return err
}

// TestAllocatorEnds: if the inner allocator panics or ends the goroutine, the block is live or freed, as
// that says, and can be freed if it is live.
func TestAllocatorEnds(t *testing.T) {
	for name, end := range map[string]func(){"panic": func() { panic("for the test") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			mem := alloctest.New(t)
			inner := &ending{Allocator: mem}
			s := backstop.New(inner, backstop.Options{})
			free := func(handle *[]byte) {
				inGoroutine(func() {
					defer func() { _ = recover() }()
					_ = s.Free(handle)
					t.Error("the end of Free did not reach its caller")
				})
			}
			inner.before = end
			handle := allocate(t, s, 64)
			free(handle)
			wantStats(t, s, backstop.Stats{LiveBlocks: 1, LiveBytes: 64})
			inner.before = nil
			if err := s.Free(handle); err != nil {
				t.Error(err)
			}
			inner.after = end
			handle = allocate(t, s, 64)
			free(handle)
			wantStats(t, s, backstop.Stats{})
			inner.after = nil
			if err := s.Free(handle); !errors.Is(err, blockalloc.ErrNotOwned) {
				t.Errorf("Free of a block that was freed: %v", err)
			}

			var drops []error
			s = backstop.New(inner, backstop.Options{OnDrop: func(d backstop.Drop) { drops = append(drops, d.Err) }})
			dropSome(t, s, 2, 64)
			inner.after = end
			collect(t)
			wantStats(t, s, backstop.Stats{FailedBlocks: 2, FailedBytes: 128})
			if len(drops) != 2 || drops[0] == nil || drops[1] == nil || !strings.Contains(s.Err().Error(), "backstop: freeing what was dropped ") {
				t.Errorf("reported are %v, and the error is %v", drops, s.Err())
			}
		})
	}
}

// TestFreedPast: a block that was freed past the Backstop, and whose address has another one, does not
// take that with it when its handle is collected.
func TestFreedPast(t *testing.T) {
	var same blockalloc.Block
	mem := alloctest.New(t)
	same, err := mem.Allocate(layout(64))
	if err != nil {
		t.Fatal(err)
	}
	inner := &oneBlock{block: same}
	s := backstop.New(inner, backstop.Options{})
	dropSome(t, s, 1, 64)
	handle := allocate(t, s, 64) // at the same address: the first one was freed by nobody
	collect(t)
	wantStats(t, s, backstop.Stats{LiveBlocks: 1, LiveBytes: 64})
	if n := inner.frees.Load(); n != 0 {
		t.Errorf("%d frees, want none", n)
	}
	if err := errors.Join(s.Free(handle), mem.Free(same)); err != nil {
		t.Error(err)
	}
}

// oneBlock hands out one block again and again.
type oneBlock struct {
	block blockalloc.Block
	frees atomic.Int32
}

func (a *oneBlock) Allocate(blockalloc.Layout) (blockalloc.Block, error) { return a.block, nil }

func (a *oneBlock) Reallocate(b blockalloc.Block, _ uintptr) (blockalloc.Block, error) { return b, nil }

func (a *oneBlock) Free(blockalloc.Block) error {
	a.frees.Add(1)
	return nil
}

// TestCost: on the Go heap a block costs the allocations that the doc comment has.
func TestCost(t *testing.T) {
	for _, noStacks := range []bool{true, false} {
		s := backstop.New(alloctrace.Wrap(measure.NewInner()), backstop.Options{NoStacks: noStacks})
		measure.WantAllocs(t, 3, func() {
			handle, _ := s.Allocate(layout(4096))
			_ = s.Free(handle)
		})
	}
}
