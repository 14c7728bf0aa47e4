package debug_test

import (
	"errors"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
)

// TestSlack: a write behind what was asked for is found, also where the parent would have granted it, after a free as after a
// reallocation, and whether memory is handed out for the first time or again.
func TestSlack(t *testing.T) {
	made := func(a blockalloc.Allocator, err error) blockalloc.Allocator {
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	pool := new(blockalloc.Pool)
	slab, err := blockalloc.NewSlab(pool, 1<<16)
	bump, bumpErr := blockalloc.NewBump(newRoot(), 1<<16)
	fixed, fixedErr := blockalloc.NewFixed(make([]byte, 1<<16))
	parents := map[string]blockalloc.Allocator{
		"Pool":      pool,
		"Slab":      made(slab, err),
		"Bump":      made(bump, bumpErr),
		"Fixed":     made(fixed, fixedErr),
		"System":    new(blockalloc.System),
		"Reserved":  &blockalloc.Reserved{Max: 1 << 20},
		"Heap":      new(blockalloc.Heap),
		"FreeList":  newFreeList(t, newRoot(), blockalloc.Layout{Size: 1 << 12, Align: 16}, 100),
		"Limit":     blockalloc.NewLimit(pool, 1<<20),
		"Locked":    blockalloc.NewLocked(new(blockalloc.Heap)),
		"Fallback":  blockalloc.NewFallback(blockalloc.Null{}, pool),
		"Segregate": blockalloc.NewSegregate(slab, pool, 1<<10),
	}
	for name, parent := range parents {
		d := newAllocator(t, parent, debug.Options{Quarantine: -1})
		for _, size := range []uintptr{1, 100, 1000, 3000} {
			for range 3 {
				b, err := d.Allocate(blockalloc.Layout{Size: size, Align: 8})
				if errors.Is(err, errors.ErrUnsupported) {
					continue
				}
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				behind := unsafe.Slice((*byte)(b.Pointer()), size+1)
				clear(b.Bytes())
				was := behind[size]
				behind[size] ^= 0xff
				if _, err := d.Reallocate(b, size+50); !errors.Is(err, blockalloc.ErrOverrun) {
					t.Errorf("%s: Reallocate of %d bytes and one more that was written: %v", name, size, err)
				}
				if behind[size] != was {
					t.Errorf("%s: what a report is about is not mended", name)
				}
				behind[size] ^= 0xff
				if err := d.Free(b); !errors.Is(err, blockalloc.ErrOverrun) {
					t.Errorf("%s: Free of %d bytes and one more that was written: %v", name, size, err)
				}
				if err := d.Free(b); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
}
