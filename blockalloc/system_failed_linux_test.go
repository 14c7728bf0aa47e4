//go:build !race

package blockalloc_test

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// TestSystemFailedGrowth: growth that fails leaves the block as it was, and no address space reserved.
func TestSystemFailedGrowth(t *testing.T) {
	t.Run("RLIMIT_AS", func(t *testing.T) {
		if ownProcess(t) {
			failedGrowth(t, unix.RLIMIT_AS, measure.Virtual)
		}
	})
	t.Run("RLIMIT_DATA", func(t *testing.T) {
		if ownProcess(t) {
			failedGrowth(t, unix.RLIMIT_DATA, func(t *testing.T) int64 { return status(t, "VmData") })
		}
	})
}

func failedGrowth(t *testing.T, which int, now func(*testing.T) int64) {
	var s blockalloc.System
	blocks := []blockalloc.Block{mustAllocate(t, &s, 1<<20, 4096), mustAllocate(t, &s, 1<<20, 2<<20)}
	fails := func(size uintptr) {
		t.Helper()
		before := measure.Virtual(t)
		for range 50 {
			for i, b := range blocks {
				n, err := s.Reallocate(b, size)
				if !errors.Is(err, blockalloc.ErrOutOfMemory) || !errors.Is(err, unix.ENOMEM) || n != b || !s.Owns(b) || painted(b.Bytes(), i) >= 0 {
					t.Fatalf("Reallocate to what cannot be had = %v, %v; want %v as it was and ErrOutOfMemory with ENOMEM", n, err, b)
				}
			}
		}
		if grown := measure.Virtual(t) - before; grown > 16<<20 {
			t.Errorf("the process has grown by %d B", grown)
		}
	}
	for i, b := range blocks {
		paint(b.Bytes(), i)
	}
	limit(t, which, now, 256<<20)
	fails(300 << 20)
	// Where there is room for the block once and not twice, it grows.
	n, err := s.Reallocate(blocks[0], 130<<20)
	if err == nil {
		n, err = s.Reallocate(n, 180<<20)
	}
	if err != nil || painted(n.Bytes()[:1<<20], 0) >= 0 {
		t.Errorf("Reallocate to most of what can be had = %v, %v", n, err)
	}
	mustFree(t, &s, n)
	mustFree(t, &s, blocks[1])
}

// TestReservedMappings: with as many mappings as a process may have, blocks grow, shrink and end, or stay what they were.
func TestReservedMappings(t *testing.T) {
	if !ownProcess(t) {
		return
	}
	page := uintptr(unix.Getpagesize())
	r := &blockalloc.Reserved{Max: 4 * page}
	var blocks []blockalloc.Block
	for {
		b, err := r.Allocate(blockalloc.Layout{Size: page, Align: 1})
		if err != nil {
			if !errors.Is(err, blockalloc.ErrOutOfMemory) || !errors.Is(err, unix.ENOMEM) {
				t.Fatal(err)
			}
			break
		}
		b.Bytes()[0] = byte(len(blocks))
		if blocks = append(blocks, b); len(blocks) == 200_000 {
			t.Skip("this kernel lets a process have any number of mappings")
		}
	}
	refused, resized := 0, min(2000, len(blocks))
	for i, b := range blocks[:resized] {
		for _, size := range []uintptr{3 * page, page, 2 * page, 4 * page} {
			n, err := r.Resize(b, size)
			switch {
			case err != nil && n != b:
				t.Fatalf("Resize(%v, %d) = %v, %v", b, size, n, err)
			case err != nil:
				refused++
			default:
				n.Bytes()[size-1] = 1
			}
			if b = n; b.Bytes()[0] != byte(i) || b.Bytes()[b.Size()-1] > 1 && b.Size() > page {
				t.Fatalf("%v has lost its content", b)
			}
		}
		blocks[i] = b
	}
	t.Logf("%d blocks, %d of %d resizes refused", len(blocks), refused, 4*resized)
	for _, b := range slices.Backward(blocks) {
		if err := r.Free(b); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.Mappings()) != 0 {
		t.Errorf("%d blocks are left", len(r.Mappings()))
	}
}
