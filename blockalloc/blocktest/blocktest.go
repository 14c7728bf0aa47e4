// Package blocktest is the conformance suite for implementations of
// [blockalloc.Allocator]:
//
//	func TestMine(t *testing.T) {
//		blocktest.Run(t, blocktest.Config{
//			New: func(testing.TB) blockalloc.Allocator { return NewMine() },
//		})
//	}
//
// Each clause of the Allocator contract is a subtest of its own. The suite needs
// about twice MaxSize of address space, but touches only the ends of large
// blocks.
package blocktest

import (
	"errors"
	"fmt"
	"math/bits"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// Config describes the implementation under test.
type Config struct {
	// New returns an allocator for one subtest, which has no live blocks.
	// It can use the testing.TB to clean up.
	New func(testing.TB) blockalloc.Allocator

	// MaxSize is the largest block, and the strictest alignment, in bytes, that
	// the allocator must serve, at least 2; the suite asks for no more. Zero means
	// 1 GiB.
	MaxSize uintptr

	// MaxLive is how many blocks of 4 KiB, or of MaxSize if that is less, the
	// allocator must serve at once, at least 2. Zero means 256.
	MaxLive int

	// Zeroed says that the allocator promises zeroed memory.
	Zeroed bool

	// SingleThreaded says that the allocator must not be used by several
	// goroutines at once. The concurrent subtests are left out.
	SingleThreaded bool
}

// Run checks the implementation that c describes.
func Run(t *testing.T, c Config) {
	if c.MaxSize == 0 {
		c.MaxSize = 1 << 30
	}
	if c.MaxLive == 0 {
		c.MaxLive = 256
	}
	s := suite{c, 0}
	s.size = s.fit(4 << 10)
	t.Run("Alignment", s.alignment)
	t.Run("UnevenLayouts", s.unevenLayouts)
	t.Run("NoOverlap", s.noOverlap)
	t.Run("ZeroSize", s.zeroSize)
	t.Run("BadLayout", s.badLayout)
	t.Run("OutOfMemory", s.outOfMemory)
	t.Run("ReallocateKeepsContent", s.reallocateKeepsContent)
	t.Run("ReallocateToZero", s.reallocateToZero)
	t.Run("FailedReallocate", s.failedReallocate)
	t.Run("DoubleFree", s.doubleFree)
	t.Run("ForeignFree", s.foreignFree)
	t.Run("WrongSizeFree", s.wrongSizeFree)
	t.Run("Raw", s.raw)
	t.Run("Owns", s.owns)
	if c.Zeroed {
		t.Run("Zeroed", s.zeroed)
	}
	if !c.SingleThreaded {
		t.Run("Concurrent", s.concurrent)
	}
}

type suite struct {
	Config
	size uintptr // of the usual block
}

// fit returns the largest power of two that is at most size and MaxSize.
func (s suite) fit(size uintptr) uintptr { return 1 << (bits.Len(uint(min(size, s.MaxSize))) - 1) }

func layout(size, align uintptr) blockalloc.Layout {
	return blockalloc.Layout{Size: size, Align: align}
}

// allocate allocates or ends the test.
func allocate(t testing.TB, a blockalloc.Allocator, l blockalloc.Layout) blockalloc.Block {
	t.Helper()
	b, err := a.Allocate(l)
	if err != nil {
		t.Fatalf("Allocate(%v): %v", l, err)
	}
	check(t, b, l)
	return b
}

// check reports a block that is not what l asked for.
func check(t testing.TB, b blockalloc.Block, l blockalloc.Layout) {
	t.Helper()
	// The address of a block aligned to its size, xored with the offset of any
	// byte inside, is that byte's address: no bit is in both.
	if last := l.Align - 1; b.Addr()^last != b.Addr()+last {
		t.Errorf("Allocate(%v): address %#x is not a multiple of the alignment", l, b.Addr())
	}
	if b.Size() < l.Size || b.Align() != l.Align || uintptr(len(b.Bytes())) != b.Size() || b.IsZero() != (l.Size == 0) || uintptr(b.Pointer()) != b.Addr() {
		t.Errorf("Allocate(%v) = %v with %d bytes", l, b, len(b.Bytes()))
	}
}

func free(t testing.TB, a blockalloc.Allocator, b blockalloc.Block) {
	t.Helper()
	if err := a.Free(b); err != nil {
		t.Errorf("Free(%v): %v", b, err)
	}
}

// fill writes a pattern that depends on seed over the first size bytes.
func fill(b blockalloc.Block, size uintptr, seed int) {
	for i := range b.Bytes()[:size] {
		b.Bytes()[i] = byte(i*7 + seed)
	}
}

// filled reports whether the first size bytes of b hold fill's pattern.
func filled(b blockalloc.Block, size uintptr, seed int) error {
	for i, got := range b.Bytes()[:size] {
		if want := byte(i*7 + seed); got != want {
			return fmt.Errorf("byte %d of %v is %#x, want %#x", i, b, got, want)
		}
	}
	return nil
}

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
	blocks := make([]blockalloc.Block, s.MaxLive)
	for i := range blocks {
		blocks[i] = allocate(t, a, blockalloc.BlockLayout(s.size))
		fill(blocks[i], s.size, i)
	}
	for i := 0; i < len(blocks); i += 2 { // freed places are given out again
		free(t, a, blocks[i])
	}
	for i := 0; i < len(blocks); i += 2 {
		blocks[i] = allocate(t, a, blockalloc.BlockLayout(s.size))
		fill(blocks[i], s.size, i)
	}
	for i, b := range blocks {
		if err := filled(b, s.size, i); err != nil {
			t.Fatalf("another block was written over this one: %v", err)
		}
		free(t, a, b)
	}
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
	if _, err := a.Reallocate(b, 64); !errors.Is(err, blockalloc.ErrBadLayout) {
		t.Errorf("Reallocate of the empty block: error %v, want ErrBadLayout", err)
	}
}

