package arrowmem_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/arrowmem"
)

// A model does what Arrow's GoAllocator does with slices of make, next to what an Allocator does.
type model struct {
	t    *testing.T
	a    *arrowmem.Allocator
	bufs []pair
	live int
}

type pair struct{ got, want []byte }

// step is one operation, which three numbers decide on.
func (m *model) step(op, which, size uint32) {
	m.t.Helper()
	n := int(size % 700)
	if op%8 == 7 {
		n = int(size % 200_000)
	}
	i := 0
	if len(m.bufs) > 0 {
		i = int(which % uint32(len(m.bufs)))
	}
	switch op % 4 {
	case 0:
		m.bufs = append(m.bufs, pair{m.a.Allocate(n), make([]byte, n)})
		i = len(m.bufs) - 1
		m.live += n
	case 1, 3:
		if len(m.bufs) == 0 {
			return
		}
		p := m.bufs[i]
		m.live -= cap(p.want)
		m.bufs[i] = pair{m.a.Reallocate(n, p.got), reallocate(n, p.want)}
		m.live += cap(m.bufs[i].want)
	case 2:
		if len(m.bufs) == 0 {
			return
		}
		m.free(i)
		return
	}
	p := m.bufs[i]
	m.check(p)
	fillWith(p.got, byte(which)|1)
	fillWith(p.want, byte(which)|1)
}

// reallocate is GoAllocator's, but for size zero.
func reallocate(size int, b []byte) []byte {
	switch {
	case size == 0:
		return nil
	case size <= cap(b):
		return b[:size]
	}
	n := make([]byte, size)
	copy(n, b)
	return n
}

// check compares a slice with its model, beyond its length as well.
func (m *model) check(p pair) {
	m.t.Helper()
	if len(p.got) != len(p.want) || cap(p.got) != cap(p.want) || !bytes.Equal(p.got[:cap(p.got)], p.want[:cap(p.want)]) {
		m.t.Fatalf("%d bytes with room for %d, want %d and %d; or they differ", len(p.got), cap(p.got), len(p.want), cap(p.want))
	}
}

func (m *model) free(i int) {
	m.check(m.bufs[i])
	m.a.Free(m.bufs[i].got)
	m.live -= cap(m.bufs[i].want)
	m.bufs = slices.Delete(m.bufs, i, i+1)
}

func (m *model) end() {
	m.t.Helper()
	m.a.AssertSize(m.t, m.live)
	for len(m.bufs) > 0 {
		m.free(len(m.bufs) - 1)
	}
	m.a.AssertSize(m.t, 0)
}

// TestModel holds random operations against GoAllocator's.
func TestModel(t *testing.T) {
	steps := 20_000
	if testing.Short() {
		steps = 2000
	}
	eachAllocator(t, func(t *testing.T, mem blockalloc.Allocator) {
		random := rand.New(rand.NewPCG(1, 2))
		m := &model{t: t, a: arrowmem.New(mem)}
		for range steps {
			m.step(random.Uint32(), random.Uint32(), random.Uint32())
			if len(m.bufs) > 100 {
				m.free(0)
			}
		}
		m.end()
	})
}
