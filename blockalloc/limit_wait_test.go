package blockalloc_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
)

// ofSize is a layout of so many bytes.
func ofSize(n uintptr) blockalloc.Layout { return blockalloc.Layout{Size: n, Align: 1} }

// A request is a call of AllocateContext in a goroutine of its own.
type request struct {
	block  blockalloc.Block
	err    error
	ended  bool
	cancel context.CancelCauseFunc
}

// ask starts a request, in a synctest bubble.
func ask(t *testing.T, a blockalloc.Allocator, size uintptr) *request {
	ctx, cancel := context.WithCancelCause(t.Context())
	r := &request{cancel: cancel}
	go func() {
		r.block, r.err = blockalloc.AllocateContext(ctx, a, ofSize(size))
		r.ended = true
	}()
	synctest.Wait()
	return r
}

// waits checks that requests are not over.
func waits(t *testing.T, requests ...*request) {
	t.Helper()
	synctest.Wait()
	for i, r := range requests {
		if r.ended {
			t.Fatalf("request %d does not wait: %v, %v", i, r.block, r.err)
		}
	}
}

// granted checks that a request got its block, and returns it.
func granted(t *testing.T, r *request) blockalloc.Block {
	t.Helper()
	synctest.Wait()
	if !r.ended || r.err != nil {
		t.Fatalf("a request that should be granted: ended %v, %v", r.ended, r.err)
	}
	r.cancel(nil)
	return r.block
}

var errTired = errors.New("tired")

// TestLimitWaits: requests wait for what is freed, and are granted in the order in which
// they came, whatever their sizes.
func TestLimitWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := blockalloc.NewLimit(new(blockalloc.Heap), 100)
		first := granted(t, ask(t, l, 60))
		second := granted(t, ask(t, l, 40))
		large, small := ask(t, l, 70), ask(t, l, 10)
		waits(t, large, small)
		if l.Waiting() != 2 {
			t.Errorf("%d wait", l.Waiting())
		}
		mustFree(t, l, first) // 60 are not enough for the first, and are kept for it
		waits(t, large, small)
		if _, err := l.Allocate(ofSize(1)); !errors.Is(err, blockalloc.ErrLimit) {
			t.Errorf("a request that does not wait: %v", err)
		}
		if used := l.Used(); used != 100 {
			t.Errorf("%d bytes are used or reserved", used)
		}
		mustFree(t, l, second)
		mustFree(t, l, granted(t, large))
		mustFree(t, l, granted(t, small))
		if l.Used() != 0 || l.Waiting() != 0 {
			t.Errorf("%d bytes used, %d wait", l.Used(), l.Waiting())
		}
	})
}

// TestLimitWaitEnds: what was reserved for a request that gives up goes to those behind
// it.
func TestLimitWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := blockalloc.NewLimit(new(blockalloc.Heap), 100)
		held, other := granted(t, ask(t, l, 60)), granted(t, ask(t, l, 40))
		large, small := ask(t, l, 90), ask(t, l, 30)
		mustFree(t, l, held)
		waits(t, large, small)
		large.cancel(errTired)
		mustFree(t, l, granted(t, small))
		if err := large.err; !errors.Is(err, errTired) || !errors.Is(err, blockalloc.ErrLimit) || !errors.Is(err, blockalloc.ErrOutOfMemory) ||
			!strings.Contains(fmt.Sprint(err), "90 B requested, 40 B used, limit 100 B") {
			t.Errorf("a request that gave up: %v", err)
		}
		mustFree(t, l, other)

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		all := mustAllocate(t, l, 100, 1)
		if _, err := l.AllocateContext(ctx, ofSize(1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("at its deadline: %v", err)
		}
		mustFree(t, l, all)
		b, err := l.AllocateContext(ctx, ofSize(1)) // nobody has to wait
		if err != nil {
			t.Error(err)
		}
		mustFree(t, l, b)
		if l.Used() != 0 || l.Waiting() != 0 {
			t.Errorf("%d bytes used, %d wait", l.Used(), l.Waiting())
		}
	})
}

