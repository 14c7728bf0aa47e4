package alloctrace_test

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// reusing is an allocator that gives the address freed last to the next
// allocation, and that calls released after it has made an address free again and
// before it returns to whoever freed it: the moment in which another goroutine
// can be given that address.
type reusing struct {
	blockalloc.Heap
	mu       sync.Mutex
	free     []blockalloc.Block
	released func()
}

func (r *reusing) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	r.mu.Lock()
	if last := len(r.free) - 1; last >= 0 {
		b := r.free[last]
		r.free = r.free[:last]
		r.mu.Unlock()
		return b, nil
	}
	r.mu.Unlock()
	return r.Heap.Allocate(l)
}

func (r *reusing) Free(b blockalloc.Block) error {
	r.release(b)
	return nil
}

func (r *reusing) Reallocate(b blockalloc.Block, _ uintptr) (blockalloc.Block, error) {
	n, err := r.Allocate(b.Layout())
	if err != nil {
		return b, err
	}
	r.release(b)
	return n, nil
}

func (r *reusing) release(b blockalloc.Block) {
	r.mu.Lock()
	r.free = append(r.free, b)
	r.mu.Unlock()
	r.released()
}

// TestAddressRule forces the reuse race: while a Free or a Reallocate is between
// making the address free and returning, another goroutine is given that address
// and the hook observes that. The hook must by then know of the release.
func TestAddressRule(t *testing.T) {
	operations := map[string]func(p *alloctrace.Proxy, b blockalloc.Block) (blockalloc.Block, error){
		"Free": func(p *alloctrace.Proxy, b blockalloc.Block) (blockalloc.Block, error) { return b, p.Free(b) },
		"Reallocate": func(p *alloctrace.Proxy, b blockalloc.Block) (blockalloc.Block, error) {
			return p.Reallocate(b, b.Size())
		},
	}
	for name, operation := range operations {
		t.Run(name, func(t *testing.T) {
			inner := &reusing{}
			observer := newLedger(t)
			p := alloctrace.Wrap(inner, alloctrace.WithHooks(observer))
			b := allocate(t, p, page)
			var reused blockalloc.Block
			inner.released = func() {
				inner.released = func() {}
				done := make(chan struct{})
				go func() {
					defer close(done)
					reused, _ = p.Allocate(page)
				}()
				<-done
			}
			if _, err := operation(p, b); err != nil {
				t.Fatal(err)
			}
			if reused != b {
				t.Fatalf("the other goroutine was given %v, want %v: the race was not forced", reused, b)
			}
			if observer.live[b.Addr()] != b.Size() {
				t.Error("the hook believes that the block in use is free")
			}
		})
	}
}

// TestAddressRuleStorm does the same by chance, many times.
func TestAddressRuleStorm(t *testing.T) {
	const workers, steps = 8, 5_000
	inner := &reusing{released: runtime.Gosched}
	observer := newLedger(t)
	p := alloctrace.Wrap(inner, alloctrace.WithHooks(observer))
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(3, uint64(w)))
			var held []blockalloc.Block
			for range steps {
				switch last := len(held) - 1; {
				case last >= 0 && rnd.IntN(4) == 0:
					held[last], _ = p.Reallocate(held[last], page.Size)
				case last >= 0 && (last > 3 || rnd.IntN(2) == 0):
					_ = p.Free(held[last])
					held = held[:last]
				default:
					b, _ := p.Allocate(page)
					held = append(held, b)
				}
			}
			for _, b := range held {
				_ = p.Free(b)
			}
		})
	}
	wg.Wait()
	observer.empty()
	if s := p.Stats(); s.LiveBytes != 0 || s.LiveBlocks != 0 || s.AllocatedBytes != s.FreedBytes {
		t.Errorf("at rest: %v", s)
	}
}
