package main

import (
	"errors"
	"slices"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

func TestTable(t *testing.T) {
	mem, inner := newMemory(t)
	numbers := table[uint64]{mem: mem}
	var want []uint64
	for i := range uint64(10_000) {
		if err := numbers.add(i*i, i); err != nil {
			t.Fatal(err)
		}
		want = append(want, i*i, i)
	}
	if !slices.Equal(numbers.items, want) {
		t.Error("the items are not what was added")
	}
	if first := unsafe.Pointer(unsafe.SliceData(numbers.items)); first != numbers.block.Pointer() {
		t.Errorf("the items are at %p, outside the block at %p", first, numbers.block.Pointer())
	}
	if s := mem.Stats(); s.Allocations != 1 || s.Reallocations != 6 || s.LiveBytes != 256<<10 {
		t.Errorf("%v; want 4 KiB doubled 6 times to hold 160,000 B", s)
	}

	inner.left.Store(0)
	full := slices.Repeat([]uint64{7}, cap(numbers.items)-len(numbers.items))
	if err := numbers.add(full...); err != nil {
		t.Error(err)
	}
	if err := numbers.add(1); !errors.Is(err, blockalloc.ErrOutOfMemory) {
		t.Errorf("error %v, want out of memory", err)
	}
	if !slices.Equal(numbers.items, append(want, full...)) {
		t.Error("a failed add changed the items")
	}
	if err := numbers.free(mem); err != nil || numbers.items != nil {
		t.Errorf("free: %v", err)
	}
	if err := numbers.free(mem); err != nil {
		t.Errorf("a second free: %v", err)
	}
}

func TestTableReserve(t *testing.T) {
	mem, _ := newMemory(t)
	text := table[byte]{mem: mem}
	for _, n := range []int{0, 1, tableSize, tableSize + 1, 10 * tableSize} {
		if err := text.reserve(n); err != nil || cap(text.items) < n || len(text.items) != 0 {
			t.Errorf("reserve(%d): %v, room for %d", n, err, cap(text.items))
		}
	}
	if got := text.block.Size(); got != 16*tableSize {
		t.Errorf("the block has %d B, want %d", got, 16*tableSize)
	}
	if err := text.free(mem); err != nil {
		t.Error(err)
	}
}
