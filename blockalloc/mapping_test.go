package blockalloc_test

import (
	"slices"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// hidden is an allocator that is no Mapper.
type hidden struct{ blockalloc.Allocator }

func TestMappings(t *testing.T) {
	heap, buffer := new(blockalloc.Heap), make([]byte, 100)
	fixed, err := blockalloc.NewFixed(buffer)
	if err != nil {
		t.Fatal(err)
	}
	b := mustAllocate(t, heap, 1000, 8)
	inHeap := blockalloc.Mapping{Addr: b.Addr(), Size: 1000}
	inBuffer := blockalloc.Mapping{Addr: uintptr(unsafe.Pointer(unsafe.SliceData(buffer))), Size: 100}
	for _, test := range []struct {
		a        blockalloc.Allocator
		want     []blockalloc.Mapping
		complete bool
	}{
		{nil, nil, false},
		{(*blockalloc.Pool)(nil), nil, false},
		{blockalloc.Null{}, nil, true},
		{heap, []blockalloc.Mapping{inHeap}, true},
		{blockalloc.NewLocked(blockalloc.NewLimit(fixed, 1<<30)), []blockalloc.Mapping{inBuffer}, true},
		{blockalloc.NewFallback(fixed, heap), []blockalloc.Mapping{inBuffer, inHeap}, true},
		{several{inner: []blockalloc.Allocator{hidden{fixed}, heap}}, []blockalloc.Mapping{inHeap}, false},
		{&carver{parent: heap}, []blockalloc.Mapping{inHeap}, true},
		{&carver{parent: hidden{heap}}, nil, false},
		{hidden{heap}, nil, false},
	} {
		got, complete := blockalloc.Mappings(test.a)
		if !slices.Equal(got, test.want) || complete != test.complete {
			t.Errorf("%s\nhas %v, %v, want %v, %v", blockalloc.Tree(test.a), got, complete, test.want, test.complete)
		}
	}
	mustFree(t, heap, b)
	if got := heap.Mappings(); len(got) != 0 {
		t.Errorf("%v, with nothing live", got)
	}
}

// TestPoolMappings: a Pool returns what it has, also when nothing is live, and no more
// than its figures say.
func TestPoolMappings(t *testing.T) {
	pool := new(blockalloc.Pool)
	check := func(when string) {
		t.Helper()
		var bytes int64
		for _, m := range pool.Mappings() {
			bytes += int64(m.Size)
		}
		if want := pool.Stats().Reserved; bytes != want {
			t.Errorf("%s: %d bytes, want %d", when, bytes, want)
		}
	}
	check("new")
	var blocks []blockalloc.Block
	for _, size := range []uintptr{1, 4096, 1 << 20, 128 << 20} {
		blocks = append(blocks, mustAllocate(t, pool, size, 1))
		check("allocated")
	}
	for _, b := range blocks {
		mustFree(t, pool, b)
		check("freed")
	}
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
	check("closed")
}