func (s suite) badLayout(t *testing.T) {
	a := s.New(t)
	const top = ^uintptr(0)>>1 + 1 // the highest power of two
	for _, l := range []blockalloc.Layout{
		blockalloc.BlockLayout(0), blockalloc.BlockLayout(999), layout(4096, 0), layout(4096, 999), layout(0, 999),
		blockalloc.BlockLayout(top), layout(^uintptr(0), 4096), layout(^uintptr(0)-4095, 1), layout(4096, top), layout(top, 1),
	} {
		b, err := a.Allocate(l)
		if !errors.Is(err, blockalloc.ErrBadLayout) || !b.IsZero() {
			t.Errorf("Allocate(%v) = %v, %v; want ErrBadLayout", l, b, err)
		}
	}
	b := allocate(t, a, blockalloc.BlockLayout(s.size))
	if n, err := a.Reallocate(b, ^uintptr(0)); !errors.Is(err, blockalloc.ErrBadLayout) || n != b {
		t.Errorf("Reallocate to %d bytes = %v, %v; want %v and ErrBadLayout", ^uintptr(0), n, err, b)
	}
	free(t, a, b)
}

// tooMuch is a size that no machine has, and that is a valid layout.
const tooMuch = 1 << (30 + (^uintptr(0)>>63)*17)

func (s suite) outOfMemory(t *testing.T) {
	a := s.New(t)
	b, err := a.Allocate(blockalloc.BlockLayout(tooMuch))
	if !errors.Is(err, blockalloc.ErrOutOfMemory) {
		if err == nil && ^uintptr(0)>>32 == 0 {
			check(t, b, blockalloc.BlockLayout(tooMuch)) // a 32-bit address space can hold it
			free(t, a, b)
			return
		}
		t.Errorf("Allocate of %d bytes: error %v, want ErrOutOfMemory", uintptr(tooMuch), err)
	}
}

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
		if err != nil {
			t.Fatalf("Reallocate(%v, %d): %v", b, next, err)
		}
		check(t, n, layout(next, l.Align))
		if err := filled(n, min(size, next), i); err != nil {
			t.Fatalf("Reallocate(%v, %d) lost content: %v", b, next, err)
		}
		b, size = n, next
	}
	free(t, a, b)
}

