package heapprofile_test

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unique"
	"unsafe"
	"weak"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// put writes the address of a block into another.
func put(into, of blockalloc.Block) { *(*uintptr)(into.Pointer()) = of.Addr() }

// A shape is a way to hold a block, or none. It allocates, and returns what must stay reachable: nil for the block to be unreachable.
type shape struct {
	name  string
	lost  int64 // how many blocks nothing holds any more
	plant func(h *holder) (keep any)
}

// A holder has what a shape needs.
type holder struct {
	t       *testing.T
	mem     *alloctrace.Proxy
	release chan struct{} // is closed at the end, for goroutines to end
	wait    sync.WaitGroup
}

func (h *holder) block() blockalloc.Block { return allocate(h.mem, 4<<10) }

// waiting starts f, and returns once it has called its argument, after which it is to wait.
func (h *holder) waiting(f func(ready func())) {
	started := make(chan struct{})
	h.wait.Go(func() { f(func() { close(started) }) })
	<-started
}

type node struct {
	value int
	block blockalloc.Block
}

var (
	globalBlock   blockalloc.Block
	globalAddr    uintptr
	globalPointer unsafe.Pointer

	// Without pointers, and placed by their size: one next to the 4 KiB through which the runtime writes a dump, and two of more than a megabyte.
	globalAddrs [511]uintptr
	globalLarge [150_000]uintptr
	globalSet   = [150_000]uintptr{1: 1}
)

type contextKey struct{}

type method struct{ of blockalloc.Block }

func (m method) size() uintptr { return m.of.Size() }

