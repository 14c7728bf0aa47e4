package blockalloc_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// listModel is what a FreeList ought to be: a stack of addresses at hand, and the
// blocks that are live.
type listModel struct {
	carverTest
	parent *lender
	max    int
	hand   []uintptr
	live   []modelBlock
	gone   []blockalloc.Block
	number int
	script *script
}

const (
	listSize  = 40
	listAlign = 16
)

var errParent = errors.New("the parent refuses")

// took lays what the parent has lent since onto the model's stack.
func (m *listModel) took(before int) { m.hand = append(m.hand, m.parent.history[before:]...) }

// play does what the script says, with f and, when that is closed, with new lists.
// It returns the last.
func (m *listModel) play(f *blockalloc.FreeList) *blockalloc.FreeList {
	for m.script.more() {
		switch op := m.script.next(12); op {
		case 0, 1, 2, 3:
			m.allocateFrom(f)
		case 4, 5, 6:
			if i := m.script.next(max(1, len(m.live))); i < len(m.live) {
				m.end(i, f.Free(m.live[i].block))
			}
		case 7:
			if i := m.script.next(max(1, len(m.live))); i < len(m.live) {
				m.resize(f, i)
			}
		case 8:
			m.freeGone(f)
		case 9:
			m.reserve(f)
		case 10:
			if m.script.next(4) == 0 {
				m.trimmed(f.Trim())
			} else if err := f.Close(); len(m.live) > 0 {
				if !errors.Is(err, blockalloc.ErrLive) {
					m.Fatalf("Close with %d live blocks: %v", len(m.live), err)
				}
			} else if m.trimmed(err); err == nil {
				if _, err := f.Allocate(blockalloc.BlockLayout(1)); !errors.Is(err, blockalloc.ErrClosed) {
					m.Fatalf("Allocate after Close: %v", err)
				}
				f = newFreeList(m.TB, m.parent, blockalloc.Layout{Size: listSize, Align: listAlign}, m.max)
			}
		case 11: // the parent changes its mind
			m.parent.refusal, m.parent.after, m.parent.keeping = nil, m.script.next(8), nil
			if m.script.next(2) == 0 {
				m.parent.refusal = errParent
			}
			if m.script.next(4) == 0 {
				m.parent.keeping = errParent
			}
			m.parent.extra = uintptr(m.script.next(32))
		}
		m.check(f)
	}
	return f
}

func (m *listModel) allocateFrom(f *blockalloc.FreeList) {
	l := blockalloc.Layout{Size: uintptr(1 + m.script.next(listSize)), Align: 1 << m.script.next(5)}
	switch m.script.next(8) {
	case 0:
		l.Size = listSize + 1
	case 1:
		l.Align = 2 * listAlign
	}
	before := len(m.parent.history)
	b, err := f.Allocate(l)
	m.took(before)
	var want error
	switch {
	case l.Size > listSize:
		want = blockalloc.ErrOutOfMemory
	case l.Align > listAlign:
		want = blockalloc.ErrUnsupportedAlign
	case len(m.hand) > 0:
		want = nil
	case m.max > 0 && len(m.live) == m.max:
		want = blockalloc.ErrOutOfMemory
	default:
		want = errParent
	}
	if want != nil || err != nil {
		if !errors.Is(err, want) || !b.IsZero() {
			m.Fatalf("Allocate(%v) = %v, %v; want %v", l, b, err, want)
		}
		return
	}
	last := len(m.hand) - 1
	if b.Addr() != m.hand[last] || b.Size() != listSize || b.Align() != l.Align {
		m.Fatalf("Allocate(%v) = %v, want %d bytes at %#x", l, b, listSize, m.hand[last])
	}
	m.hand = m.hand[:last]
	m.number++
	m.fill(b, byte(m.number))
	m.live = append(m.live, modelBlock{m.number, b, false})
}

// end says that the live block with this index was freed.
func (m *listModel) end(i int, err error) {
	b := m.live[i]
	if err != nil {
		m.Fatalf("free of %v: %v", b.block, err)
	}
	m.filled(b.block, listSize, byte(b.number))
	m.hand = append(m.hand, b.block.Addr())
	m.gone = append(m.gone, b.block)
	m.live = slices.Delete(m.live, i, i+1)
}