// TestLimitWaitBound: a bound that is raised grants, one that is lowered refuses what can
// never fit, also in the middle of the queue.
func TestLimitWaitBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := blockalloc.NewLimit(new(blockalloc.Heap), 100)
		if r := ask(t, l, 101); !errors.Is(r.err, blockalloc.ErrLimit) {
			t.Errorf("more than the bound: %v", r.err)
		}
		held := granted(t, ask(t, l, 100))
		first, middle, last := ask(t, l, 20), ask(t, l, 90), ask(t, l, 10)
		waits(t, first, middle, last)
		l.SetMax(80)
		waits(t, first, last)
		if !errors.Is(middle.err, blockalloc.ErrLimit) {
			t.Errorf("more than the new bound: %v", middle.err)
		}
		l.SetMax(125)
		mustFree(t, l, granted(t, first))
		mustFree(t, l, granted(t, last))
		partly := ask(t, l, 50)
		waits(t, partly)
		l.SetMax(40) // 25 were reserved for it
		synctest.Wait()
		if !errors.Is(partly.err, blockalloc.ErrLimit) || l.Used() != 100 {
			t.Errorf("%v, %d bytes used", partly.err, l.Used())
		}
		mustFree(t, l, held)
		if l.Used() != 0 {
			t.Errorf("%d bytes used", l.Used())
		}
	})
}

// TestLimitBudgets: two consumers with budgets of their own share a bound. The one that
// wants more than its budget waits for itself, and not the other.
func TestLimitBudgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := blockalloc.NewLimit(new(blockalloc.Heap), 100)
		greedy, modest := blockalloc.NewLimit(all, 60), alloctest.New(t, alloctest.WithAllocator(blockalloc.NewLimit(all, 60)))
		held := granted(t, ask(t, greedy, 60))
		more := ask(t, greedy, 30)
		waits(t, more)
		mine := granted(t, ask(t, modest, 40))
		next := ask(t, modest, 10) // within its budget, but all is used
		waits(t, more, next)
		mustFree(t, greedy, held)
		last := granted(t, more)
		mustFree(t, modest, granted(t, next))
		mustFree(t, modest, mine)
		mustFree(t, greedy, last)
		if all.Used() != 0 || greedy.Used() != 0 {
			t.Errorf("%d and %d bytes used", all.Used(), greedy.Used())
		}
		if s := modest.Stats(); s.Allocations != 2 || s.Failures() != 0 {
			t.Errorf("a Proxy counts %v", s)
		}
	})
}

// generous grants so much more than is asked for.
type generous struct {
	blockalloc.Allocator
	more uintptr
}

func (g *generous) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	return g.Allocator.Allocate(ofSize(l.Size + g.more))
}

func (g *generous) Owns(b blockalloc.Block) bool { return g.Allocator.(blockalloc.Owner).Owns(b) }

// TestLimitWaitSlack: a request waits for what the inner allocator adds to it, too.
func TestLimitWaitSlack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &generous{new(blockalloc.Heap), 20}
		l := blockalloc.NewLimit(inner, 100)
		held := granted(t, ask(t, l, 30))
		r := ask(t, l, 40) // 50 are left
		waits(t, r)
		if l.Used() != 100 {
			t.Errorf("%d bytes are used or reserved, want all", l.Used())
		}
		mustFree(t, l, held)
		if b := granted(t, r); b.Size() != 60 || l.Used() != 60 {
			t.Errorf("%v, %d bytes used", b, l.Used())
		} else {
			mustFree(t, l, b)
		}
		held, r = granted(t, ask(t, l, 30)), ask(t, l, 40)
		waits(t, r)
		inner.more = 0 // what it waits for is no longer added
		mustFree(t, l, held)
		if b := granted(t, r); b.Size() != 40 || l.Used() != 40 {
			t.Errorf("%v, %d bytes used", b, l.Used())
		} else {
			mustFree(t, l, b)
		}
		inner.more = 20
		if r := ask(t, l, 90); !errors.Is(r.err, blockalloc.ErrLimit) || l.Used() != 0 {
			t.Errorf("more than the bound with what is added: %v, %d bytes used", r.err, l.Used())
		}
		if b, err := l.AllocateContext(t.Context(), ofSize(0)); err != nil || !b.IsZero() {
			t.Errorf("of no size: %v, %v", b, err)
		}
		if _, err := l.AllocateContext(t.Context(), blockalloc.Layout{Size: 1, Align: 3}); !errors.Is(err, blockalloc.ErrBadLayout) {
			t.Error(err)
		}
	})
	failing := blockalloc.NewLimit(failing.After(new(blockalloc.Heap), 0), 100)
	if _, err := failing.AllocateContext(t.Context(), ofSize(1)); !errors.Is(err, blockalloc.ErrOutOfMemory) || failing.Used() != 0 {
		t.Errorf("an inner allocator that fails: %v, %d bytes used", err, failing.Used())
	}
}

