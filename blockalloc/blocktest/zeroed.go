package blocktest

import (
	"errors"
	"slices"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// zeroed checks memory that may have been used before, whole and in parts.
func (s suite) zeroed(t *testing.T) {
	a := s.New(t)
	for _, size := range []uintptr{64 << 10, 64 << 10, 64 << 10, 4 << 10, 64, 1, 100, 4 << 10, 64 << 10} {
		blocks := make([]blockalloc.Block, 0, 4)
		for range min(cap(blocks), s.MaxLive) {
			if len(blocks) > 0 && size > s.size {
				break
			}
			b := allocate(t, a, layout(min(size, s.MaxSize), 1))
			if err := cleared(b); err != nil {
				t.Fatal(err)
			}
			paint(b.Bytes(), 0xff)
			blocks = append(blocks, b)
		}
		for _, b := range slices.Backward(blocks) {
			free(t, a, b)
		}
	}
}

// zeroedSizes are the sizes from one byte up to MaxSize of which two blocks are dirtied and asked for again.
func (s suite) zeroedSizes() (sizes []uintptr) {
	most := min(s.MaxSize, 16<<20)
	if testing.Short() {
		most = min(most, 5<<20)
	}
	for _, size := range []uintptr{1, 7, 64, 100, 1 << 10, 4<<10 - 1, 4 << 10, 4<<10 + 1, 20 << 10, 64 << 10, 1<<20 + 1, 8 << 20} {
		if size < most {
			sizes = append(sizes, size)
		}
	}
	return append(sizes, most)
}

// zeroedLayout asks for zeroed memory, fresh and after it was used: of each size, and then of another one.
func (s suite) zeroedLayout(t *testing.T) {
	a := s.New(t)
	for _, size := range s.zeroedSizes() {
		for _, l := range []blockalloc.Layout{zeroedLayout(size, 1), layout(size, 1), zeroedLayout(size, 1), zeroedLayout((size+1)/2, 1), zeroedLayout(size, 1)} {
			var blocks []blockalloc.Block
			for len(blocks) == 0 || len(blocks) < min(3, s.MaxLive) && size <= s.size {
				b := allocate(t, a, l)
				if l.Zeroed {
					if err := cleared(b); err != nil {
						t.Fatal(err)
					}
				}
				paint(b.Bytes(), 0xff)
				blocks = append(blocks, b)
			}
			for _, b := range slices.Backward(blocks) {
				free(t, a, b)
			}
		}
	}
	b, err := a.Allocate(zeroedLayout(s.MaxSize, 1))
	if errors.Is(err, blockalloc.ErrOutOfMemory) && s.MaxSize >= 1<<30 && ^uintptr(0)>>32 == 0 {
		return // a 32-bit address space may have no room for it
	}
	if err != nil {
		t.Fatal(err)
	}
	check(t, b, zeroedLayout(s.MaxSize, 1))
	for _, i := range []uintptr{0, s.MaxSize / 2, b.Size() - 1} {
		if v := b.Bytes()[i]; v != 0 {
			t.Errorf("byte %d of %v is %#x, want 0", i, b, v)
		}
	}
	free(t, a, b)
	if b, err := a.Allocate(zeroedLayout(0, 1)); err != nil || !b.IsZero() {
		t.Errorf("Allocate of size 0, zeroed = %v, %v; want the empty block and no error", b, err)
	}
	s.accounts(t, a, "after zeroed blocks")
}

// zeroedGrowth grows and shrinks zeroed blocks, in place and by moving.
func (s suite) zeroedGrowth(t *testing.T) {
	s.zeroedSteps(t, func(b blockalloc.Block) (blockalloc.Block, error) { return b, nil })
}

// zeroedRaw does the same with the blocks that FromRaw makes, of the sizes that were asked for.
func (s suite) zeroedRaw(t *testing.T) {
	s.zeroedSteps(t, func(b blockalloc.Block) (blockalloc.Block, error) { return blockalloc.FromRaw(b.IntoRaw()) })
}

// zeroedSteps reallocates a zeroed block again and again, as given returns it. Each time all its bytes are
// dirty. What is added must be zero, and what was there must stay. With another block behind it, it
// can grow only by moving.
func (s suite) zeroedSteps(t *testing.T, given func(blockalloc.Block) (blockalloc.Block, error)) {
	most := s.fit(1 << 20)
	if s.Bounded {
		most = s.size
	}
	for _, behind := range []bool{false, true} {
		a := s.New(t)
		dirty := allocate(t, a, layout(most, 1))
		paint(dirty.Bytes(), 0xff)
		free(t, a, dirty)
		n := allocate(t, a, zeroedLayout(1, 1))
		var other blockalloc.Block
		if behind && s.MaxLive > 2 { // there is room for one more: a block that moves
			other = allocate(t, a, layout(1, 1))
		}
		for step, size := range []uintptr{2, 5, 30, 31, 100, 700, most / 4, most / 3, most / 2, 9, 40, most/2 + 1, most, most/2 + 3, most - 1, most/2 + 3, 1, most} {
			size = max(1, min(size, most))
			fill(n, n.Size(), step)
			whole := n
			b, err := given(whole)
			if err != nil {
				t.Fatal(err)
			}
			n, err = a.Reallocate(b, size)
			if _, isFinder := blockalloc.FinderOf(a); !isFinder && errors.Is(err, errors.ErrUnsupported) {
				b = whole // of which alone a wrapper that counts knows what was granted
				n, err = a.Reallocate(b, size)
			}
			if s.Arena && outOfRoom(err) { // the places before it are not given out again
				break
			}
			if err != nil {
				t.Fatalf("Reallocate(%v, %d): %v", b, size, err)
			}
			check(t, n, zeroedLayout(size, 1))
			if err := filled(n, min(b.Size(), size), step); err != nil {
				t.Fatalf("Reallocate(%v, %d) lost content: %v", b, size, err)
			}
			if err := clearedFrom(n, b.Size()); err != nil {
				t.Fatalf("Reallocate(%v, %d) has added what is not zero: %v", b, size, err)
			}
		}
		free(t, a, n)
		free(t, a, other)
		s.accounts(t, a, "after the growth of zeroed blocks")
	}
}
