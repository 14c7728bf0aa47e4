package arrowmem_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/arrowmem"
)

// TestGoroutines: each goroutine frees what the one before it has allocated, and sees what that has written.
func TestGoroutines(t *testing.T) {
	const goroutines, rounds = 4, 300
	eachAllocator(t, func(t *testing.T, mem blockalloc.Allocator) {
		a := arrowmem.New(mem)
		var all sync.WaitGroup
		var next [goroutines]chan []byte
		for i := range next {
			next[i] = make(chan []byte, rounds)
		}
		for i := range next {
			all.Go(func() {
				for n := range rounds {
					b := a.Allocate(1 + n*7)
					b[0] = byte(i)
					next[i] <- a.Reallocate(2*len(b), b)
				}
				close(next[i])
				from := (i + 1) % goroutines
				for b := range next[from] {
					if b[0] != byte(from) {
						t.Errorf("a buffer of goroutine %d has what goroutine %d wrote", from, b[0])
					}
					a.Free(b)
				}
			})
		}
		all.Wait()
		a.AssertSize(t, 0)
	})
}

// TestFreesAtOnce: of two frees of one buffer at once, one is refused.
func TestFreesAtOnce(t *testing.T) {
	for name, mem := range map[string]blockalloc.Allocator{"Default": blockalloc.Default(), "Heap": new(blockalloc.Heap)} {
		t.Run(name, func(t *testing.T) {
			a := arrowmem.New(mem)
			for range 200 {
				b := a.Allocate(1000)
				var refused atomic.Int32
				var both sync.WaitGroup
				for range 2 {
					both.Go(func() {
						defer func() {
							if r := recover(); r != nil {
								refused.Add(1)
								if err, _ := r.(error); !errors.Is(err, blockalloc.ErrDoubleFree) {
									t.Errorf("panic %v", r)
								}
							}
						}()
						a.Free(b)
					})
				}
				both.Wait()
				if n := refused.Load(); n != 1 {
					t.Fatalf("%d frees were refused, want 1", n)
				}
			}
			a.AssertSize(t, 0)
		})
	}
}
