package blockalloc_test

import (
	"errors"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// slabModel holds what a Slab does against what it should do: which blocks are live
// and what is in them.
type slabModel struct {
	t      *testing.T
	slab   *blockalloc.Slab
	parent *slabParent
	live   []slabEntry
	used   map[uintptr]int // every 8 bytes of live blocks: an index of live
	gone   []blockalloc.Block
}

type slabEntry struct {
	block blockalloc.Block
	size  uintptr // asked for
	mark  byte    // in each byte that was asked for
}

func (m *slabModel) add(b blockalloc.Block, l blockalloc.Layout, mark byte) {
	if b.Size() < l.Size || b.Addr()%l.Align != 0 || b.Align() != l.Align {
		m.t.Fatalf("%v was asked for, and is %v", l, b)
	}
	at := len(m.live)
	for a := b.Addr() &^ 7; a < b.Addr()+b.Size(); a += 8 {
		if other, ok := m.used[a]; ok {
			m.t.Fatalf("%v overlaps %v", b, m.live[other].block)
		}
		m.used[a] = at
	}
	m.live = append(m.live, slabEntry{b, l.Size, mark})
	m.write(at)
}

func (m *slabModel) write(at int) {
	e := m.live[at]
	for i := range e.block.Bytes()[:e.size] {
		e.block.Bytes()[i] = e.mark
	}
}

// check looks at the first size bytes of a block.
func (m *slabModel) check(b blockalloc.Block, size uintptr, mark byte) {
	for i, v := range b.Bytes()[:size] {
		if v != mark {
			m.t.Fatalf("byte %d of %v is %#x, want %#x", i, b, v, mark)
		}
	}
}

func (m *slabModel) remove(at int) {
	b := m.live[at].block
	for a := b.Addr() &^ 7; a < b.Addr()+b.Size(); a += 8 {
		delete(m.used, a)
	}
	last := len(m.live) - 1
	if at != last {
		moved := m.live[last]
		m.live[at] = moved
		for a := moved.block.Addr() &^ 7; a < moved.block.Addr()+moved.block.Size(); a += 8 {
			m.used[a] = at
		}
	}
	m.live = m.live[:last]
}

// layout makes one of two bytes: most often a small one, and rarely one for the parent.
func slabLayout(x, y byte) blockalloc.Layout {
	l := blockalloc.Layout{Size: 1 + uintptr(x)<<(y%4)>>1, Align: 1 << (y >> 4 % 12)}
	if y>>4 > 4 {
		l.Align = 8
	}
	return l
}

// run reads operations from data, three bytes each.
func (m *slabModel) run(data []byte) {
	for ; len(data) >= 3; data = data[3:] {
		op, x, y := data[0]%16, data[1], data[2]
		switch {
		case op < 6:
			l := slabLayout(x, y)
			b, err := m.slab.Allocate(l)
			if err != nil {
				if m.parent.limit == 0 || !errors.Is(err, blockalloc.ErrOutOfMemory) {
					m.t.Fatalf("Allocate(%v): %v", l, err)
				}
				continue
			}
			m.add(b, l, x^y)
		case op < 10 && len(m.live) > 0:
			at := (int(x) + int(y)<<8) % len(m.live)
			e := m.live[at]
			m.check(e.block, e.size, e.mark)
			if err := m.slab.Free(e.block); err != nil {
				m.t.Fatalf("Free(%v): %v", e.block, err)
			}
			m.gone = append(m.gone, e.block)
			m.remove(at)
		case op < 12 && len(m.live) > 0:
			m.reallocate((int(x)+int(y)<<8)%len(m.live), slabLayout(y, x).Size, x+y)
		case op == 12 && len(m.gone) > 0:
			b := m.gone[(int(x)+int(y)<<8)%len(m.gone)]
			if _, again := m.used[b.Addr()&^7]; again {
				continue // its memory is used again
			}
			err := m.slab.Free(b)
			if !errors.Is(err, blockalloc.ErrDoubleFree) && !errors.Is(err, blockalloc.ErrNotOwned) || m.slab.Owns(b) {
				m.t.Fatalf("second Free(%v): error %v", b, err)
			}
		case op == 13 && len(m.live) > 0:
			m.find((int(x) + int(y)<<8) % len(m.live))
		case op == 14 && x < 64:
			if err := m.slab.Trim(); err != nil {
				m.t.Fatal(err)
			}
		case op == 14 && x < 80 && len(m.live) > 0:
			if err := m.slab.Close(); !errors.Is(err, blockalloc.ErrLive) {
				m.t.Fatalf("Close with %d live blocks: error %v, want ErrLive", len(m.live), err)
			}
		case op == 15 && x < 64:
			m.stats()
		}
	}
}

func (m *slabModel) reallocate(at int, size uintptr, mark byte) {
	e := m.live[at]
	n, err := m.slab.Reallocate(e.block, size)
	if err != nil {
		if m.parent.limit == 0 || !errors.Is(err, blockalloc.ErrOutOfMemory) || n != e.block {
			m.t.Fatalf("Reallocate(%v, %d) = %v, %v", e.block, size, n, err)
		}
		m.check(e.block, e.size, e.mark)
		return
	}
	m.check(n, min(size, e.size), e.mark)
	m.remove(at)
	m.add(n, blockalloc.Layout{Size: size, Align: e.block.Align()}, mark)
}

// find asks for a byte of a live block, and frees what begins there if it is not the
// block.
func (m *slabModel) find(at int) {
	e := m.live[at]
	offset := uintptr(e.mark) % e.size
	if b, ok := m.slab.Find(unsafe.Add(e.block.Pointer(), offset)); ok {
		if b.Addr() != e.block.Addr() || b.Size() != e.block.Size() || b.Align() < e.block.Align() || !m.slab.Owns(b) {
			m.t.Fatalf("Find of byte %d of %v = %v", offset, e.block, b)
		}
	} else if e.block.Size() <= 512 && e.block.Align() <= 512 {
		m.t.Fatalf("Find of byte %d of %v finds nothing", offset, e.block)
	}
	if offset == 0 {
		return
	}
	inner, err := blockalloc.FromRaw(unsafe.Add(e.block.Pointer(), offset), blockalloc.Layout{Size: e.block.Size(), Align: 1})
	if err != nil {
		m.t.Fatal(err)
	}
	if err := m.slab.Free(inner); !errors.Is(err, blockalloc.ErrNotOwned) {
		m.t.Fatalf("Free of byte %d of %v: error %v, want ErrNotOwned", offset, e.block, err)
	}
}

// stats holds the Slab's figures against the model's.
func (m *slabModel) stats() {
	st := m.slab.Stats()
	var size int64
	for _, e := range m.live {
		size += int64(e.block.Size())
	}
	if int(st.InUse+st.Large) != len(m.live) || st.InUseBytes+st.LargeBytes != size || int(st.Blocks+st.Large) != m.parent.blocks() || int(st.BlockBytes+st.LargeBytes) != m.parent.size {
		m.t.Fatalf("%d blocks of %d bytes are live, and %d of the parent's of %d bytes, but %+v", len(m.live), size, m.parent.blocks(), m.parent.size, st)
	}
}

func (m *slabModel) finish() {
	m.stats()
	for len(m.live) > 0 {
		e := m.live[0]
		m.check(e.block, e.size, e.mark)
		slabFree(m.t, m.slab, e.block)
		m.remove(0)
	}
	closeSlab(m.t, m.slab)
}

func newSlabModel(t *testing.T, maxEmpty, limit int) *slabModel {
	parent := newSlabParent(t)
	parent.limit = limit
	s := newSlab(t, parent, 4<<10)
	s.MaxEmpty = maxEmpty
	return &slabModel{t: t, slab: s, parent: parent, used: make(map[uintptr]int)}
}

// TestSlabModel runs random operations.
func TestSlabModel(t *testing.T) {
	operations := 40_000
	if raceEnabled || testing.Short() {
		operations /= 4
	}
	for _, c := range []struct{ maxEmpty, limit int }{{0, 0}, {-1, 0}, {10, 0}, {0, 20}} {
		m := newSlabModel(t, c.maxEmpty, c.limit)
		rnd := rand.New(rand.NewPCG(uint64(c.limit), uint64(c.maxEmpty)))
		data := make([]byte, 3*operations)
		for i := range data {
			data[i] = byte(rnd.Uint32())
		}
		// Phases in which blocks become more, and others in which they become fewer.
		for i := 0; i < operations; i++ {
			if i/4000%2 == 1 && data[3*i]%16 < 4 {
				data[3*i] = 6
			}
		}
		m.run(data)
		m.finish()
	}
}

// FuzzSlab reads operations from data: see slabModel.run.
func FuzzSlab(f *testing.F) {
	f.Add([]byte{0, 12, 0, 0, 200, 3, 6, 0, 0, 12, 0, 0, 10, 9, 9, 13, 0, 0, 14, 0, 0}, false)
	f.Add([]byte{1, 255, 3, 1, 255, 3, 14, 70, 0, 15, 0, 0, 10, 255, 255, 7, 0, 0, 7, 0, 0, 14, 1, 1}, true)
	f.Fuzz(func(t *testing.T, data []byte, limited bool) {
		limit := 0
		if limited {
			limit = 4
		}
		m := newSlabModel(t, 0, limit)
		m.run(data)
		m.finish()
	})
}
