package blocktest

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// maxLiveFactor times MaxLive blocks are more than a Bounded allocator serves.
const maxLiveFactor = 16

// exhaust allocates blocks of l until the allocator refuses, fills and returns them.
func (s suite) exhaust(t testing.TB, a blockalloc.Allocator, l blockalloc.Layout, seed int) []blockalloc.Block {
	t.Helper()
	var blocks []blockalloc.Block
	for {
		b, err := a.Allocate(l)
		if err != nil {
			if !outOfRoom(err) || !b.IsZero() {
				t.Fatalf("Allocate(%v) with %d blocks live = %v, %v; want a block, or ErrOutOfMemory or ErrLimit", l, len(blocks), b, err)
			}
			return blocks
		}
		check(t, b, l)
		fill(b, b.Size(), seed+len(blocks))
		blocks = append(blocks, b)
		if len(blocks) >= maxLiveFactor*s.MaxLive {
			if l.Size < s.size { // Bounded says nothing about these
				return blocks
			}
			t.Fatalf("there are %d blocks of %v, %d × MaxLive: the allocator is not Bounded", len(blocks), l, maxLiveFactor)
		}
	}
}

// intact checks the content of blocks that exhaust has filled.
func intact(t testing.TB, blocks []blockalloc.Block, seed int) {
	t.Helper()
	for i, b := range blocks {
		if err := filled(b, b.Size(), seed+i); err != nil {
			t.Fatalf("block %d of %d: %v", i, len(blocks), err)
		}
	}
}

// fillUp allocates smaller and smaller blocks until no byte is left, or there are too
// many blocks.
func (s suite) fillUp(t testing.TB, a blockalloc.Allocator) []blockalloc.Block {
	t.Helper()
	var blocks []blockalloc.Block
	for size := s.size; size > 0; size /= 2 {
		blocks = append(blocks, s.exhaust(t, a, layout(size, 1), len(blocks))...)
	}
	return blocks
}

// exhaustion fills the allocator again and again: what is lost at the bound is missing
// the next time.
func (s suite) exhaustion(t *testing.T) {
	a := s.New(t)
	l := blockalloc.BlockLayout(s.size)
	rnd := rand.New(rand.NewPCG(5, 6))
	most := 0
	for round := range 4 {
		blocks := s.exhaust(t, a, l, round)
		intact(t, blocks, round)
		s.accounts(t, a, "when exhausted", blocks...)
		if n := len(blocks); n < max(s.MaxLive, most) {
			t.Fatalf("round %d: only %d blocks of %v, want %d", round, n, l, max(s.MaxLive, most))
		}
		most = len(blocks)
		s.growAtTheBound(t, a, blocks, round)
		s.reuseAtTheBound(t, a, blocks, round)
		intact(t, blocks, round)
		if !s.Arena {
			rnd.Shuffle(len(blocks), func(i, j int) { blocks[i], blocks[j] = blocks[j], blocks[i] })
		}
		for _, b := range slices.Backward(blocks) {
			free(t, a, b)
		}
		s.accounts(t, a, "when all is freed")
	}
}

// growAtTheBound reallocates to more than there is.
func (s suite) growAtTheBound(t *testing.T, a blockalloc.Allocator, blocks []blockalloc.Block, seed int) {
	size := (maxLiveFactor*uintptr(s.MaxLive) + 1) * s.size
	for _, i := range []int{0, len(blocks) / 2, len(blocks) - 1} {
		if n, err := a.Reallocate(blocks[i], size); !outOfRoom(err) || n != blocks[i] {
			t.Fatalf("when exhausted, Reallocate(%v, %d) = %v, %v; want the block, and ErrOutOfMemory or ErrLimit", blocks[i], size, n, err)
		}
	}
	intact(t, blocks, seed)
	s.accounts(t, a, "after Reallocate failed", blocks...)
}

