package manualmem_test

import (
	"errors"
	"sync"
	"testing"
	"unsafe"

	"alloctrace.example/clients/manualmem"
	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
)

const (
	cache = iota
	memtable
)

func TestPurposes(t *testing.T) {
	proxy := alloctest.New(t)
	mem := manualmem.New(proxy, "cache", "memtable")
	p, q := mem.Allocate(cache, 1000), mem.Allocate(memtable, 1<<20)
	if uintptr(p)%16 != 0 || uintptr(q)%16 != 0 {
		t.Errorf("addresses %p and %p are not aligned", p, q)
	}
	stats := proxy.ChildStats()
	if stats["cache"].LiveRequestedBytes != 1000 || stats["memtable"].LiveRequestedBytes != 1<<20 {
		t.Errorf("live by purpose: %v", stats)
	}
	wantNotOwned(t, func() { mem.Free(cache, p, 999) })
	wantNotOwned(t, func() { mem.Free(cache, p, 1001) })
	wantNotOwned(t, func() { mem.Free(cache, unsafe.Add(p, 16), 984) })
	mem.Free(memtable, q, 1<<20)
	mem.Free(cache, p, 1000)
	if p := mem.Allocate(cache, 0); p != nil {
		t.Errorf("Allocate(0) = %p", p)
	}
	mem.Free(cache, nil, 0)
	wantNotOwned(t, func() { mem.Free(cache, p, 1000) })
}

// TestZeroed: memory that comes back is zeroed again, over the allocators that clients run on.
func TestZeroed(t *testing.T) {
	slab, err := blockalloc.NewSlab(new(blockalloc.Heap), 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	proxy := alloctrace.Wrap(slab)
	mem := manualmem.New(proxy, "cache")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for size := uintptr(1); size < 100_000; size = size*3/2 + 1 {
				p := mem.Allocate(cache, size)
				bytes := unsafe.Slice((*byte)(p), size)
				for i := range bytes {
					if bytes[i] != 0 {
						t.Errorf("byte %d of %d is %d", i, size, bytes[i])
						break
					}
					bytes[i] = 0xff
				}
				mem.Free(cache, p, size)
			}
		})
	}
	wg.Wait()
	alloctest.AssertLive(t, proxy, 0, 0)
	if err := slab.Close(); err != nil {
		t.Error(err)
	}
}

// blind is an allocator that does not find its blocks.
type blind struct{ blockalloc.Allocator }

func TestNoFinder(t *testing.T) {
	defer func() {
		const want = "manualmem: New: manualmem_test.blind is no Finder: pass a Proxy around one that is, such as blockalloc.Default()"
		if r := recover(); r != want {
			t.Errorf("panic %v, want %s", r, want)
		}
	}()
	manualmem.New(alloctrace.Wrap(blind{new(blockalloc.Heap)}), "cache")
}

func wantNotOwned(t *testing.T, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if err, _ := recover().(error); !errors.Is(err, blockalloc.ErrNotOwned) {
			t.Errorf("panic %v, want %v", err, blockalloc.ErrNotOwned)
		}
	}()
	f()
}
