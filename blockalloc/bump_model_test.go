package blockalloc_test

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// script is a test's source of choices: random bytes, or a fuzzer's.
type script struct{ data []byte }

func (s *script) more() bool { return len(s.data) > 0 }

// next returns a number below n, at most 256.
func (s *script) next(n int) int {
	if len(s.data) == 0 {
		return 0
	}
	v := int(s.data[0])
	s.data = s.data[1:]
	return v % n
}

// layout returns mostly small layouts, some that do not fit.
func (s *script) layout() blockalloc.Layout {
	size := uintptr(1 + s.next(256))
	if kind := s.next(8); kind == 7 {
		size *= 64
	} else if kind > 3 {
		size = size%16 + 1
	}
	return blockalloc.Layout{Size: size, Align: 1 << s.next(10)}
}

// modelScripts is how many scripts a model is held against.
func modelScripts() int {
	if raceEnabled || testing.Short() {
		return 200
	}
	return 2000
}

// randomScripts runs f with n scripts that are the same each time.
func randomScripts(n, length int, f func(*script)) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range n {
		s := &script{make([]byte, length)}
		for i := range s.data {
			s.data[i] = byte(rnd.Uint32())
		}
		f(s)
	}
}

// bumpModel is what a Bump, a Fixed or a Scoped ought to be: a list of blocks from
// the beginning of its memory to the top, in which the last is live.
type bumpModel struct {
	carverTest
	addr, size uintptr // of the memory
	blocks     []modelBlock
	gone       []blockalloc.Block
	last       int // the number of the block made last
	script     *script
}

type modelBlock struct {
	number int
	block  blockalloc.Block
	freed  bool
}

func (m *bumpModel) top() uintptr {
	if len(m.blocks) == 0 {
		return 0
	}
	b := m.blocks[len(m.blocks)-1].block
	return b.Addr() + b.Size() - m.addr
}

// cut leaves the first n blocks, and fewer if the last of them are freed.
func (m *bumpModel) cut(n int) {
	for _, b := range m.blocks[n:] {
		if !b.freed {
			m.filled(b.block, b.block.Size(), byte(b.number))
			m.gone = append(m.gone, b.block)
		}
	}
	for n > 0 && m.blocks[n-1].freed {
		n--
	}
	m.blocks = m.blocks[:n]
}

// allocate allocates what the script says from a and holds it against the model.
func (m *bumpModel) allocate(a blockalloc.Allocator) {
	l := m.script.layout()
	b, err := a.Allocate(l)
	m.allocated(l, b, err)
}

// allocated holds an allocation against the model and reports whether it succeeded.
func (m *bumpModel) allocated(l blockalloc.Layout, b blockalloc.Block, err error) bool {
	want := (m.addr + m.top() + l.Align - 1) / l.Align * l.Align
	if want+l.Size > m.addr+m.size {
		if !errors.Is(err, blockalloc.ErrOutOfMemory) {
			m.Fatalf("with %d of %d bytes used, %v was allocated: %v, %v", m.top(), m.size, l, b, err)
		}
		return false
	}
	if err != nil || b.Addr() != want || b.Size() != l.Size || b.Align() != l.Align {
		m.Fatalf("with %d of %d bytes used, allocated %v, %v; want %v at %#x", m.top(), m.size, b, err, l, want)
	}
	m.last++
	m.blocks = append(m.blocks, modelBlock{m.last, b, false})
	m.fill(b, byte(m.last))
	return true
}

// choose returns the place of a live block among those from first on, often the
// newest, -1 if there is none.
func (m *bumpModel) choose(first int) int {
	if len(m.blocks) == first {
		return -1
	}
	i := len(m.blocks) - 1
	if m.script.next(2) == 0 {
		i = first + m.script.next(len(m.blocks)-first)
	}
	for m.blocks[i].freed { // the last one never is
		i++
	}
	return i
}

func (m *bumpModel) free(a blockalloc.Allocator, i int) {
	b := m.blocks[i]
	m.filled(b.block, b.block.Size(), byte(b.number))
	if err := a.Free(b.block); err != nil {
		m.Fatalf("Free(%v): %v", b.block, err)
	}
	m.freed(i)
}

func (m *bumpModel) freed(i int) {
	m.gone = append(m.gone, m.blocks[i].block)
	m.blocks[i].freed = true
	m.cut(len(m.blocks))
}

func (m *bumpModel) reallocate(a blockalloc.Allocator, i int) {
	old := m.blocks[i]
	size := m.script.layout().Size
	if m.script.next(8) == 0 {
		size = 0
	}
	n, err := a.Reallocate(old.block, size)
	newest := i == len(m.blocks)-1
	switch {
	case size == 0:
		if err != nil || !n.IsZero() {
			m.Fatalf("Reallocate(%v, 0) = %v, %v", old.block, n, err)
		}
		m.freed(i)
		return
	case size <= old.block.Size() || newest && old.block.Addr()+size <= m.addr+m.size:
		if err != nil || n.Addr() != old.block.Addr() || n.Size() != size {
			m.Fatalf("Reallocate(%v, %d) = %v, %v; want it where it is", old.block, size, n, err)
		}
		m.filled(n, min(size, old.block.Size()), byte(old.number))
		m.fill(n, byte(old.number))
		m.blocks[i].block = n
		return
	case newest:
		if n != old.block || !errors.Is(err, blockalloc.ErrOutOfMemory) {
			m.Fatalf("Reallocate(%v, %d) = %v, %v; want ErrOutOfMemory", old.block, size, n, err)
		}
		return
	}
	var start []byte
	if err == nil {
		start = append(start, n.Bytes()[:old.block.Size()]...)
	}
	if m.allocated(blockalloc.Layout{Size: size, Align: old.block.Align()}, n, err) {
		m.filled(old.block, uintptr(len(start)), byte(old.number))
		if string(start) != string(old.block.Bytes()) {
			m.Fatalf("Reallocate(%v, %d) lost content", old.block, size)
		}
		m.freed(i)
	} else if n != old.block {
		m.Fatalf("failed Reallocate(%v, %d) = %v", old.block, size, n)
	}
}

