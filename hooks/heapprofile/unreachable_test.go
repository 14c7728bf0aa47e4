package heapprofile_test

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/backstop"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/blockalloc/guard"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/hooks/ring"
)

// needsDump skips a test where Go writes no dump.
func needsDump(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		t.Skip("Go writes no heap dump on wasm: the platform has none")
	}
}

// TestUnsupported: where Go writes no dump, the error says so.
func TestUnsupported(t *testing.T) {
	_, err := heapprofile.New(heapprofile.Options{Rate: 1}).Unreachable(t.Context())
	if want := runtime.GOOS == "js" || runtime.GOOS == "wasip1"; errors.Is(err, errors.ErrUnsupported) != want {
		t.Error(err)
	}
}

// unreachable returns what p finds.
func unreachable(t *testing.T, p *heapprofile.Profile) heapprofile.Unreachable {
	t.Helper()
	u, err := p.Unreachable(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func allocate(mem blockalloc.Allocator, size uintptr) blockalloc.Block {
	return must(mem.Allocate(blockalloc.Layout{Size: size, Align: 64}))
}

// fresh returns an allocator whose blocks are where nothing was before, so that no address of them is left anywhere.
func fresh() blockalloc.Allocator {
	if bits.UintSize == 32 {
		return new(blockalloc.System)
	}
	return &blockalloc.Reserved{Max: 64 << 20}
}

func must[A any](a A, err error) A {
	if err != nil {
		panic(err)
	}
	return a
}

// apart runs f in a goroutine of its own, so that what it leaves on its stack is gone.
func apart(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

// once calls try, which plants anew, until it has found all that it should, five times at most: an address that is left anywhere can hide a
// block. It fails the test with the last complaint if it never has.
func once(t *testing.T, try func() (complaint string)) {
	t.Helper()
	var complaint string
	for range 5 {
		if complaint = try(); complaint == "" {
			return
		}
	}
	t.Error(complaint)
}

// TestTables: what allocators and hooks know of a block does not hold it.
func TestTables(t *testing.T) {
	needsDump(t)
	const blocks = 20
	for name, make := range map[string]func() (mem blockalloc.Allocator, size uintptr){
		"System": func() (blockalloc.Allocator, uintptr) { return new(blockalloc.System), 4 << 10 },
		"Heap":   func() (blockalloc.Allocator, uintptr) { return new(blockalloc.Heap), 4 << 10 },
		"Pool":   func() (blockalloc.Allocator, uintptr) { return new(blockalloc.Pool), 1 << 20 }, // few in a run
		"large":  func() (blockalloc.Allocator, uintptr) { return new(blockalloc.Pool), 5 << 20 },
		"Slab": func() (blockalloc.Allocator, uintptr) {
			return must(blockalloc.NewSlab(new(blockalloc.System), 64<<10)), 8 << 10
		},
		"Reserved": func() (blockalloc.Allocator, uintptr) { return &blockalloc.Reserved{Max: 1 << 20}, 4 << 10 },
		"Debug":    func() (blockalloc.Allocator, uintptr) { return debug.New(new(blockalloc.Heap), debug.Options{}), 64 },
		"guarded": func() (blockalloc.Allocator, uintptr) {
			return debug.New(new(blockalloc.Heap), debug.Options{Guard: true}), 4 << 10
		},
		"sampled guards": func() (blockalloc.Allocator, uintptr) {
			return guard.New(new(blockalloc.Heap), guard.Options{Rate: 1}), 4 << 10
		},
	} {
		t.Run(name, func(t *testing.T) {
			inner, size := make()
			p := heapprofile.New(heapprofile.Options{Rate: 1, Peak: true, Lifetimes: true})
			mem := alloctrace.Wrap(inner, alloctrace.WithHooks(p, ring.New(100, ring.PreciseClock())))
			apart(func() {
				for range blocks {
					allocate(mem, size)
				}
			})
			many := int64(10) // an address that is left anywhere can hide some
			if bits.UintSize == 32 && size >= 1<<20 {
				many = 0 // any text can be an address in one
			}
			u := unreachable(t, p)
			if u.Looked != blocks || u.Report.Blocks < many {
				t.Errorf("of %d blocks, all of which were dropped, %d are unreachable", u.Looked, u.Report.Blocks)
			}
			runtime.KeepAlive(mem)
		})
	}
}

// TestEndedGoroutines: blocks that are where the stacks of goroutines were are not held by what the runtime still knows of these.
func TestEndedGoroutines(t *testing.T) {
	needsDump(t)
	const goroutines, blocks = 2000, 1000
	var all sync.WaitGroup
	end := make(chan struct{})
	for range goroutines {
		all.Go(func() {
			wipe() // so that its stack is larger than others are at first
			<-end
		})
	}
	close(end)
	all.Wait()
	runtime.GC() // gives back their stacks
	runtime.GC()
	inner := new(blockalloc.Heap)
	p := heapprofile.New(heapprofile.Options{Rate: 1})
	mem := alloctrace.Wrap(inner, alloctrace.WithHooks(p))
	apart(func() {
		for range blocks {
			allocate(mem, 4<<10)
		}
	})
	many := int64(blocks * 98 / 100) // other stale addresses hide some
	if bits.UintSize == 32 {
		many = blocks * 9 / 10 // and text does
	}
	if u := unreachable(t, p); u.Looked != blocks || u.Report.Blocks < many {
		t.Errorf("of %d blocks, all of which were dropped, %d are unreachable", u.Looked, u.Report.Blocks)
	}
	runtime.KeepAlive(mem)
}

// wipe takes 8 KiB of the stack.
//
//go:noinline
func wipe() {
	var area [8 << 10]byte
	runtime.KeepAlive(&area)
}

// TestParents: what an allocator takes from its parent it holds, also if nothing of that is live.
func TestParents(t *testing.T) {
	needsDump(t)
	p := heapprofile.New(heapprofile.Options{Rate: 1})
	mem := alloctrace.Wrap(fresh(), alloctrace.WithHooks(p))
	slab := must(blockalloc.NewSlab(mem, 64<<10))
	bump := must(blockalloc.NewBump(mem, 64<<10))
	checked := debug.New(mem, debug.Options{})
	guarded := backstop.New(mem, backstop.Options{})
	var handle *[]byte
	apart(func() {
		allocate(slab, 64)
		allocate(bump, 64)
		allocate(checked, 64)
		handle = must(guarded.Allocate(blockalloc.Layout{Size: 64, Align: 64}))
	})
	u := unreachable(t, p)
	if u.Looked != 4 || u.Report.Blocks != 0 {
		t.Errorf("of %d blocks of a parent %v", u.Looked, u)
	}
	runtime.KeepAlive([]any{slab, bump, checked, handle, guarded})
}

// TestNested: of two Proxies, one of which takes memory from the other, the block of the outer one can be unreachable in one of the inner
// one's that is held.
func TestNested(t *testing.T) {
	needsDump(t)
	once(t, func() string {
		p := heapprofile.New(heapprofile.Options{Rate: 1})
		mem := alloctrace.Wrap(new(blockalloc.System), alloctrace.WithHooks(p))
		slab := must(blockalloc.NewSlab(mem, 64<<10))
		outer := alloctrace.Wrap(slab, alloctrace.WithHooks(p))
		var kept blockalloc.Block
		apart(func() {
			a, b := allocate(outer, 1024), allocate(outer, 1024) // a cycle, in a block that is held
			put(a, b)
			put(b, a)
			kept = allocate(outer, 1024)
			put(kept, allocate(outer, 1024))
		})
		u := unreachable(t, p)
		runtime.KeepAlive([]any{kept, outer})
		if u.Looked < 5 || u.Report.Blocks > 2 {
			t.Errorf("of %d blocks %v", u.Looked, u)
		}
		if u.Report.Bytes != 2048 {
			return fmt.Sprintf("of %d blocks %v", u.Looked, u)
		}
		return ""
	})
}

// TestUnreachableText: the text names who allocated, and a Profile that has found nothing says so.
func TestUnreachableText(t *testing.T) {
	needsDump(t)
	once(t, func() string {
		p := heapprofile.New(heapprofile.Options{Rate: 1})
		mem := alloctrace.Wrap(fresh(), alloctrace.WithHooks(p))
		if u := unreachable(t, p); u.String() != "nothing is unreachable from Go\n" {
			t.Errorf("%q", u.String())
		}
		apart(func() { forget(mem) })
		u := unreachable(t, p)
		if u.Pause <= 0 {
			t.Errorf("the program was stopped for %v", u.Pause)
		}
		if err := mem.Close(); err == nil {
			t.Error("the block is not live")
		}
		size := counted(u.Report.Bytes)
		if text := u.String(); !strings.HasPrefix(text, size+" in 1 block is unreachable from Go:\n  "+size+" in 1 block of "+size+": heapprofile_test.forget (unreachable_test.go:") {
			return text
		}
		return ""
	})
}

func counted(bytes int64) string { return fmt.Sprintf("%d KiB", bytes>>10) }

//go:noinline
func forget(mem blockalloc.Allocator) { must(mem.Allocate(blockalloc.BlockLayout(4096))) }

// TestUnreachableEnds: a search whose context has ended is an error that says so.
func TestUnreachableEnds(t *testing.T) {
	needsDump(t)
	p := heapprofile.New(heapprofile.Options{Rate: 1})
	unreachable(t, p)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	if u, err := p.Unreachable(ctx); !errors.Is(err, cause) || u.Looked != 0 {
		t.Errorf("%+v, %v", u, err)
	}
}

// holds waits with a block on its stack, and nowhere else.
//
//go:noinline
func holds(mem blockalloc.Allocator, ready chan<- struct{}, release <-chan struct{}) {
	b := must(mem.Allocate(blockalloc.BlockLayout(4096)))
	ready <- struct{}{}
	<-release
	b.Bytes()[0]++
}

// TestHeld: what only a waiting goroutine holds is named by where that waits and was started, with what that block leads to.
func TestHeld(t *testing.T) {
	needsDump(t)
	p := heapprofile.New(heapprofile.Options{Rate: 1})
	mem := alloctrace.Wrap(fresh(), alloctrace.WithHooks(p))
	ready, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	go holds(mem, ready, release)
	<-ready
	u := unreachable(t, p)
	for len(u.Held) == 0 || u.Held[0].Reason != "chan receive" { // it has sent, but does not wait yet
		u = unreachable(t, p)
	}
	held := u.Held[0]
	if len(u.Held) != 1 || u.Report.Blocks != 0 || held.Report.Blocks != 1 || held.Goroutine == 0 ||
		len(held.Stack) == 0 || !strings.HasSuffix(held.Stack[0].Function, ".holds") || len(held.Started) == 0 || !strings.HasSuffix(held.Started[0].Function, ".TestHeld") {
		t.Errorf("%+v", u)
	}
	text := u.String()
	for _, part := range []string{"nothing is unreachable from Go\n", " in 1 block is held only by goroutine ", ", which waits (chan receive", ") in heapprofile_test.holds (unreachable_test.go:", ", started by heapprofile_test.TestHeld (unreachable_test.go:", "heapprofile_test.holds (unreachable_test.go:"} {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in\n%s", part, text)
		}
	}
}

// An object is one of a list on the Go heap.
type object[A any] struct {
	next *object[A]
	_    A
}

// list returns a list that takes size bytes.
func list[A any](size uintptr) (first *object[A]) {
	for n := size / unsafe.Sizeof(*first); n > 0; n-- {
		first = &object[A]{next: first}
	}
	return first
}

// BenchmarkUnreachable measures a search, for which the program is stopped once: no block is unreachable. The Go heap is 256 MiB of objects that
// are large, or small.
func BenchmarkUnreachable(b *testing.B) {
	const size = 256 << 20
	for name, make := range map[string]func() any{
		"objects=64B":  func() any { return list[[56]byte](size) },
		"objects=1MiB": func() any { return list[[1<<20 - unsafe.Sizeof(uintptr(0))]byte](size) },
	} {
		b.Run(name, func(b *testing.B) {
			p := heapprofile.New(heapprofile.Options{Rate: 1})
			mem := alloctrace.Wrap(new(blockalloc.Pool), alloctrace.WithHooks(p))
			held, block := make(), must(mem.Allocate(blockalloc.BlockLayout(4<<10)))
			var pause time.Duration
			for b.Loop() {
				u := must(p.Unreachable(b.Context()))
				if u.Looked != 1 || u.Report.Bytes != 0 {
					b.Fatalf("%+v, want that the block was looked for and found", u)
				}
				pause += u.Pause
			}
			b.ReportMetric(float64(pause.Milliseconds())/float64(b.N), "stopped-ms/op")
			runtime.KeepAlive(held)
			if err := mem.Free(block); err != nil {
				b.Fatal(err)
			}
		})
	}
}