// TestLimitWaitStorm: goroutines wait, give up, free and change the bound. The bound
// holds, all get memory in the end, and none is lost.
func TestLimitWaitStorm(t *testing.T) {
	inner := &meter{Allocator: new(blockalloc.Heap)}
	const bound = 1000
	l := blockalloc.NewLimit(inner, bound)
	var work sync.WaitGroup
	for g := range 8 {
		work.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 7))
			for n := range 300 {
				size := 1 + uintptr(rnd.IntN(bound*3/4))
				var b blockalloc.Block
				var err error
				switch {
				case g == 0: // without waiting
					if b, err = l.Allocate(ofSize(size)); err != nil {
						runtime.Gosched()
						continue
					}
				case n%10 == 0: // gives up at once, or nearly
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rnd.IntN(50))*time.Microsecond)
					b, err = l.AllocateContext(ctx, ofSize(size))
					cancel()
					if errors.Is(err, context.DeadlineExceeded) {
						continue
					}
				case g == 1 && n%20 == 1:
					l.SetMax(bound / 2)
					runtime.Gosched()
					l.SetMax(bound)
					continue
				default:
					b, err = l.AllocateContext(t.Context(), ofSize(size))
				}
				if size > bound/2 && errors.Is(err, blockalloc.ErrLimit) { // while that was the bound
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				b.Bytes()[size-1]++
				if rnd.IntN(4) == 0 {
					runtime.Gosched()
				}
				if err := l.Free(b); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	work.Wait()
	if l.Used() != 0 || l.Waiting() != 0 || inner.live.Load() != 0 {
		t.Errorf("%d bytes used, %d live, %d wait", l.Used(), inner.live.Load(), l.Waiting())
	}
	if peak := inner.peak.Load(); peak > bound {
		t.Errorf("%d bytes were live, more than the bound of %d", peak, bound)
	}
}

// TestLimitWaitIsFair: a large request is granted while others allocate and free small
// blocks all the time, without waiting.
func TestLimitWaitIsFair(t *testing.T) {
	l := blockalloc.NewLimit(new(blockalloc.Heap), 100)
	stop := make(chan struct{})
	var work sync.WaitGroup
	for range 2 {
		work.Go(func() {
			var held []blockalloc.Block
			for {
				select {
				case <-stop:
					for _, b := range held {
						mustFree(t, l, b)
					}
					return
				default:
				}
				if b, err := l.Allocate(ofSize(10)); err == nil {
					held = append(held, b)
				}
				if len(held) > 5 {
					mustFree(t, l, held[0])
					held = held[1:]
				}
				runtime.Gosched()
				if len(held) > 0 && l.Waiting() > 0 { // as a program must, to go on
					mustFree(t, l, held[0])
					held = held[1:]
				}
			}
		})
	}
	for range 100 {
		b, err := l.AllocateContext(t.Context(), ofSize(90))
		if err != nil {
			t.Error(err)
			break
		}
		mustFree(t, l, b)
	}
	close(stop)
	work.Wait()
}
