package blockalloc_test

import (
	"errors"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// FuzzAllocators reads operations from data, two bytes each, and holds what the
// allocators do against a model: which blocks are live, and what is in them.
func FuzzAllocators(f *testing.F) {
	f.Add([]byte{0, 12, 0, 3, 1, 20, 2, 0, 3, 0, 2, 1})
	f.Add([]byte{0, 255, 1, 0, 3, 0, 0, 1, 2, 0, 2, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, a := range []blockalloc.Allocator{&blockalloc.Heap{}, blockalloc.Default()} {
			replay(t, a, data)
		}
	})
}

func replay(t *testing.T, a blockalloc.Allocator, data []byte) {
	type entry struct {
		block blockalloc.Block
		mark  byte // in the first and the last byte that were asked for
		size  uintptr
	}
	var live []entry
	var gone []blockalloc.Block
	mark := func(e *entry, size uintptr, m byte) {
		e.size, e.mark = size, m
		e.block.Bytes()[0], e.block.Bytes()[size-1] = m, m
	}
	for i := 0; i+1 < len(data); i += 2 {
		op, arg := data[i]%4, data[i+1]
		size := uintptr(1)<<(arg%15) + uintptr(arg)/15
		switch {
		case op == 0 && len(live) < 16:
			l := blockalloc.Layout{Size: size, Align: 1 << (arg % 17)}
			b, err := a.Allocate(l)
			if err != nil {
				t.Fatalf("Allocate(%v): %v", l, err)
			}
			e := entry{block: b}
			mark(&e, size, arg)
			live = append(live, e)
		case op == 1 && len(live) > 0:
			e := &live[int(arg)%len(live)]
			n, err := a.Reallocate(e.block, size)
			if err != nil {
				t.Fatalf("Reallocate(%v, %d): %v", e.block, size, err)
			}
			if n.Bytes()[0] != e.mark || size >= e.size && n.Bytes()[e.size-1] != e.mark {
				t.Fatalf("Reallocate(%v, %d) lost content", e.block, size)
			}
			e.block = n
			mark(e, size, arg)
		case op == 2 && len(live) > 0:
			at := int(arg) % len(live)
			e := live[at]
			if e.block.Bytes()[0] != e.mark && e.size > 1 || e.block.Bytes()[e.size-1] != e.mark {
				t.Fatalf("%v lost its content", e.block)
			}
			if err := a.Free(e.block); err != nil {
				t.Fatalf("Free(%v): %v", e.block, err)
			}
			gone = append(gone, e.block)
			live = append(live[:at], live[at+1:]...)
		case op == 3 && len(gone) > 0:
			b := gone[int(arg)%len(gone)]
			again := false // the same block may have been handed out again
			for _, e := range live {
				again = again || e.block.Addr() == b.Addr()
			}
			if again {
				continue
			}
			if err := a.Free(b); !errors.Is(err, blockalloc.ErrDoubleFree) && !errors.Is(err, blockalloc.ErrNotOwned) {
				t.Fatalf("second Free(%v): error %v", b, err)
			}
		}
	}
	for _, e := range live {
		if err := a.Free(e.block); err != nil {
			t.Fatalf("Free(%v): %v", e.block, err)
		}
	}
}