func (m *listModel) resize(f *blockalloc.FreeList, i int) {
	b := m.live[i].block
	size := uintptr(m.script.next(2 * listSize))
	n, err := f.Reallocate(b, size)
	switch {
	case size == 0:
		if m.end(i, err); !n.IsZero() {
			m.Fatalf("Reallocate(%v, 0) = %v", b, n)
		}
	case n != b || size <= listSize && err != nil || size > listSize && !errors.Is(err, blockalloc.ErrOutOfMemory):
		m.Fatalf("Reallocate(%v, %d) = %v, %v", b, size, n, err)
	}
}

func (m *listModel) freeGone(f *blockalloc.FreeList) {
	if len(m.gone) == 0 {
		return
	}
	b := m.gone[len(m.gone)-1-m.script.next(min(len(m.gone), 256))]
	if slices.ContainsFunc(m.live, func(l modelBlock) bool { return l.block.Addr() == b.Addr() }) {
		return
	}
	want := blockalloc.ErrNotOwned
	if slices.Contains(m.hand, b.Addr()) {
		want = blockalloc.ErrDoubleFree
	}
	if err := f.Free(b); !errors.Is(err, want) || f.Owns(b) {
		m.Fatalf("Free(%v), which is gone: %v, want %v; owned: %v", b, err, want, f.Owns(b))
	}
}

func (m *listModel) reserve(f *blockalloc.FreeList) {
	n := m.script.next(20)
	before, had := len(m.parent.history), len(m.hand)
	err := f.Reserve(n)
	m.took(before)
	switch {
	case m.max > 0 && n > m.max:
		if !errors.Is(err, blockalloc.ErrOutOfMemory) {
			m.Fatalf("Reserve(%d) of at most %d: %v", n, m.max, err)
		}
	case err == nil:
		if len(m.hand)+len(m.live) < n {
			m.Fatalf("Reserve(%d): there are %d", n, len(m.hand)+len(m.live))
		}
	case !errors.Is(err, errParent):
		m.Fatalf("Reserve(%d): %v", n, err)
	case m.parent.keeping == nil:
		m.hand = m.hand[:had]
	}
}

// trimmed says that Trim or Close returned err.
func (m *listModel) trimmed(err error) {
	if err != nil || m.parent.keeping != nil && len(m.hand) > 0 {
		if err != errParent || m.parent.keeping == nil {
			m.Fatalf("giving blocks back: %v", err)
		}
		return
	}
	m.hand = nil
}

func (m *listModel) check(f *blockalloc.FreeList) {
	m.parent.has(len(m.hand) + len(m.live))
	for _, b := range m.live {
		if !f.Owns(b.block) {
			m.Fatalf("Owns(%v) = false", b.block)
		}
	}
	if m.max > 0 && len(m.parent.lent) > m.max {
		m.Fatalf("%d blocks, want at most %d", len(m.parent.lent), m.max)
	}
}

func playFreeList(t testing.TB, mem blockalloc.Allocator, data []byte) {
	for _, bound := range []int{0, 8} {
		parent := lenderOf(t, mem)
		f := newFreeList(t, parent, blockalloc.Layout{Size: listSize, Align: listAlign}, bound)
		m := listModel{carverTest: carverTest{t}, parent: parent, max: bound, script: &script{data}}
		f = m.play(f)
		parent.keeping = nil
		for len(m.live) > 0 {
			m.end(0, f.Free(m.live[0].block))
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		parent.has(0)
	}
}

func TestFreeListModel(t *testing.T) {
	mem := alloctest.New(t)
	randomScripts(modelScripts(), 400, func(s *script) { playFreeList(t, mem, s.data) })
}

func FuzzFreeList(f *testing.F) {
	f.Add([]byte("0000"))
	randomScripts(4, 200, func(s *script) { f.Add(s.data) })
	f.Fuzz(func(t *testing.T, data []byte) { playFreeList(t, alloctest.New(t), data) })
}