var shapes = []shape{
	{"dropped", 1, func(h *holder) any { h.block(); return nil }},
	{"a global variable", 0, func(h *holder) any { globalBlock = h.block(); return nil }},
	{"a global variable that was cleared", 1, func(h *holder) any { globalBlock = h.block(); globalBlock = blockalloc.Block{}; return nil }},
	{"a uintptr in a global variable", 0, func(h *holder) any { globalAddr = h.block().Addr(); return nil }},
	{"the last uintptr in a global array", 0, func(h *holder) any { globalAddrs[len(globalAddrs)-1] = h.block().Addr(); return nil }},
	{"the last uintptr in a large global array", 0, func(h *holder) any { globalLarge[len(globalLarge)-1] = h.block().Addr(); return nil }},
	{"the first uintptr in a large global array that was initialized", 0, func(h *holder) any { globalSet[0] = h.block().Addr(); return nil }},
	{"an unsafe.Pointer in a global variable", 0, func(h *holder) any { globalPointer = h.block().Pointer(); return nil }},
	{"a struct", 0, func(h *holder) any { return &node{1, h.block()} }},
	{"a struct that was dropped", 1, func(h *holder) any { _ = &node{1, h.block()}; return nil }},
	{"an array", 0, func(h *holder) any { return &[3]blockalloc.Block{1: h.block()} }},
	{"a slice", 0, func(h *holder) any { return []blockalloc.Block{h.block()} }},
	{"a slice that was cut short", 0, func(h *holder) any { return []blockalloc.Block{h.block()}[:0] }},
	{"a map's value", 0, func(h *holder) any { return map[int]blockalloc.Block{1: h.block()} }},
	{"a map's key", 0, func(h *holder) any { return map[blockalloc.Block]int{h.block(): 1} }},
	{"a map from which it was deleted", 1, func(h *holder) any {
		m := map[int]blockalloc.Block{1: h.block()}
		delete(m, 1)
		return m
	}},
	{"an interface", 0, func(h *holder) any { return any(h.block()) }},
	{"a closure", 0, func(h *holder) any {
		b := h.block()
		return func() uintptr { return b.Size() }
	}},
	{"a method value", 0, func(h *holder) any { return method{h.block()}.size }},
	{"a []byte", 0, func(h *holder) any { return h.block().Bytes() }},
	{"a part of a []byte", 0, func(h *holder) any { return h.block().Bytes()[4000:4001] }},
	{"a string", 0, func(h *holder) any { return unsafe.String((*byte)(h.block().Pointer()), 10) }},
	{"a slice by unsafe.Slice", 0, func(h *holder) any { return unsafe.Slice((*uint64)(h.block().Pointer()), 8)[1:] }},
	{"a pointer to its last byte", 0, func(h *holder) any { b := h.block(); return &b.Bytes()[b.Size()-1] }},
	{"an address behind its end", 1, func(h *holder) any { b := h.block(); end := b.Addr() + b.Size(); return &end }},
	{"an atomic.Pointer", 0, func(h *holder) any {
		p := new(atomic.Pointer[byte])
		p.Store((*byte)(h.block().Pointer()))
		return p
	}},
	{"a sync.Map", 0, func(h *holder) any { m := new(sync.Map); m.Store(1, h.block()); return m }},
	{"a sync.Pool, which collections empty", 1, func(h *holder) any { p := new(sync.Pool); p.Put(&node{1, h.block()}); return p }},
	{"a weak pointer to its holder", 1, func(h *holder) any { w := weak.Make(&node{1, h.block()}); return &w }},
	{"a unique handle", 0, func(h *holder) any { u := unique.Make(h.block()); return &u }},
	{"a context's value", 0, func(h *holder) any { return context.WithValue(context.Background(), contextKey{}, h.block()) }},
	{"a channel's buffer", 0, func(h *holder) any { c := make(chan blockalloc.Block, 2); c <- h.block(); return c }},
	{"a channel from which it was received", 1, func(h *holder) any {
		c := make(chan blockalloc.Block, 2)
		c <- h.block()
		<-c
		return c
	}},
	{"a timer", 0, func(h *holder) any {
		b := h.block()
		return time.AfterFunc(time.Hour, func() { b.Bytes()[0]++ })
	}},
	{"a timer that nobody has", 0, func(h *holder) any {
		b := h.block()
		stop := time.AfterFunc(time.Hour, func() { b.Bytes()[0]++ }).Stop
		h.t.Cleanup(func() { stop() })
		return nil
	}},
	{"a finalizer", 0, func(h *holder) any {
		b, object := h.block(), &node{value: 1}
		runtime.SetFinalizer(object, func(*node) { _ = h.mem.Free(b) })
		return object
	}},
	{"a cleanup's argument", 0, func(h *holder) any {
		object := &node{value: 1}
		runtime.AddCleanup(object, func(b blockalloc.Block) { _ = h.mem.Free(b) }, h.block())
		return object
	}},
	{"the stack of a goroutine that receives", 0, func(h *holder) any {
		h.waiting(func(ready func()) {
			b := h.block()
			ready()
			<-h.release
			b.Bytes()[0]++
		})
		return nil
	}},
	{"the stack of a goroutine that has freed the name of it", 0, func(h *holder) any {
		h.waiting(func(ready func()) {
			addr := h.block().Addr()
			ready()
			<-h.release
			runtime.KeepAlive(addr)
		})
		return nil
	}},
	{"the stack of a goroutine that has ended", 1, func(h *holder) any { apart(func() { b := h.block(); b.Bytes()[0]++ }); return nil }},
	{"a send that waits", 0, func(h *holder) any {
		c := make(chan blockalloc.Block)
		h.waiting(func(ready func()) {
			b := h.block()
			ready()
			select {
			case c <- b:
			case <-h.release:
			}
		})
		return nil
	}},
	{"a deferred call", 0, func(h *holder) any {
		h.waiting(func(ready func()) {
			defer func(b blockalloc.Block) { b.Bytes()[0]++ }(h.block())
			ready()
			<-h.release
		})
		return nil
	}},
	{"an iterator that was stopped in between", 0, func(h *holder) any {
		next, stop := iter.Pull(func(yield func(int) bool) {
			b := h.block()
			yield(1)
			b.Bytes()[0]++
		})
		next()
		h.t.Cleanup(stop)
		return next
	}},
	{"a loop that runs", 0, func(h *holder) any {
		h.waiting(func(ready func()) {
			b := h.block()
			ready()
			for {
				select {
				case <-h.release:
					return
				default:
					b.Bytes()[0]++
					runtime.Gosched()
				}
			}
		})
		return nil
	}},
	{"another block", 0, func(h *holder) any { b := h.block(); put(b, h.block()); return &b }},
	{"a block that was dropped", 2, func(h *holder) any { put(h.block(), h.block()); return nil }},
	{"a block that was freed", 1, func(h *holder) any {
		b := h.block()
		put(b, h.block())
		if err := h.mem.Free(b); err != nil {
			h.t.Error(err)
		}
		return nil
	}},
	{"a list of blocks", 0, func(h *holder) any {
		first := h.block()
		for last := first; h.mem.Stats().LiveBlocks < 10; {
			next := h.block()
			put(last, next)
			last = next
		}
		return &first
	}},
	{"a list of blocks that was dropped", 10, func(h *holder) any {
		for last := h.block(); h.mem.Stats().LiveBlocks < 10; {
			next := h.block()
			put(last, next)
			last = next
		}
		return nil
	}},
	{"a cycle of blocks", 0, func(h *holder) any { a, b := h.block(), h.block(); put(a, b); put(b, a); return &b }},
	{"a cycle of blocks that was dropped", 2, func(h *holder) any { a, b := h.block(), h.block(); put(a, b); put(b, a); return nil }},
	{"itself", 1, func(h *holder) any { a := h.block(); put(a, a); return nil }},
}

// TestShapes: each way to hold a block holds it, and each way to lose it is found.
func TestShapes(t *testing.T) {
	needsDump(t)
	for _, s := range shapes {
		t.Run(s.name, func(t *testing.T) { once(t, func() string { return s.try(t) }) })
	}
}

// try plants the shape, and fails if a block is found that is held. It returns a complaint if one is not that is lost.
func (s shape) try(t *testing.T) string {
	p := heapprofile.New(heapprofile.Options{Rate: 1})
	h := &holder{t: t, mem: alloctrace.Wrap(fresh(), alloctrace.WithHooks(p)), release: make(chan struct{})}
	defer h.wait.Wait()
	defer close(h.release)
	var keep any
	apart(func() { keep = s.plant(h) })
	u := unreachable(t, p)
	runtime.KeepAlive(keep)
	globalBlock, globalAddr, globalPointer = blockalloc.Block{}, 0, nil
	globalAddrs[len(globalAddrs)-1], globalLarge[len(globalLarge)-1], globalSet[0] = 0, 0, 0
	if u.Report.Blocks > s.lost {
		t.Errorf("%d of %d blocks are unreachable, want %d", u.Report.Blocks, u.Looked, s.lost)
	}
	if u.Report.Blocks < s.lost {
		return fmt.Sprintf("%d of %d blocks are unreachable, want %d", u.Report.Blocks, u.Looked, s.lost)
	}
	return ""
}