// freeAgain frees a block that is gone, unless its twin is live.
func (m *bumpModel) freeAgain(a blockalloc.Allocator) {
	if len(m.gone) == 0 {
		return
	}
	b := m.gone[len(m.gone)-1-m.script.next(min(len(m.gone), 256))]
	if m.twin(b) {
		return
	}
	if err := a.Free(b); !errors.Is(err, blockalloc.ErrDoubleFree) && !errors.Is(err, blockalloc.ErrNotOwned) {
		m.Fatalf("Free(%v), which is gone: %v", b, err)
	}
}

// twin reports whether a live block cannot be told from b.
func (m *bumpModel) twin(b blockalloc.Block) bool {
	for _, other := range m.blocks {
		if !other.freed && other.block.Addr() == b.Addr() && other.block.Size() == b.Size() {
			return true
		}
	}
	return false
}

// check holds everything against a, which has the blocks from first to end.
func (m *bumpModel) check(a interface {
	blockalloc.Owner
	Used() uintptr
}, first, end int) {
	if a.Used() != m.top() {
		m.Fatalf("%d bytes used, want %d", a.Used(), m.top())
	}
	for i, b := range m.blocks {
		if a.Owns(b.block) != (!b.freed && i >= first && i < end) && !(b.freed && m.twin(b.block)) {
			m.Fatalf("Owns(%v) = %v", b.block, a.Owns(b.block))
		}
	}
	if n := len(m.gone); n > 0 && a.Owns(m.gone[n-1]) && !m.twin(m.gone[n-1]) {
		m.Fatalf("Owns(%v), which is gone", m.gone[n-1])
	}
}

// play does with a what the script says.
func (m *bumpModel) play(a bumping) {
	type mark struct {
		mark   blockalloc.Mark
		depth  int
		number int // of the newest block
	}
	var marks []mark
	for m.script.more() {
		switch op := m.script.next(16); op {
		case 0, 1, 2, 3, 4, 5:
			m.allocate(a)
		case 6, 7, 8:
			if i := m.choose(0); i >= 0 {
				m.free(a, i)
			}
		case 9, 10, 11:
			if i := m.choose(0); i >= 0 {
				m.reallocate(a, i)
			}
		case 12:
			m.freeAgain(a)
		case 13:
			k := mark{a.Mark(), len(m.blocks), 0}
			if k.depth > 0 {
				k.number = m.blocks[k.depth-1].number
			}
			marks = append(marks, k)
		case 14:
			if len(marks) == 0 {
				continue
			}
			k := marks[m.script.next(min(len(marks), 256))]
			err := a.Release(k.mark)
			if k.depth > len(m.blocks) || k.depth > 0 && m.blocks[k.depth-1].number != k.number {
				if !errors.Is(err, blockalloc.ErrDoubleFree) {
					m.Fatalf("Release of a stale mark: %v", err)
				}
				continue
			}
			if err != nil {
				m.Fatalf("Release: %v", err)
			}
			m.cut(k.depth)
		case 15:
			if m.script.next(8) == 0 {
				a.Reset()
				m.cut(0)
			}
		}
		m.check(a, 0, len(m.blocks))
	}
	m.cut(0) // checks the content
}

// playBumping plays a script on a Bump and on a Fixed.
func playBumping(t testing.TB, mem blockalloc.Allocator, data []byte) {
	parent := lenderOf(t, mem)
	bump := newBump(t, parent, 3000)
	model := bumpModel{carverTest: carverTest{t}, addr: parent.history[0], size: 3000, script: &script{data}}
	model.play(bump)
	if err := bump.Close(); err != nil {
		t.Fatal(err)
	}

	around := carverTest{t}.allocate(mem, 3000, 64)
	carverTest{t}.fill(around, 77)
	fixed := newFixed(t, around.Bytes()[21:2021])
	model = bumpModel{carverTest: carverTest{t}, addr: around.Addr() + 21, size: 2000, script: &script{data}}
	model.play(fixed)
	for i, v := range around.Bytes() {
		if (i < 21 || i >= 2021) && v != byte(i)+77 {
			t.Fatalf("byte %d was written, outside the buffer", i)
		}
	}
	carverTest{t}.free(mem, around)
}

func TestBumpModel(t *testing.T) {
	mem := alloctest.New(t)
	randomScripts(modelScripts(), 400, func(s *script) { playBumping(t, mem, s.data) })
}

func FuzzBump(f *testing.F) {
	f.Add([]byte("0000"))
	randomScripts(4, 200, func(s *script) { f.Add(s.data) })
	f.Fuzz(func(t *testing.T, data []byte) { playBumping(t, alloctest.New(t), data) })
}
