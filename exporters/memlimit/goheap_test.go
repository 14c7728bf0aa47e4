package memlimit

import (
	"runtime/debug"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
)

// TestGoHeap: what is in the Go heap is not off-heap too, by whichever way. The race detector
// moves Default and Pool there.
func TestGoHeap(t *testing.T) {
	found := debug.SetMemoryLimit(-1)
	heap, system, pool := new(blockalloc.Heap), new(blockalloc.System), new(blockalloc.Pool)
	slab, err := blockalloc.NewSlab(heap, 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	const size = 8 * mib
	pooled := int64(size)
	if poolOnGoHeap {
		pooled = 0
	}
	for _, c := range []struct {
		name  string
		inner blockalloc.Allocator
		want  int64
	}{
		{"Heap", heap, 0},
		{"Slab of Heap", slab, 0},
		{"Limit, Locked and Proxy of Heap", blockalloc.NewLimit(blockalloc.NewLocked(alloctrace.Wrap(heap)), 1<<30), 0},
		{"Fallback of Heaps", blockalloc.NewFallback(heap, new(blockalloc.Heap)), 0},
		{"System", system, size},
		{"Fallback of Heap and System", blockalloc.NewFallback(heap, system), size},
		{"Pool", pool, pooled},
		{"Default", blockalloc.Default(), pooled},
	} {
		t.Run(c.name, func(t *testing.T) {
			mem := alloctrace.Wrap(c.inner)
			part := mem.Child("part")
			b, err := part.Allocate(blockalloc.Layout{Size: size, Align: 4096})
			if err != nil {
				t.Fatal(err)
			}
			sources := map[string]counter.Source{"Proxy": mem, "child": part}
			if c.inner == pool {
				sources["Pool"] = Pool(pool)
			}
			for name, source := range sources {
				l, err := New(Options{Budget: 10 * unit}, source)
				if err != nil {
					t.Fatal(err)
				}
				limitIs(t, name, 10*unit-c.want)
				if got := l.Stats().OffHeap; got != c.want {
					t.Errorf("%s: %d bytes are off-heap, want %d", name, got, c.want)
				}
				l.Close()
			}
			if err := part.Free(b); err != nil {
				t.Error(err)
			}
		})
	}
	limitIs(t, "after all", found)
	if err := slab.Close(); err != nil {
		t.Error(err)
	}
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
}
