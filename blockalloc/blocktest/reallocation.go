package blocktest

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

func (s suite) reallocateKeepsContent(t *testing.T) {
	a := s.New(t)
	sizes := []uintptr{4 << 10, 16 << 10, 256 << 10, 20 << 10, 4 << 10, 100, 4 << 10, 1 << 20, 1}
	size := s.fit(16 << 10)
	l := blockalloc.BlockLayout(size)
	b := allocate(t, a, l)
	for i, next := range sizes {
		next = min(next, s.MaxSize)
		fill(b, size, i)
		n, err := a.Reallocate(b, next)
		if s.Bounded && !s.Arena && max(size, next) > s.size && outOfRoom(err) && n == b {
			next = size // there is no room for both
		} else if err != nil {
			t.Fatalf("Reallocate(%v, %d): %v", b, next, err)
		}
		check(t, n, layout(next, l.Align))
		if err := filled(n, min(size, next), i); err != nil {
			t.Fatalf("Reallocate(%v, %d) lost content: %v", b, next, err)
		}
		s.accounts(t, a, "after Reallocate", n)
		b, size = n, next
	}
	free(t, a, b)
	s.accounts(t, a, "after Free")
}

// reallocateToZero frees by Reallocate, so often that what is not given back runs out.
func (s suite) reallocateToZero(t *testing.T) {
	a := s.New(t)
	rounds := 4
	if s.Bounded {
		rounds += maxLiveFactor * s.MaxLive
	}
	for round := range rounds {
		b := allocate(t, a, blockalloc.BlockLayout(s.size))
		n, err := a.Reallocate(b, 0)
		if err != nil || !n.IsZero() {
			t.Fatalf("Reallocate to 0 = %v, %v; want the empty block", n, err)
		}
		if round < 4 {
			s.accounts(t, a, "after Reallocate to 0")
			refused(t, a, b)
		}
	}
}

func (s suite) failedReallocate(t *testing.T) {
	a := s.New(t)
	b := allocate(t, a, blockalloc.BlockLayout(s.size))
	fill(b, s.size, 1)
	if n, err := a.Reallocate(b, tooMuch); err == nil {
		if ^uintptr(0)>>32 != 0 {
			t.Fatalf("Reallocate to %d bytes = %v, want an error", uintptr(tooMuch), n)
		}
		check(t, n, layout(tooMuch, b.Align()))
		b = n
	} else if !outOfRoom(err) || n != b {
		t.Errorf("Reallocate to %d bytes = %v, %v; want %v and ErrOutOfMemory or ErrLimit", uintptr(tooMuch), n, err, b)
	}
	if err := filled(b, s.size, 1); err != nil {
		t.Error(err)
	}
	if o, ok := blockalloc.OwnerOf(a); ok && !o.Owns(b) {
		t.Errorf("after a failed Reallocate, Owns(%v) = false", b)
	}
	s.accounts(t, a, "after a failed Reallocate", b)
	free(t, a, b)
}

// neighbours reallocates blocks up and down, whose neighbours are filled and must stay
// as they are.
func (s suite) neighbours(t *testing.T) {
	a := s.New(t)
	rnd := rand.New(rand.NewPCG(3, 4))
	blocks := make([]blockalloc.Block, min(8, s.MaxLive-1)) // there is room for one more: a block that moves
	for i := range blocks {
		blocks[i] = allocate(t, a, layout(s.size, 1))
		fill(blocks[i], blocks[i].Size(), i)
	}
	at := 0
	for step := range 96 {
		if step%3 > 0 { // else the same again
			at = rnd.IntN(len(blocks))
		}
		b := blocks[at]
		size := []uintptr{1, s.size, 1 + uintptr(rnd.UintN(uint(s.size)))}[rnd.IntN(3)]
		n, err := a.Reallocate(b, size)
		switch {
		case err == nil:
			check(t, n, layout(size, 1))
			if err := filled(n, min(b.Size(), size), at); err != nil {
				t.Fatalf("Reallocate(%v, %d) lost content: %v", b, size, err)
			}
		case !s.Arena || !outOfRoom(err) || n != b:
			t.Fatalf("Reallocate(%v, %d) = %v, %v", b, size, n, err)
		}
		for i, other := range blocks {
			if i == at {
				continue
			}
			if err := filled(other, other.Size(), i); err != nil {
				t.Fatalf("Reallocate(%v, %d) = %v wrote over another block: %v", b, size, n, err)
			}
		}
		blocks[at] = n
		fill(n, n.Size(), at)
	}
	s.accounts(t, a, "after reallocations", blocks...)
	for _, b := range slices.Backward(blocks) {
		free(t, a, b)
	}
}
