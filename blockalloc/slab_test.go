package blockalloc_test

import (
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"strings"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
)

func newSlab(t testing.TB, parent blockalloc.Allocator, blockSize uintptr) *blockalloc.Slab {
	t.Helper()
	s, err := blockalloc.NewSlab(parent, blockSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // the address space of 32 bits is little
	return s
}

func slabAllocate(t testing.TB, s *blockalloc.Slab, size uintptr) blockalloc.Block {
	t.Helper()
	b, err := s.Allocate(blockalloc.Layout{Size: size, Align: 8})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func slabFree(t testing.TB, s *blockalloc.Slab, blocks ...blockalloc.Block) {
	t.Helper()
	for _, b := range blocks {
		if err := s.Free(b); err != nil {
			t.Fatal(err)
		}
	}
}

// closeSlab checks that nothing is left when a test is over and all is freed.
func closeSlab(t testing.TB, s *blockalloc.Slab) {
	t.Helper()
	if err := s.Trim(); err != nil || s.Stats() != (blockalloc.SlabStats{}) {
		t.Errorf("Trim when all is freed: %v, %+v", err, s.Stats())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if p, ok := s.Parent().(*slabParent); ok && (p.blocks() != 0 || p.size != 0) {
		t.Errorf("after Close the parent has %d live blocks of %d bytes", p.blocks(), p.size)
	}
}

// slabParents are what a Slab can stand on.
func slabParents() map[string]func(testing.TB) blockalloc.Allocator {
	parents := map[string]func(testing.TB) blockalloc.Allocator{
		"Heap":    func(testing.TB) blockalloc.Allocator { return new(blockalloc.Heap) },
		"Default": func(testing.TB) blockalloc.Allocator { return blockalloc.Default() },
		"Larger": func(t testing.TB) blockalloc.Allocator {
			parent := newSlabParent(t)
			parent.larger = 100
			return parent
		},
		"Slab": func(t testing.TB) blockalloc.Allocator { // of 64 KiB slots
			return newSlab(t, alloctest.New(t), 1<<20)
		},
	}
	if hasSystem {
		parents["System"] = func(testing.TB) blockalloc.Allocator { return new(blockalloc.System) }
	}
	return parents
}

func TestSlabConforms(t *testing.T) {
	t.Parallel()
	for name, parent := range slabParents() {
		for blockSize, maxSize := range map[uintptr]uintptr{4 << 10: 512, 64 << 10: 16 << 20, 4 << 20: 16 << 20} {
			if blockSize == 4<<20 && name != "Default" {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", name, blockSize), func(t *testing.T) {
				c := slabConfig(blocktest.Config{
					New: func(t testing.TB) blockalloc.Allocator {
						return newSlab(t, parent(t), blockSize)
					},
					MaxSize: maxSize,
				})
				if blockSize == 4<<20 {
					c.Check = nil // Stats looks at up to half a million slots a block
				}
				blocktest.Run(t, c)
			})
		}
	}
}

func TestNewSlabRefuses(t *testing.T) {
	for _, size := range []uintptr{0, 1, 2 << 10, 999, 3 << 10, 64<<10 - 1, 8 << 20, ^uintptr(0)} {
		if _, err := blockalloc.NewSlab(alloctest.New(t), size); !errors.Is(err, blockalloc.ErrBadLayout) || !strings.Contains(err.Error(), "NewSlab") {
			t.Errorf("NewSlab with blocks of %d bytes: error %v, want ErrBadLayout", size, err)
		}
	}
	parent := newSlabParent(t)
	s := newSlab(t, parent, 64<<10)
	if s.Parent() != blockalloc.Allocator(parent) || parent.allocates != 0 {
		t.Errorf("a new Slab has the parent %v and has asked it %d times", s.Parent(), parent.allocates)
	}
}

// TestSlabClasses tries every size with every alignment: the slot is aligned, large
// enough, and not larger than promised.
func TestSlabClasses(t *testing.T) {
	for _, blockSize := range []uintptr{4 << 10, 64 << 10, 4 << 20} {
		s := newSlab(t, newSlabParent(t), blockSize)
		step := max(1, blockSize>>16)
		if raceEnabled {
			step *= 37
		}
		for size := uintptr(1); size <= blockSize/8; size += step {
			for align := uintptr(1); align <= blockSize/8; align *= 2 {
				b, err := s.Allocate(blockalloc.Layout{Size: size, Align: align})
				if err != nil {
					t.Fatal(err)
				}
				rounded := (max(size, 8) + align - 1) &^ (align - 1) // the least that a slot with the next beside it can have
				if b.Size() < size || b.Addr()%align != 0 || b.Align() != align {
					t.Fatalf("size %d aligned to %d is served by %v", size, align, b)
				}
				if b.Size() > rounded+max(7, rounded/4) {
					t.Fatalf("size %d aligned to %d is served by %v: more than a quarter is lost", size, align, b)
				}
				again, err := s.Allocate(blockalloc.Layout{Size: b.Size(), Align: b.Size() & -b.Size()})
				if err != nil || again.Size() != b.Size() {
					t.Fatalf("a layout of the class of %d bytes = %v, %v", b.Size(), again, err)
				}
				slabFree(t, s, b, again)
			}
		}
		if st := s.Stats(); st.LargeBlocks != 0 || st.LiveSlots != 0 || st.Blocks != st.EmptyBlocks {
			t.Errorf("afterwards: %+v", st)
		}
		closeSlab(t, s)
	}
}

// TestSlabLarge: what is larger than an eighth of a block, or more strictly aligned,
// is the parent's, and comes back to it.
func TestSlabLarge(t *testing.T) {
	parent := newSlabParent(t)
	s := newSlab(t, parent, 64<<10)
	for _, l := range []blockalloc.Layout{{Size: 8<<10 + 1, Align: 8}, {Size: 100, Align: 16 << 10}, {Size: 1 << 20, Align: 1 << 20}} {
		b, err := s.Allocate(l)
		if err != nil {
			t.Fatal(err)
		}
		if !parent.Owns(b) || !s.Owns(b) || b.Layout() != l {
			t.Errorf("Allocate(%v) = %v; want a block of the parent's", l, b)
		}
		if st := s.Stats(); st.LargeBlocks != 1 || st.LargeBytes != int64(l.Size) || st.Blocks != 0 {
			t.Errorf("with %v live: %+v", b, st)
		}
		if got, ok := s.Find(unsafe.Add(b.Pointer(), l.Size-1)); !ok || got != b {
			t.Errorf("Find of the last byte of %v: %v, %v", b, got, ok)
		}
		if err := s.Close(); !errors.Is(err, blockalloc.ErrLive) {
			t.Errorf("Close with %v live: error %v, want ErrLive", b, err)
		}
		parent.failFree = true
		if err := s.Free(b); err != errSlabInjected || !s.Owns(b) {
			t.Errorf("Free that the parent refuses: error %v, owned afterwards: %t; want the parent's error and true", err, s.Owns(b))
		}
		parent.failFree = false
		slabFree(t, s, b)
		if err := s.Free(b); !errors.Is(err, blockalloc.ErrDoubleFree) {
			t.Errorf("second Free: error %v, want ErrDoubleFree", err)
		}
	}
	b, err := s.Allocate(blockalloc.Layout{Size: 8 << 10, Align: 8 << 10})
	if err != nil || s.Stats().LargeBlocks != 0 {
		t.Errorf("8 KiB aligned to itself: %v, %+v; want a slot", err, s.Stats())
	}
	slabFree(t, s, b)
}

// TestSlabReallocate follows a block through slots and the parent and back.
func TestSlabReallocate(t *testing.T) {
	parent := newSlabParent(t)
	s := newSlab(t, parent, 64<<10)
	b := slabAllocate(t, s, 100)
	fill := func(n uintptr) {
		for i := range b.Bytes()[:n] {
			b.Bytes()[i] = byte(i*5 + 1)
		}
	}
	fill(100)
	size := uintptr(100)
	for _, step := range []struct {
		size  uintptr
		stays bool
	}{{112, true}, {97, true}, {96, false}, {8 << 10, false}, {9 << 10, false}, {40 << 10, false}, {40 << 10, true}, {7 << 10, false}, {5, false}, {8, true}} {
		n, err := s.Reallocate(b, step.size)
		if err != nil || n.Size() < step.size || (n.Addr() == b.Addr()) != step.stays && parent.reallocated == 0 {
			t.Fatalf("Reallocate(%v, %d) = %v, %v; stays: want %t", b, step.size, n, err, step.stays)
		}
		for i, v := range n.Bytes()[:min(size, step.size)] {
			if v != byte(i*5+1) {
				t.Fatalf("Reallocate(%v, %d): byte %d is %d", b, step.size, i, v)
			}
		}
		b, size = n, step.size
		fill(size)
	}
	if parent.reallocated != 2 {
		t.Errorf("the parent reallocated %d times, want 2", parent.reallocated)
	}
	slabFree(t, s, b)

	b, _ = s.Allocate(blockalloc.Layout{Size: 128, Align: 64})
	if n, err := s.Reallocate(b, 100); err != nil || n.Addr() != b.Addr() || n.Requested() != 100 {
		t.Errorf("Reallocate(%v, 100) = %v, %v; want it to stay, for no smaller slot is aligned so", b, n, err)
	}
	slabFree(t, s, b)

	large := slabAllocate(t, s, 10<<10)
	parent.failReallocate = true
	if n, err := s.Reallocate(large, 20<<10); err != errSlabInjected || n != large || !s.Owns(large) {
		t.Errorf("Reallocate that the parent refuses = %v, %v; want the block as it was and the parent's error", n, err)
	}
	if n, err := s.Reallocate(large, 0); err != nil || !n.IsZero() || s.Owns(large) {
		t.Errorf("Reallocate to zero = %v, %v", n, err)
	}
	closeSlab(t, s)
}

// TestSlabRefusesForeign frees what is no live block of the Slab, and what would
// fault if it were followed.
func TestSlabRefusesForeign(t *testing.T) {
	s := newSlab(t, blockalloc.Default(), 64<<10)
	const slots = 64 << 10 / 80
	b := slabAllocate(t, s, 80)
	last := b
	for range slots {
		last = slabAllocate(t, s, 80)
	}
	at := func(addr, size uintptr) blockalloc.Block {
		f, err := blockalloc.FromRaw(unsafe.Add(b.Pointer(), addr-b.Addr()), blockalloc.Layout{Size: size, Align: 1})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	block := b.Addr() &^ (64<<10 - 1)
	foreign := map[string]blockalloc.Block{
		"of an inner byte":        at(b.Addr()+1, 80),
		"of the last byte":        at(b.Addr()+79, 80),
		"of the middle":           at(b.Addr()+40, 40),
		"of another size":         at(b.Addr(), 64),
		"of a larger size":        at(b.Addr(), 81),
		"behind the last slot":    at(block+slots*80, 80),
		"of the last byte of all": at(block+64<<10-1, 80),
		"of the parent":           at(block, 64<<10),
	}
	if hasSystem && !raceEnabled { // elsewhere the Go runtime objects to such pointers
		foreign["in a low page"] = at(8<<10, 80)
		foreign["at the end of all"] = at(^uintptr(0)-79, 80)
		if bits.UintSize == 64 {
			foreign["at too high an address"] = at(1<<(bits.UintSize-2)|b.Addr(), 80)
		}
		foreign["in the block before it"] = at(block-80, 80)
	}
	for name, f := range foreign {
		if err := s.Free(f); !errors.Is(err, blockalloc.ErrNotOwned) {
			t.Errorf("Free %s: error %v, want ErrNotOwned", name, err)
		}
		if n, err := s.Reallocate(f, 10); !errors.Is(err, blockalloc.ErrNotOwned) || n != f {
			t.Errorf("Reallocate %s = %v, %v; want the block and ErrNotOwned", name, n, err)
		}
		if s.Owns(f) {
			t.Errorf("the Slab owns the block %s", name)
		}
	}
	slabFree(t, s, b)
	if err := s.Free(b); !errors.Is(err, blockalloc.ErrDoubleFree) {
		t.Errorf("second Free: error %v, want ErrDoubleFree", err)
	}
	if _, err := s.Reallocate(b, 80); !errors.Is(err, blockalloc.ErrDoubleFree) {
		t.Errorf("Reallocate of a freed block: error %v, want ErrDoubleFree", err)
	}
	slabFree(t, s, last)
	if st := s.Stats(); st.LiveSlots != slots-1 {
		t.Errorf("%d slots are live, want %d", st.LiveSlots, slots-1)
	}
}

// A nowhere makes up blocks at an address. A Slab does not look into its blocks.
type nowhere struct{ addr uintptr }

func (n *nowhere) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	b, err := blockalloc.FromRaw(unsafe.Add(unsafe.Pointer(nil), n.addr), l)
	n.addr += l.Size
	return b, err
}

func (n *nowhere) Reallocate(b blockalloc.Block, _ uintptr) (blockalloc.Block, error) {
	return b, blockalloc.ErrOutOfMemory
}

func (n *nowhere) Free(b blockalloc.Block) error {
	n.addr -= b.Size()
	return nil
}

// TestSlabAddresses: blocks are served wherever they are, or given back where a
// program has no addresses.
func TestSlabAddresses(t *testing.T) {
	if raceEnabled || !hasSystem {
		t.Log("the Go runtime objects to made up pointers here")
		return
	}
	addrs := map[uintptr]bool{1 << 20: true, 1<<31 - 64<<10: true, 1<<32 - 128<<10: true}
	if bits.UintSize == 64 {
		for shift, fine := range map[uint]bool{36: true, 43: true, 47: true, 48: false, 49: false, 63: false} {
			addrs[uintptr(1)<<shift] = fine
			addrs[uintptr(1)<<shift-64<<10] = fine || shift == 48
		}
	}
	for addr, fine := range addrs {
		parent := &nowhere{addr}
		s := newSlab(t, parent, 64<<10)
		b, err := s.Allocate(blockalloc.BlockLayout(8 << 10))
		if !fine {
			if !errors.Is(err, blockalloc.ErrOutOfMemory) || parent.addr != addr || s.Stats().Blocks != 0 {
				t.Errorf("a block at %#x: %v, %v; want ErrOutOfMemory, and that it goes back", addr, b, err)
			}
			continue
		}
		if err != nil || b.Addr() != addr || !s.Owns(b) {
			t.Errorf("a block at %#x: %v, %v", addr, b, err)
			continue
		}
		if found, ok := s.Find(unsafe.Add(b.Pointer(), 8<<10-1)); !ok || found.Addr() != b.Addr() || found.Layout() != b.Layout() {
			t.Errorf("a block at %#x: Find = %v, %t", addr, found, ok)
		}
		slabFree(t, s, b)
		closeSlab(t, s)
	}
}

// TestSlabFind asks for every byte of some blocks.
func TestSlabFind(t *testing.T) {
	for _, size := range []uintptr{8, 24, 80, 112, 448, 1000, 8 << 10} {
		s := newSlab(t, newSlabParent(t), 64<<10)
		rnd := rand.New(rand.NewPCG(1, uint64(size)))
		live := make(map[uintptr]blockalloc.Block)
		blocks := make(map[uintptr]unsafe.Pointer) // to some byte of each
		for range 2 * (64 << 10) / size {
			b := slabAllocate(t, s, size)
			live[b.Addr()] = b
			blocks[b.Addr()&^(64<<10-1)] = b.Pointer()
		}
		for addr, b := range live {
			if rnd.IntN(2) == 0 && len(live) > 1 {
				slabFree(t, s, b)
				delete(live, addr)
			}
		}
		for block, some := range blocks {
			for offset := range uintptr(64 << 10) {
				addr := block + offset
				slot := slabSlotAt(live, block, offset)
				got, ok := s.Find(unsafe.Add(some, addr-uintptr(some)))
				if ok != !slot.IsZero() || got.Addr() != slot.Addr() || got.Size() != slot.Size() {
					t.Fatalf("Find(%#x) = %v, %t; want %v", addr, got, ok, slot)
				}
				if ok && (got.Addr()%got.Align() != 0 || got.Align() < 8) {
					t.Fatalf("Find(%#x) = %v, which is not aligned as it says", addr, got)
				}
			}
		}
		for _, b := range live {
			found, _ := s.Find(unsafe.Add(b.Pointer(), b.Size()-1))
			slabFree(t, s, found)
			if _, ok := s.Find(b.Pointer()); ok {
				t.Fatalf("Find finds %v, which is freed", b)
			}
		}
		for _, p := range []unsafe.Pointer{nil, unsafe.Pointer(s)} {
			if b, ok := s.Find(p); ok {
				t.Errorf("Find(%#x) = %v", p, b)
			}
		}
		closeSlab(t, s)
	}
}

// slabSlotAt returns the live block that holds the byte at offset of block, by the slots'
// size alone.
func slabSlotAt(live map[uintptr]blockalloc.Block, block, offset uintptr) blockalloc.Block {
	for _, b := range live {
		return live[block+offset/b.Size()*b.Size()]
	}
	return blockalloc.Block{}
}

// TestSlabNoAllocations: neither slots nor blocks that are used again cost Go memory.
func TestSlabNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector allocates")
		return
	}
	s := newSlab(t, new(blockalloc.Heap), 4<<10)
	var held [64]blockalloc.Block // of 16 blocks, four of which are kept
	s.MaxEmpty = len(held)
	if n := testing.AllocsPerRun(100, func() {
		for i := range held {
			held[i] = slabAllocate(t, s, 512)
			held[i], _ = s.Reallocate(held[i], 500)
			if _, ok := s.Find(held[i].Pointer()); !ok || !s.Owns(held[i]) {
				t.Fatal("a live block is not known")
			}
		}
		slabFree(t, s, held[:]...)
	}); n != 0 {
		t.Errorf("%v Go allocations", n)
	}
	closeSlab(t, s)
}
