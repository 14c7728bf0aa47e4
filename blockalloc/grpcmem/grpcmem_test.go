package grpcmem_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/backstop"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/blockalloc/grpcmem"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// bufferPool is what gRPC asks for.
type bufferPool interface {
	Get(length int) *[]byte
	Put(*[]byte)
}

var _ bufferPool = (*grpcmem.Pool)(nil)

// errorList takes errors.
type errorList struct {
	mu  sync.Mutex
	all []error
}

func (l *errorList) add(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, err)
}

// take returns the errors since the call before.
func (l *errorList) take() []error {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.all
	l.all = nil
	return all
}

func collect(t *testing.T) {
	t.Helper()
	if err := backstop.Collect(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func wantStats(t *testing.T, p *grpcmem.Pool, want grpcmem.Stats) {
	t.Helper()
	if got := p.Stats(); got != want {
		t.Errorf("the stats are %+v, want %+v", got, want)
	}
}

func TestBuffers(t *testing.T) {
	mem := alloctest.New(t)
	p := grpcmem.New(mem, grpcmem.Options{})
	ours := int64(0)
	for _, length := range []int{0, 1, 1024, 1025, 16 << 10, 3 << 20} {
		for range 2 { // the second time memory was used before
			b := p.Get(length)
			if len(*b) != length || cap(*b) != length || bytes.Count(*b, []byte{0}) != length {
				t.Errorf("Get(%d): length %d, capacity %d, or not zero", length, len(*b), cap(*b))
			}
			if length > 1024 {
				ours++
			}
			if live := mem.Stats().LiveBlocks; (live == 1) != (length > 1024) {
				t.Errorf("Get(%d): %d blocks are live", length, live)
			}
			for i := range *b {
				(*b)[i] = 0xff
			}
			*b = (*b)[:length/2] // gRPC puts a prefix
			p.Put(b)
			if length > 1024 && len(*b) != 0 {
				t.Errorf("Put(%d) leaves the slice", length)
			}
		}
	}
	alloctest.AssertLive(t, mem, 0, 0)
	if got := mem.Stats().Allocations; got != ours {
		t.Errorf("%d allocations, want %d", got, ours)
	}
	wantStats(t, p, grpcmem.Stats{})
	if err := p.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestDirty: what was in a buffer is in the next one, if that is wanted.
func TestDirty(t *testing.T) {
	for _, dirty := range []bool{false, true} {
		p := grpcmem.New(measure.NewInner(), grpcmem.Options{Dirty: dirty}) // which has one block for all
		b := p.Get(3000)
		for i := range *b {
			(*b)[i] = 7
		}
		p.Put(b)
		b = p.Get(2000)
		if got := bytes.Count(*b, []byte{7}); got != 0 != dirty {
			t.Errorf("with Dirty: %v, %d bytes are as before", dirty, got)
		}
		p.Put(b)
	}
}

// TestForeign: what did not come from Get is left as it is, and counted if it is large.
func TestForeign(t *testing.T) {
	mem := alloctest.New(t)
	p, other := grpcmem.New(mem, grpcmem.Options{}), grpcmem.New(mem, grpcmem.Options{})
	theirs := other.Get(2000)
	for name, foreign := range map[string]*[]byte{"nil": new([]byte), "small": {1, 2}, "large": new(make([]byte, 2000)), "of another Pool": theirs} {
		length := len(*foreign)
		p.Put(foreign)
		if len(*foreign) != length {
			t.Errorf("Put took a slice that is %s", name)
		}
	}
	if s := mem.Stats(); s.Frees != 0 || s.FailedFrees != 0 {
		t.Errorf("%d frees, %d failed: want none", s.Frees, s.FailedFrees)
	}
	wantStats(t, p, grpcmem.Stats{Foreign: 2})
	other.Put(theirs)
}

// TestMisuse: a second Put is an error, by whatever pointer, and frees nothing of others.
func TestMisuse(t *testing.T) {
	var errs errorList
	p := grpcmem.New(measure.NewInner(), grpcmem.Options{OnError: errs.add}) // which has one block for all
	one := func(what string, is error, prefix string) {
		t.Helper()
		if got := errs.take(); len(got) != 1 || !errors.Is(got[0], is) || !strings.HasPrefix(got[0].Error(), prefix) {
			t.Errorf("%s: %v, want one error %q that is %v", what, got, prefix, is)
		}
	}
	p.Put(nil)
	one("nil", blockalloc.ErrNotOwned, "grpcmem: Put(nil): ")
	b := p.Get(4000)
	same := *b
	p.Put(&same)
	one("another pointer", blockalloc.ErrNotOwned, "grpcmem: Put: backstop: Free(")
	p.Put(b)
	p.Put(b)
	one("a second time", blockalloc.ErrDoubleFree, "grpcmem: Put: ")
	p.Put(&same)
	wantStats(t, p, grpcmem.Stats{Foreign: 1})
	other := p.Get(2000)
	p.Put(&same)
	one("the memory of somebody else", blockalloc.ErrNotOwned, "grpcmem: Put: backstop: Free(")
	p.Put(other)
	wantStats(t, p, grpcmem.Stats{Foreign: 1})
	if got := errs.take(); got != nil {
		t.Errorf("right calls: %v", got)
	}
}

// TestPanic: without OnError, misuse panics.
func TestPanic(t *testing.T) {
	p := grpcmem.New(alloctest.New(t), grpcmem.Options{})
	b := p.Get(4000)
	p.Put(b)
	defer func() {
		if err, ok := recover().(error); !ok || !errors.Is(err, blockalloc.ErrDoubleFree) {
			t.Errorf("without OnError Put panics with %v", err)
		}
	}()
	p.Put(b)
}

// TestFailures: where the allocator fails, gRPC is given memory none the less, and what it puts is not lost.
func TestFailures(t *testing.T) {
	var errs errorList
	mem := alloctest.New(t, alloctest.WithAllocator(blockalloc.NewLimit(&blockalloc.Heap{}, 100<<10)))
	p := grpcmem.New(mem, grpcmem.Options{OnError: errs.add})
	b := p.Get(1 << 20)
	if len(*b) != 1<<20 || mem.Stats().FailedAllocations != 1 {
		t.Errorf("beyond the limit Get returns %d bytes, and %d failures were counted", len(*b), mem.Stats().FailedAllocations)
	}
	if got := errs.take(); len(got) != 1 || !errors.Is(got[0], blockalloc.ErrLimit) || !strings.HasPrefix(got[0].Error(), "grpcmem: Get(1048576): ") {
		t.Errorf("the errors are %v", got)
	}
	p.Put(b)
	wantStats(t, p, grpcmem.Stats{Fallback: 1, Foreign: 1})
	func() {
		defer func() {
			if text, _ := recover().(string); text != "grpcmem: Get(-1): the length is negative" {
				t.Errorf("Get(-1) panics with %q", text)
			}
		}()
		p.Get(-1)
	}()
	quiet := grpcmem.New(mem, grpcmem.Options{})
	if b := quiet.Get(1 << 20); len(*b) != 1<<20 {
		t.Errorf("without OnError Get returns %d bytes", len(*b))
	}
}

// TestFailedFree: a buffer that the allocator does not take back stays one.
func TestFailedFree(t *testing.T) {
	var errs errorList
	refuse := true
	mem := failing.If(alloctest.New(t), func(c failing.Call) bool { return c.Op == failing.OpFree && refuse })
	p := grpcmem.New(mem, grpcmem.Options{OnError: errs.add})
	b := p.Get(5000)
	p.Put(b)
	if got := errs.take(); len(got) != 1 || !errors.Is(got[0], failing.ErrInjected) || len(*b) != 5000 {
		t.Errorf("the errors are %v, and the buffer has %d bytes", got, len(*b))
	}
	refuse = false
	p.Put(b)
	wantStats(t, p, grpcmem.Stats{})
}

// TestDrop: what gRPC forgets is freed, counted and reported with who took it. What is held is not.
func TestDrop(t *testing.T) {
	var mu sync.Mutex
	var drops []string
	mem := alloctest.New(t)
	p := grpcmem.New(mem, grpcmem.Options{OnDrop: func(d backstop.Drop) {
		mu.Lock()
		defer mu.Unlock()
		drops = append(drops, fmt.Sprint(d.Size >= 2000, " ", d.Frames()[0].Function))
	}})
	held := p.Get(2000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		forget(p)
	}()
	<-done
	collect(t)
	want := grpcmem.Stats{}
	want.LiveBlocks, want.LiveBytes = 1, mem.Stats().LiveBytes
	want.DroppedBlocks, want.DroppedBytes = 1, want.LiveBytes
	wantStats(t, p, want)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Shutdown(ended); !errors.Is(err, blockalloc.ErrLive) || !strings.HasPrefix(err.Error(), "grpcmem: Shutdown: ") {
		t.Errorf("Shutdown with a buffer in use: %v", err)
	}
	if late := p.Get(3000); len(*late) != 3000 || p.Stats().Fallback != 1 {
		t.Error("after Shutdown Get does not go on with the Go heap")
	}
	p.Put(held)
	if err := p.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if want := "true github.com/alloctrace/alloctrace/blockalloc/grpcmem_test.forget"; len(drops) != 1 || drops[0] != want {
		t.Errorf("the drops are %v, want %s", drops, want)
	}
}

//go:noinline
func forget(p *grpcmem.Pool) { p.Get(2000) }

// TestConcurrent: buffers are put by other goroutines than took them, and none has the memory of two.
func TestConcurrent(t *testing.T) {
	slab, err := blockalloc.NewSlab(blockalloc.Default(), 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	mem := alloctrace.Wrap(slab)
	p := grpcmem.New(mem, grpcmem.Options{})
	buffers := make(chan *[]byte, 16)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 500 {
				b := p.Get(1025 + 37*n)
				for i := range *b {
					(*b)[i] = byte(n)
				}
				buffers <- b
				other := <-buffers // most often another's
				if bytes.Count(*other, (*other)[:1]) != len(*other) {
					t.Errorf("goroutine %d: the buffer of %d bytes is somebody else's, too", i, len(*other))
				}
				if n%50 != 0 {
					p.Put(other)
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(p.Shutdown(t.Context()), mem.Close(), slab.Close()); err != nil {
		t.Error(err)
	}
	want := grpcmem.Stats{}
	want.DroppedBlocks, want.DroppedBytes = 40, p.Stats().DroppedBytes
	wantStats(t, p, want)
}

// TestShutdownWaits: a buffer that gRPC's last goroutine still holds is waited for, put or dropped.
func TestShutdownWaits(t *testing.T) {
	p := grpcmem.New(alloctest.New(t), grpcmem.Options{})
	put, dropped := p.Get(2000), p.Get(2000)
	began := make(chan struct{})
	go func() {
		<-began
		p.Put(put)
		runtime.KeepAlive(dropped)
	}()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Shutdown(ended); !errors.Is(err, blockalloc.ErrLive) {
		t.Errorf("Shutdown that must not wait: %v", err)
	}
	close(began)
	if err := p.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	want := grpcmem.Stats{}
	want.DroppedBlocks, want.DroppedBytes = 1, p.Stats().DroppedBytes
	wantStats(t, p, want)
}

func TestNil(t *testing.T) {
	defer func() {
		if text, _ := recover().(string); !strings.HasPrefix(text, "grpcmem: New(nil): pass an allocator") {
			t.Errorf("New(nil) panics with %q", text)
		}
	}()
	grpcmem.New(nil, grpcmem.Options{})
}