// reuseAtTheBound frees one block, by Free and by Reallocate, and allocates another. A
// second free must not make room for two.
func (s suite) reuseAtTheBound(t *testing.T, a blockalloc.Allocator, blocks []blockalloc.Block, seed int) {
	for i, how := range []string{"Free", "Reallocate to 0", "Free twice"} {
		at := len(blocks) - 1
		if !s.Arena {
			at = i * at / 2
		}
		b := blocks[at]
		if how == "Reallocate to 0" {
			if n, err := a.Reallocate(b, 0); err != nil || !n.IsZero() {
				t.Fatalf("Reallocate(%v, 0) = %v, %v", b, n, err)
			}
		} else {
			free(t, a, b)
		}
		if how == "Free twice" {
			refused(t, a, b)
		}
		n, err := a.Allocate(b.Layout())
		if err != nil {
			t.Fatalf("when exhausted, after %s of one block, Allocate(%v): %v", how, b.Layout(), err)
		}
		check(t, n, b.Layout())
		fill(n, n.Size(), seed+at)
		blocks[at] = n
	}
	s.accounts(t, a, "when a block is used again", blocks...)
}

// shrinkAtTheEnd shrinks a block while no more is left than what it shrinks to. If it
// moves, it moves to the last bytes, and no byte more may be written.
func (s suite) shrinkAtTheEnd(t *testing.T) {
	a := s.New(t)
	first := allocate(t, a, layout(s.size, 1))
	fill(first, first.Size(), 1)
	rest := s.fillUp(t, a)
	half, freed := s.size/2, uintptr(0)
	for len(rest) > 0 && freed < half {
		last := len(rest) - 1
		freed += rest[last].Size()
		free(t, a, rest[last])
		rest = rest[:last]
	}
	if freed > half {
		if b, err := a.Allocate(layout(freed-half, 1)); err == nil {
			fill(b, b.Size(), len(rest))
			rest = append(rest, b)
		} else if !outOfRoom(err) {
			t.Fatal(err)
		}
	}
	n, err := a.Reallocate(first, half)
	if err != nil && (!outOfRoom(err) || n != first) {
		t.Fatalf("with %d bytes left, Reallocate(%v, %d) = %v, %v; want a block, or this one and ErrOutOfMemory or ErrLimit", half, first, half, n, err)
	}
	check(t, n, layout(half, 1))
	if err := filled(n, half, 1); err != nil {
		t.Errorf("Reallocate(%v, %d) lost content: %v", first, half, err)
	}
	for i, b := range rest { // as fillUp counts
		if err := filled(b, b.Size(), i); err != nil {
			t.Errorf("Reallocate(%v, %d) = %v wrote over another block: %v", first, half, n, err)
		}
	}
	if n.Addr() != first.Addr() {
		free(t, a, n)
	}
	for _, b := range slices.Backward(rest) {
		free(t, a, b)
	}
	if n.Addr() == first.Addr() {
		free(t, a, n)
	}
	s.accounts(t, a, "when all is freed")
}

// lastByte grows an arena's only block to all there is.
func (s suite) lastByte(t *testing.T) {
	a := s.New(t)
	all := s.Capacity
	if all == 0 {
		all = s.capacity(t, a)
	}
	b := allocate(t, a, layout(1, 1))
	for i, size := range []uintptr{all, max(1, all/2), all} {
		fill(b, b.Size(), i)
		n, err := a.Reallocate(b, size)
		if err != nil {
			t.Fatalf("the arena holds %d bytes, and its only block does not grow: Reallocate(%v, %d): %v", all, b, size, err)
		}
		check(t, n, layout(size, 1))
		if err := filled(n, min(b.Size(), size), i); err != nil {
			t.Fatalf("Reallocate(%v, %d) lost content: %v", b, size, err)
		}
		b = n
	}
	fill(b, b.Size(), 4)
	if n, err := a.Reallocate(b, b.Size()+1); !outOfRoom(err) || n != b {
		t.Errorf("the arena holds %d bytes; Reallocate(%v, %d) = %v, %v; want the block, and ErrOutOfMemory or ErrLimit", all, b, b.Size()+1, n, err)
	}
	if c, err := a.Allocate(layout(1, 1)); !outOfRoom(err) || !c.IsZero() {
		t.Errorf("the arena holds %d bytes, all live; Allocate of 1 byte = %v, %v; want ErrOutOfMemory or ErrLimit", all, c, err)
	}
	if err := filled(b, b.Size(), 4); err != nil {
		t.Error(err)
	}
	free(t, a, b)
	free(t, a, allocate(t, a, layout(all, 1)))
	if c, err := a.Allocate(layout(all+1, 1)); !outOfRoom(err) || !c.IsZero() {
		t.Errorf("Capacity is %d bytes; Allocate of one more = %v, %v; want ErrOutOfMemory or ErrLimit", all, c, err)
	}
}

