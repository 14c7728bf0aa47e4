package reach

import (
	"context"
	"slices"
	"testing"
	"unsafe"
)

// moving calls move before each block is read.
type moving struct {
	context.Context
	move func()
}

func (m moving) Err() error {
	m.move()
	return nil
}

// TestMoving: an address that goes from a block that is not read yet to one that was is found nevertheless, and with it the block behind it.
func TestMoving(t *testing.T) {
	words := make([]uintptr, 4)
	addr := func(i int) uintptr { return uintptr(unsafe.Pointer(&words[i])) }
	var blocks []Block
	for i := range words {
		blocks = append(blocks, Block{addr(i), wordSize})
	}
	words[0], words[2] = addr(2), addr(3)
	reads := 0
	ctx := moving{t.Context(), func() {
		if reads++; reads == 2 { // block 1 was read, and block 0 is next
			words[0], words[1] = 0, words[0]
		}
	}}
	f := &finder{index: newIndex(blocks), by: []int{elsewhere, elsewhere, 0, 0}}
	if err := f.followAgain(ctx); err != nil || !slices.Equal(f.by, []int{elsewhere, elsewhere, elsewhere, elsewhere}) {
		t.Errorf("%v, who points to the blocks is %v", err, f.by)
	}
	f = &finder{index: newIndex(blocks), by: []int{elsewhere, 0, 0, 0}}
	reads = 2
	if err := f.followAgain(ctx); err != nil || !slices.Equal(f.by, []int{elsewhere, 0, 0, 0}) || reads != 2+quietRounds {
		t.Errorf("%v after %d reads, who points to the blocks is %v", err, reads-2, f.by)
	}
}
