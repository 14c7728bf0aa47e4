package immix

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// A node is an object of the model.
type node struct {
	id    int // what the object says it is
	raw   []byte
	slots []*node
	hash  uint16 // 0 if it was not asked for
}

// A model holds a heap against a graph of Go objects.
type model struct {
	t      *testing.T
	rng    *rand.Rand
	h      *Heap
	roots  *roots
	nodes  []*node // that the roots refer to, nil for none
	nextID int
}

func (m *model) pick() int { return m.rng.IntN(len(m.nodes)) }

// size is that of a new object: mostly small, sometimes medium, seldom large.
func (m *model) size() int {
	switch n := m.rng.IntN(100); {
	case n < 80:
		return m.rng.IntN(12)
	case n < 97:
		return m.rng.IntN(900)
	default:
		return 1000 + m.rng.IntN(5000)
	}
}

// allocate makes an object in slot i. Word 0 has its id.
func (m *model) allocate(i int) error {
	n := &node{id: m.nextID}
	m.nextID++
	size := m.size()
	if m.rng.IntN(4) == 0 {
		w, err := m.h.NewBytes(7, size)
		if err != nil {
			return err
		}
		n.raw = make([]byte, size)
		for j := range n.raw {
			n.raw[j] = byte(m.rng.Uint32())
		}
		copy(m.h.Bytes(w), n.raw)
		(*m.roots)[i], m.nodes[i] = w, n
		return nil
	}
	fill := immediate(0)
	w, err := m.h.NewWords(3, 1+size, &fill)
	if err != nil {
		return err
	}
	m.h.Set(w, 0, immediate(n.id))
	n.slots = make([]*node, size)
	(*m.roots)[i], m.nodes[i] = w, n
	return nil
}

// link stores a reference to a root's object in another's.
func (m *model) link() {
	a, b := m.pick(), m.pick()
	if n := m.nodes[a]; n != nil && len(n.slots) > 0 {
		j := m.rng.IntN(len(n.slots))
		v := (*m.roots)[b]
		if m.nodes[b] == nil {
			v = immediate(0)
		}
		n.slots[j] = m.nodes[b]
		m.h.Set((*m.roots)[a], 1+j, v)
	}
}

// load replaces a root by what its object refers to.
func (m *model) load() {
	i := m.pick()
	if n := m.nodes[i]; n != nil && len(n.slots) > 0 {
		j := m.rng.IntN(len(n.slots))
		if n.slots[j] != nil {
			m.nodes[i], (*m.roots)[i] = n.slots[j], m.h.Get((*m.roots)[i], 1+j)
		}
	}
}

// check compares all that is reachable.
func (m *model) check() {
	m.t.Helper()
	seen := make(map[*node]Word)
	var todo []*node
	reach := func(n *node, w Word) {
		if n == nil {
			if w.IsRef() {
				m.t.Fatalf("a slot has reference %#x, and the model nothing", w)
			}
			return
		}
		if old, ok := seen[n]; !ok {
			seen[n] = w
			todo = append(todo, n)
		} else if old != w {
			m.t.Fatalf("object %d is at %#x and at %#x", n.id, old, w)
		}
	}
	for i, n := range m.nodes {
		reach(n, (*m.roots)[i])
	}
	var bytes int64
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		w := seen[n]
		bytes += int64(m.h.at(w).size())
		if n.hash != 0 && n.hash != m.h.Hash(w) {
			m.t.Fatalf("object %d has hash %d, want %d", n.id, m.h.Hash(w), n.hash)
		} else if m.rng.IntN(8) == 0 {
			n.hash = m.h.Hash(w)
		}
		if n.slots == nil {
			if m.h.Kind(w) != 7 || !slices.Equal(m.h.Bytes(w), n.raw) {
				m.t.Fatalf("object %d has other bytes than it was given", n.id)
			}
			continue
		}
		words := m.h.Words(w)
		if m.h.Kind(w) != 3 || len(words) != 1+len(n.slots) || words[0] != immediate(n.id) {
			m.t.Fatalf("object %d has %d words, the first %#x", n.id, len(words), words[0])
		}
		for j, s := range n.slots {
			reach(s, words[1+j])
		}
	}
	if c, _ := m.h.Last(); c.Live < bytes && m.h.allocated == 0 {
		m.t.Fatalf("%d bytes are live, and the collection has found %d", bytes, c.Live)
	}
}

func (m *model) run(steps int) (refused int) {
	*m.roots = make(roots, 64)
	m.nodes = make([]*node, len(*m.roots))
	for range steps {
		switch n := m.rng.IntN(100); {
		case n < 60:
			if err := m.allocate(m.pick()); errors.Is(err, blockalloc.ErrOutOfMemory) {
				refused++
				for range 16 {
					i := m.pick()
					m.nodes[i], (*m.roots)[i] = nil, 0
				}
			} else if err != nil {
				m.t.Fatal(err)
			}
		case n < 85:
			m.link()
		case n < 95:
			m.load()
		case n < 99:
			i := m.pick()
			m.nodes[i], (*m.roots)[i] = nil, 0
		default:
			if err := m.h.Collect(); err != nil {
				m.t.Fatal(err)
			}
			m.check()
		}
	}
	m.check()
	return refused
}

func TestModel(t *testing.T) {
	const limit = 320 << 10
	for _, c := range []struct {
		name  string
		o     Options
		limit int64
		steps int
	}{
		{"default", Options{}, 0, 20_000},
		{"checked", Options{Check: true, Allowance: 64 << 10}, 0, 10_000},
		{"moving", Options{Check: true, Evacuate: Always, Allowance: 256 << 10}, 0, 10_000},
		{"in place", Options{Check: true, Evacuate: Never}, 0, 10_000},
		{"limit", Options{Check: true}, limit, 10_000},
		{"moving in a limit", Options{Check: true, Evacuate: Always}, limit, 10_000},
		{"stress", Options{Check: true, Stress: true, Evacuate: Always}, 0, 1000},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(3) {
				var mem blockalloc.Allocator = alloctest.New(t, alloctest.WithStacks(alloctest.Off))
				var bound *blockalloc.Limit
				if c.limit > 0 {
					bound = blockalloc.NewLimit(mem, c.limit)
					mem = bound
				}
				h, r := newHeap(t, mem, c.o)
				m := &model{t: t, rng: rand.New(rand.NewPCG(seed, 1)), h: h, roots: r}
				refused := m.run(c.steps)
				last, n := h.Last()
				t.Logf("seed %d: %d collections, %d times out of memory, the last: %+v", seed, n, refused, last)
				if n == 0 || (c.limit > 0) != (refused > 0) {
					t.Errorf("%d collections, %d times out of memory", n, refused)
				}
			}
		})
	}
}