// padding checks that an arena gives back what aligning a block took.
func (s suite) padding(t *testing.T) {
	if s.MaxLive < 3 {
		t.Log("there is no room for three blocks")
		return
	}
	a := s.New(t)
	b := allocate(t, a, layout(1, 1))
	left := s.capacity(t, a)
	for range 2 {
		free(t, a, allocate(t, a, blockalloc.BlockLayout(s.size)))
		c, err := a.Allocate(layout(left, 1))
		if err != nil {
			t.Fatalf("an aligned block was freed, and of %d bytes that were left before there are less: %v", left, err)
		}
		if c, err = a.Reallocate(c, 1); err != nil {
			t.Fatal(err)
		}
		free(t, a, allocate(t, a, blockalloc.BlockLayout(s.size)))
		if c, err = a.Reallocate(c, left); err != nil {
			t.Fatalf("an aligned block was freed, and the block before it does not grow back: %v", err)
		}
		free(t, a, c)
	}
	free(t, a, b)
}

// capacity finds the largest block that an arena serves.
func (s suite) capacity(t *testing.T, a blockalloc.Allocator) uintptr {
	low, high := uintptr(1), (2*maxLiveFactor*uintptr(s.MaxLive)+1)*s.size // served, and refused
	for low+1 < high {
		size := low + (high-low)/2
		b, err := a.Allocate(layout(size, 1))
		if err != nil {
			high = size
			continue
		}
		free(t, a, b)
		low = size
	}
	return low
}

// concurrentExhaustion has all workers allocate up to the bound.
func (s suite) concurrentExhaustion(t *testing.T) {
	const workers = 4
	a := s.New(t)
	l := blockalloc.BlockLayout(s.size)
	var got [workers][]blockalloc.Block
	for round := range 3 {
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() { got[w] = s.race(t, a, l, 1000*w) })
		}
		wg.Wait()
		n := 0
		for w, blocks := range got {
			n += len(blocks)
			intact(t, blocks, 1000*w)
		}
		if n < s.MaxLive && (round == 0 || !s.Arena) || n > maxLiveFactor*s.MaxLive {
			t.Fatalf("round %d: %d blocks of %v, want %d at least and %d at most", round, n, l, s.MaxLive, maxLiveFactor*s.MaxLive)
		}
		for w := range workers {
			wg.Go(func() {
				for _, b := range slices.Backward(got[w]) {
					free(t, a, b)
				}
			})
		}
		wg.Wait()
		s.accounts(t, a, "when all is freed")
	}
}

// race is exhaust for several goroutines, which must not end the test.
func (s suite) race(t *testing.T, a blockalloc.Allocator, l blockalloc.Layout, seed int) (blocks []blockalloc.Block) {
	for len(blocks) < maxLiveFactor*s.MaxLive {
		b, err := a.Allocate(l)
		if err != nil {
			if !outOfRoom(err) || !b.IsZero() {
				t.Errorf("Allocate(%v) = %v, %v; want a block, or ErrOutOfMemory or ErrLimit", l, b, err)
			}
			break
		}
		check(t, b, l)
		fill(b, b.Size(), seed+len(blocks))
		blocks = append(blocks, b)
	}
	return blocks
}
