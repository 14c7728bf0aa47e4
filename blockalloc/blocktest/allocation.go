package blocktest

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

func (s suite) alignment(t *testing.T) {
	for _, size := range []uintptr{1, 64, 4 << 10, 32 << 10, 1 << 20, 16 << 20, 1 << 30} {
		if size > s.MaxSize {
			continue
		}
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			a := s.New(t)
			b, err := a.Allocate(blockalloc.BlockLayout(size))
			if errors.Is(err, blockalloc.ErrOutOfMemory) && size >= 1<<30 && ^uintptr(0)>>32 == 0 {
				t.Logf("no room for %d bytes in a 32-bit address space: %v", size, err)
				return
			}
			if err != nil {
				t.Fatalf("Allocate(BlockLayout(%d)): %v", size, err)
			}
			check(t, b, blockalloc.BlockLayout(size))
			mem := b.Bytes()
			mem[0], mem[size-1] = 1, 2
			if want := byte(2); mem[size-1] != want {
				t.Errorf("the last byte reads %d, want %d", mem[size-1], want)
			}
			free(t, a, b)
		})
	}
}

// unevenLayouts tries sizes that are no powers of two, and alignments stricter
// and laxer than the size.
func (s suite) unevenLayouts(t *testing.T) {
	a := s.New(t)
	for _, l := range []blockalloc.Layout{layout(1, 4096), layout(100, 8), layout(5000, 1<<16), layout(4097, 4096), layout(12<<10, 64), layout(3<<20, 1<<20)} {
		if l.Size > s.MaxSize || l.Align > s.MaxSize {
			continue
		}
		b := allocate(t, a, l)
		fill(b, l.Size, 3)
		if err := filled(b, l.Size, 3); err != nil {
			t.Error(err)
		}
		free(t, a, b)
	}
}

func (s suite) noOverlap(t *testing.T) {
	a := s.New(t)
	n := s.MaxLive
	if s.Arena {
		n = 2 * n / 3 // the places of those freed below are not given out again
	}
	var live spans[int]
	blocks := make([]blockalloc.Block, n)
	get := func(i int) {
		blocks[i] = allocate(t, a, blockalloc.BlockLayout(s.size))
		if err := live.insert(blocks[i], i); err != nil {
			t.Fatal(err)
		}
		fill(blocks[i], s.size, i)
	}
	for i := range blocks {
		get(i)
	}
	for i := 0; i < len(blocks); i += 2 { // freed places are given out again
		live.remove(blocks[i].Addr())
		free(t, a, blocks[i])
	}
	for i := 0; i < len(blocks); i += 2 {
		get(i)
	}
	s.accounts(t, a, "with all blocks live", blocks...)
	for i, b := range slices.Backward(blocks) {
		if err := filled(b, s.size, i); err != nil {
			t.Fatalf("another block was written over this one: %v", err)
		}
		free(t, a, b)
	}
	s.accounts(t, a, "with all blocks freed")
}

func (s suite) zeroSize(t *testing.T) {
	a := s.New(t)
	b, err := a.Allocate(blockalloc.Layout{Size: 0, Align: s.size})
	if err != nil || !b.IsZero() || len(b.Bytes()) != 0 {
		t.Errorf("Allocate of size 0 = %v, %v; want the empty block and no error", b, err)
	}
	for range 2 {
		free(t, a, b)
	}
	if n, err := a.Reallocate(blockalloc.Block{}, 64); !errors.Is(err, blockalloc.ErrBadLayout) || !n.IsZero() {
		t.Errorf("Reallocate of the empty block = %v, %v; want the empty block and ErrBadLayout", n, err)
	}
	s.accounts(t, a, "with nothing but empty blocks")
}

const top = ^uintptr(0)>>1 + 1 // the highest power of two

// badLayouts are alignments that are no powers of two, and what is larger than
// any address space.
var badLayouts = []blockalloc.Layout{
	blockalloc.BlockLayout(0), blockalloc.BlockLayout(999), layout(4096, 0), layout(4096, 999), layout(0, 999), layout(0, 0),
	layout(1, 3), layout(1, 6), layout(1, 12), layout(24, 24), layout(4096, 4095), layout(4096, 4097), layout(64, 1<<12+1<<6), layout(1, ^uintptr(0)),
	blockalloc.BlockLayout(top), layout(^uintptr(0), 4096), layout(^uintptr(0), 1), layout(^uintptr(0)-4095, 1), layout(4096, top), layout(0, top), layout(top, 1), layout(top+1, 8),
}

func (s suite) badLayout(t *testing.T) {
	a := s.New(t)
	for _, l := range badLayouts {
		b, err := a.Allocate(l)
		if !errors.Is(err, blockalloc.ErrBadLayout) || !b.IsZero() {
			t.Errorf("Allocate(%v) = %v, %v; want ErrBadLayout", l, b, err)
		}
	}
	b := allocate(t, a, blockalloc.BlockLayout(s.size))
	fill(b, s.size, 1)
	for _, size := range []uintptr{^uintptr(0), ^uintptr(0) - s.size + 1, top} {
		if n, err := a.Reallocate(b, size); !errors.Is(err, blockalloc.ErrBadLayout) || n != b {
			t.Errorf("Reallocate to %d bytes = %v, %v; want %v and ErrBadLayout", size, n, err, b)
		}
	}
	if err := filled(b, s.size, 1); err != nil {
		t.Error(err)
	}
	s.accounts(t, a, "after bad layouts", b)
	free(t, a, b)
}

// tooMuch is a valid size that no machine has.
const tooMuch = 1 << (30 + (^uintptr(0)>>63)*17)

func (s suite) outOfMemory(t *testing.T) {
	a := s.New(t)
	for _, l := range []blockalloc.Layout{blockalloc.BlockLayout(tooMuch), layout(tooMuch, s.size), layout(1, tooMuch)} {
		b, err := a.Allocate(l)
		switch {
		case err == nil && (l.Size == 1 || ^uintptr(0)>>32 == 0): // an address space can hold it
			check(t, b, l)
			free(t, a, b)
		case errors.Is(err, blockalloc.ErrUnsupportedAlign) && l.Align > s.MaxSize && b.IsZero():
		case !outOfRoom(err) || !b.IsZero():
			t.Errorf("Allocate(%v) = %v, %v; want ErrOutOfMemory or ErrLimit", l, b, err)
		}
	}
	s.accounts(t, a, "after refusals")
	free(t, a, allocate(t, a, blockalloc.BlockLayout(s.size)))
}