func (s suite) reallocateToZero(t *testing.T) {
	a := s.New(t)
	b := allocate(t, a, blockalloc.BlockLayout(s.size))
	n, err := a.Reallocate(b, 0)
	if err != nil || !n.IsZero() {
		t.Fatalf("Reallocate to 0 = %v, %v; want the empty block", n, err)
	}
	refused(t, a, b)
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
	} else if !errors.Is(err, blockalloc.ErrOutOfMemory) || n != b {
		t.Errorf("Reallocate to %d bytes = %v, %v; want %v and ErrOutOfMemory", uintptr(tooMuch), n, err, b)
	}
	if err := filled(b, s.size, 1); err != nil {
		t.Error(err)
	}
	free(t, a, b)
}

// refused checks that a does not take b back, or reallocate it.
func refused(t testing.TB, a blockalloc.Allocator, b blockalloc.Block) {
	t.Helper()
	is := func(err error) bool {
		return errors.Is(err, blockalloc.ErrDoubleFree) || errors.Is(err, blockalloc.ErrNotOwned)
	}
	if err := a.Free(b); !is(err) {
		t.Errorf("Free(%v), which is not live: error %v, want ErrDoubleFree or ErrNotOwned", b, err)
	}
	for _, size := range []uintptr{b.Size(), 2 * b.Size(), b.Size() / 2, 0} {
		if n, err := a.Reallocate(b, size); !is(err) || n != b {
			t.Errorf("Reallocate(%v, %d), which is not live = %v, %v; want the block, and ErrDoubleFree or ErrNotOwned", b, size, n, err)
		}
	}
}

func (s suite) doubleFree(t *testing.T) {
	a := s.New(t)
	b := allocate(t, a, blockalloc.BlockLayout(s.size))
	free(t, a, b)
	refused(t, a, b)
}

func (s suite) foreignFree(t *testing.T) {
	a := s.New(t)
	var heap blockalloc.Heap
	refused(t, a, allocate(t, &heap, blockalloc.BlockLayout(s.size)))
}

func (s suite) wrongSizeFree(t *testing.T) {
	a := s.New(t)
	b := allocate(t, a, blockalloc.BlockLayout(s.size))
	wrong, err := blockalloc.FromRaw(b.Pointer(), layout(s.size/2, s.size))
	if err != nil {
		t.Fatal(err)
	}
	refused(t, a, wrong)
	free(t, a, b)
}

func (s suite) raw(t *testing.T) {
	a := s.New(t)
	b := allocate(t, a, blockalloc.BlockLayout(s.size))
	fill(b, s.size, 5)
	given := b
	p, l := given.IntoRaw()
	if !given.IsZero() {
		t.Errorf("after IntoRaw the block is %v, want the empty one", given)
	}
	free(t, a, given) // gives nothing back: the memory was given away
	back, err := blockalloc.FromRaw(p, l)
	if err != nil || back != b {
		t.Fatalf("FromRaw = %v, %v; want %v", back, err, b)
	}
	if err := filled(back, s.size, 5); err != nil {
		t.Error(err)
	}
	free(t, a, back)
}

func (s suite) owns(t *testing.T) {
	a := s.New(t)
	o, ok := blockalloc.OwnerOf(a)
	if !ok {
		t.Logf("%T is no Owner", a)
		return
	}
	b := allocate(t, a, blockalloc.BlockLayout(s.size))
	if !o.Owns(b) {
		t.Errorf("Owns(%v) = false for a live block", b)
	}
	var heap blockalloc.Heap
	if foreign := allocate(t, &heap, blockalloc.BlockLayout(s.size)); o.Owns(foreign) {
		t.Errorf("Owns(%v) = true for a foreign block", foreign)
	}
	free(t, a, b)
	if o.Owns(b) || o.Owns(blockalloc.Block{}) {
		t.Error("Owns is true of a freed or an empty block")
	}
}

func (s suite) zeroed(t *testing.T) {
	a := s.New(t)
	for range 3 { // the second and third time, memory may be used again
		b := allocate(t, a, blockalloc.BlockLayout(s.fit(64<<10)))
		for i, v := range b.Bytes() {
			if v != 0 {
				t.Fatalf("byte %d of fresh %v is %#x", i, b, v)
			}
		}
		for i := range b.Bytes() {
			b.Bytes()[i] = 0xff
		}
		free(t, a, b)
	}
}
