package blockalloc_test

import (
	"errors"
	"testing"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// scopedModel plays a script on a Scoped and the scopes inside it.
type scopedModel struct {
	bumpModel
	open  []*blockalloc.Scoped // the root and the open scopes, outermost first
	first []int                // of the blocks of each
	ended []*blockalloc.Scoped
}

var errLeave = errors.New("the scope's function failed")

// playScope does what the script says in the innermost scope, until that says to
// leave it.
func (m *scopedModel) playScope() error {
	depth := len(m.open) - 1
	s, first := m.open[depth], m.first[depth]
	for m.script.more() {
		switch op := m.script.next(16); op {
		case 0, 1, 2, 3, 4:
			m.allocate(s)
		case 5, 6:
			if i := m.choose(first); i >= 0 {
				m.free(s, i)
			}
		case 7, 8:
			if i := m.choose(first); i >= 0 {
				m.reallocate(s, i)
			}
		case 9:
			m.freeAgain(s)
		case 10, 11:
			if depth < 6 {
				m.enter(s)
			}
		case 12:
			m.waits()
		case 13:
			m.hasEnded()
		default:
			if depth == 0 {
				continue
			}
			switch m.script.next(3) {
			case 0:
				return nil
			case 1:
				return errLeave
			}
			panic(errLeave)
		}
		for i, outer := range m.open {
			end := len(m.blocks)
			if i < depth {
				end = m.first[i+1]
			}
			m.check(outer, m.first[i], end)
		}
	}
	return nil
}

// enter plays on in a scope inside s.
func (m *scopedModel) enter(s *blockalloc.Scoped) {
	first := len(m.blocks)
	var err error
	func() {
		defer func() {
			if r := recover(); r != nil {
				err = r.(error)
			}
		}()
		err = s.Scope(func(inner *blockalloc.Scoped) error {
			m.open, m.first = append(m.open, inner), append(m.first, first)
			return m.playScope()
		})
	}()
	if err != nil && err != errLeave {
		m.Fatalf("Scope: %v", err)
	}
	last := len(m.open) - 1
	m.ended = append(m.ended, m.open[last])
	m.open, m.first = m.open[:last], m.first[:last]
	m.cut(first)
}

// waits uses an outer scope, or a block of one from the innermost.
func (m *scopedModel) waits() {
	last := len(m.open) - 1
	if last == 0 {
		return
	}
	outer := m.open[m.script.next(last)]
	if b, err := outer.Allocate(m.script.layout()); !errors.Is(err, blockalloc.ErrScoped) || !b.IsZero() {
		m.Fatalf("Allocate while a scope is open = %v, %v", b, err)
	}
	if err := outer.Scope(nil); !errors.Is(err, blockalloc.ErrScoped) {
		m.Fatalf("Scope while a scope is open: %v", err)
	}
	if err := outer.Close(); !errors.Is(err, blockalloc.ErrScoped) {
		m.Fatalf("Close while a scope is open: %v", err)
	}
	if i := m.choose(0); i >= 0 {
		b := m.blocks[i].block
		if err := outer.Free(b); !errors.Is(err, blockalloc.ErrScoped) {
			m.Fatalf("Free while a scope is open: %v", err)
		}
		if n, err := outer.Reallocate(b, uintptr(m.script.next(256))); !errors.Is(err, blockalloc.ErrScoped) || n != b {
			m.Fatalf("Reallocate while a scope is open = %v, %v", n, err)
		}
		if i < m.first[last] {
			if err := m.open[last].Free(b); !errors.Is(err, blockalloc.ErrNotOwned) {
				m.Fatalf("Free of an outer scope's block: %v", err)
			}
		}
	}
}

// hasEnded uses a scope that has ended.
func (m *scopedModel) hasEnded() {
	if len(m.ended) == 0 {
		return
	}
	s := m.ended[m.script.next(min(len(m.ended), 256))]
	if b, err := s.Allocate(m.script.layout()); !errors.Is(err, blockalloc.ErrClosed) || !b.IsZero() {
		m.Fatalf("Allocate in a scope that has ended = %v, %v", b, err)
	}
	if i := m.choose(0); i >= 0 {
		b := m.blocks[i].block
		if err := s.Free(b); !errors.Is(err, blockalloc.ErrClosed) || s.Owns(b) {
			m.Fatalf("Free in a scope that has ended: %v; owned: %v", err, s.Owns(b))
		}
	}
}

func playScoped(t testing.TB, mem blockalloc.Allocator, data []byte) {
	parent := lenderOf(t, mem)
	root := newScoped(t, parent, 3000)
	m := scopedModel{
		bumpModel: bumpModel{carverTest: carverTest{t}, addr: parent.history[0], size: 3000, script: &script{data}},
		open:      []*blockalloc.Scoped{root},
		first:     []int{0},
	}
	if err := m.playScope(); err != nil {
		t.Fatal(err)
	}
	m.cut(0)
	if err := root.Close(); err != nil {
		t.Fatal(err)
	}
	parent.has(0)
}

func TestScopedModel(t *testing.T) {
	mem := alloctest.New(t)
	randomScripts(modelScripts(), 400, func(s *script) { playScoped(t, mem, s.data) })
}

func FuzzScoped(f *testing.F) {
	f.Add([]byte("0000"))
	randomScripts(4, 200, func(s *script) { f.Add(s.data) })
	f.Fuzz(func(t *testing.T, data []byte) { playScoped(t, alloctest.New(t), data) })
}
