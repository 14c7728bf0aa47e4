package blockalloc_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// paint fills each 4 KiB of mem with a byte of its own, which depends on seed and is not zero.
func paint(mem []byte, seed int) {
	for i := 0; i < len(mem); i += 4096 {
		page := mem[i:min(len(mem), i+4096)]
		page[0] = byte(i>>12) + byte(seed) | 1
		for n := 1; n < len(page); n *= 2 {
			copy(page[n:], page[:n])
		}
	}
}

// painted returns the index of the first 4 KiB that are not as paint wrote them, or -1.
func painted(mem []byte, seed int) int {
	for i := 0; i < len(mem); i += 4096 {
		if !isAll(mem[i:min(len(mem), i+4096)], byte(i>>12)+byte(seed)|1) {
			return i
		}
	}
	return -1
}

// isAll reports whether every byte of mem is v.
func isAll(mem []byte, v byte) bool {
	return len(mem) == 0 || mem[0] == v && bytes.Equal(mem[1:], mem[:len(mem)-1])
}

// growingAlone is growing where nobody else allocates of a: the block as it was is not owned.
func growingAlone(a interface {
	blockalloc.Allocator
	blockalloc.Owner
}, b, n blockalloc.Block, size uintptr, seed int) error {
	if n.Size() != b.Size() && a.Owns(b) {
		return fmt.Errorf("%v, which has become %v, is owned as it was", b, n)
	}
	return growing(a, b, n, size, seed)
}

// growing checks one step of a block's growth, or its shrinking: the alignment, the content, which paint wrote with
// seed, and that what was added is zero. It paints that too.
func growing(a interface {
	blockalloc.Allocator
	blockalloc.Owner
}, b, n blockalloc.Block, size uintptr, seed int) error {
	kept := min(b.Size(), n.Size())
	switch {
	case n.Size() < size || n.Align() != b.Align() || n.Addr()%n.Align() != 0:
		return fmt.Errorf("%v became %v for %d bytes", b, n, size)
	case painted(n.Bytes()[:kept], seed) >= 0:
		return fmt.Errorf("what is at byte %d of %v, which was %v, has changed", painted(n.Bytes()[:kept], seed), n, b)
	case !isAll(n.Bytes()[kept:], 0):
		return fmt.Errorf("what %v has more than %v is not zero", n, b)
	case !a.Owns(n):
		return fmt.Errorf("%v, which was %v, is not owned", n, b)
	}
	paint(n.Bytes(), seed)
	return nil
}

// TestSystemGrows grows blocks of each alignment beside others, which are in the way, and shrinks them. Where a block
// can move without being copied it does so rarely: otherwise its growth would be quadratic.
func TestSystemGrows(t *testing.T) {
	if !hasSystem {
		t.Skip("System does not serve " + runtime.GOOS)
	}
	const last = 3 << 20
	for _, align := range []uintptr{1, 64, 4 << 10, 64 << 10, 2 << 20, 4 << 20} {
		t.Run(fmt.Sprint(align), func(t *testing.T) {
			var s blockalloc.System
			b, err := s.Allocate(blockalloc.Layout{Size: 100 << 10, Align: align})
			if err != nil {
				t.Fatal(err)
			}
			paint(b.Bytes(), 3)
			moves := 0
			for b.Size() < last {
				mustAllocateUntilEnd(t, &s)
				n, err := s.Reallocate(b, b.Size()+64<<10)
				if err != nil {
					t.Fatal(err)
				}
				if err := growingAlone(&s, b, n, b.Size()+64<<10, 3); err != nil {
					t.Fatal(err)
				}
				if n.Addr() != b.Addr() {
					moves++
				}
				b = n
			}
			if runtime.GOOS == "linux" && moves > 64 { // log of the size, but that others take what is free
				t.Errorf("the block moved %d times", moves)
			}
			for _, size := range []uintptr{2 << 20, 70 << 10, 4 << 20, 1} {
				n, err := s.Reallocate(b, size)
				if err != nil {
					t.Fatal(err)
				}
				if err := growingAlone(&s, b, n, size, 3); err != nil {
					t.Fatal(err)
				}
				b = n
			}
			mustFree(t, &s, b)
		})
	}
}

// mustAllocateUntilEnd allocates a block that lives until the test ends.
func mustAllocateUntilEnd(t *testing.T, s *blockalloc.System) {
	t.Helper()
	b := mustAllocate(t, s, 1, 1)
	t.Cleanup(func() { mustFree(t, s, b) })
}

// TestSystemResizesTogether resizes blocks from several goroutines, each of which may be given an address that another's
// block has just left. What is live stays what it was, and no block overlaps another.
func TestSystemResizesTogether(t *testing.T) {
	if !hasSystem {
		t.Skip("System does not serve " + runtime.GOOS)
	}
	steps := 400
	if testing.Short() {
		steps = 60
	}
	var s blockalloc.System
	reserved := &blockalloc.Reserved{Max: 4 << 20}
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(5, uint64(worker)))
			for _, a := range []interface {
				blockalloc.Allocator
				blockalloc.Owner
			}{&s, reserved} {
				b := mustAllocate(t, a, 64<<10, 4096)
				paint(b.Bytes(), worker)
				for range steps {
					size := 1 + uintptr(rnd.UintN(1<<20))
					resize := a.Reallocate
					if rnd.IntN(2) == 0 {
						resize = a.(blockalloc.Resizer).Resize
					}
					n, err := resize(b, size)
					if errors.Is(err, blockalloc.ErrWouldMove) && n == b {
						continue
					}
					if err == nil {
						err = growing(a, b, n, size, worker)
					}
					if err != nil {
						t.Error(err)
						return
					}
					b = n
				}
				mustFree(t, a, b)
			}
		})
	}
	wg.Wait()
	if len(s.Mappings()) != 0 || len(reserved.Mappings()) != 0 {
		t.Errorf("left: %v and %v", s.Mappings(), reserved.Mappings())
	}
}
