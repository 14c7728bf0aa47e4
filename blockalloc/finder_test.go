package blockalloc_test

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// TestFindStorm: while others allocate and free, those who have a block find it by all its bytes, as it was granted last; and by
// addresses that come from others they find what holds the address, or nothing.
func TestFindStorm(t *testing.T) {
	steps := 20_000
	if testing.Short() {
		steps = 2_000
	}
	pool := new(blockalloc.Pool)
	defer pool.Close()
	slab, err := blockalloc.NewSlab(pool, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	defer slab.Close()
	for name, a := range map[string]interface {
		blockalloc.Allocator
		blockalloc.Finder
	}{
		"Pool": pool, "Slab": slab, "Heap": new(blockalloc.Heap), "Limit": blockalloc.NewLimit(slab, 1<<40),
		"Segregate": blockalloc.NewSegregate(slab, pool, 1<<10), "Locked": blockalloc.NewLocked(new(blockalloc.Heap)),
	} {
		t.Run(name, func(t *testing.T) {
			var posted [64]atomic.Uintptr // addresses of blocks that may be freed
			var wg sync.WaitGroup
			for g := range 4 {
				wg.Go(func() {
					random := rand.New(rand.NewPCG(uint64(g), 16))
					var held []blockalloc.Block
					for range steps {
						switch n := len(held); {
						case n < 16 && random.IntN(2) == 0:
							l := blockalloc.Layout{Size: 1 + uintptr(random.IntN(1<<random.IntN(15))), Align: 1 << random.IntN(10)}
							b, err := a.Allocate(l)
							if err != nil {
								t.Error(err)
								return
							}
							if b.Requested() != l.Size || b.Align() != l.Align {
								t.Errorf("Allocate(%v) = %v, of a request for %d", l, b, b.Requested())
							}
							held = append(held, b)
							posted[random.IntN(len(posted))].Store(b.Addr() + uintptr(random.IntN(int(b.Size()))))
						case n > 0 && random.IntN(3) == 0:
							i := random.IntN(n)
							b := held[i]
							held[i] = held[n-1]
							held = held[:n-1]
							if random.IntN(2) == 0 {
								b, _ = blockalloc.FromRaw(b.IntoRaw())
							}
							if err := a.Free(b); err != nil {
								t.Error(err)
								return
							}
						}
						for _, b := range held {
							p := unsafe.Add(b.Pointer(), random.IntN(int(b.Size())))
							if got, ok := a.Find(p); !ok || got != b {
								t.Errorf("Find(%#x) = %v, %v, want %v", uintptr(p), got, ok, b)
								return
							}
						}
						if name == "Heap" || name == "Locked" {
							continue // the garbage collector ends a process that has pointers to memory that it has freed
						}
						addr := posted[random.IntN(len(posted))].Load()
						if got, ok := a.Find(*(*unsafe.Pointer)(unsafe.Pointer(&addr))); ok && addr-got.Addr() >= got.Size() {
							t.Errorf("Find(%#x) = %v", addr, got)
							return
						}
					}
					for _, b := range held {
						if err := a.Free(b); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// TestSlabRequests: slots of one block tell their requests apart, whether all are alike or none is.
func TestSlabRequests(t *testing.T) {
	for _, sizes := range [][]uintptr{{40, 40, 40}, {48, 33, 48, 40, 41, 33}, {1000, 1024, 900, 1000}, {7000, 8192, 7001, 7169}} {
		s, err := blockalloc.NewSlab(new(blockalloc.Heap), 64<<10)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 { // the slots serve other requests than before
			var blocks []blockalloc.Block
			for i, size := range sizes {
				b, err := s.Allocate(blockalloc.Layout{Size: size, Align: 1 << (i % 4)})
				if err != nil {
					t.Fatal(err)
				}
				blocks = append(blocks, b)
			}
			for i, b := range blocks {
				got, ok := s.Find(unsafe.Add(b.Pointer(), b.Size()-1))
				if !ok || got != b || got.Requested() != sizes[i] || got.Align() != 1<<(i%4) {
					t.Errorf("sizes %d, slot %d: %v of a request for %d, want %v of %d", sizes, i, got, got.Requested(), b, sizes[i])
				}
			}
			n, err := s.Reallocate(blocks[0], blocks[0].Size())
			if got, ok := s.Find(n.Pointer()); err != nil || !ok || got != n || got.Requested() != n.Size() {
				t.Errorf("after Reallocate to %d: %v of a request for %d, %v, %v", n.Size(), got, got.Requested(), ok, err)
			}
			blocks[0] = n
			for i := range blocks { // in another order
				if err := s.Free(blocks[(i+1)%len(blocks)]); err != nil {
					t.Error(err)
				}
			}
			sizes = append(sizes[1:], sizes[0])
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
