package blockalloc_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A poolModel is what one goroutine knows of its own blocks in a Pool.
type poolModel struct {
	pool *blockalloc.Pool
	rnd  *rand.Rand
	live []modelled
	seed int
}

type modelled struct {
	block blockalloc.Block
	size  uintptr
	seed  int
}

// size returns a size that is more often small than large.
func (m *poolModel) size() uintptr {
	return 1 + uintptr(m.rnd.Uint64N(1<<m.rnd.IntN(19)))
}

// step does one operation and holds the outcome against the model.
func (m *poolModel) step() error {
	switch op := m.rnd.IntN(18); {
	case op < 8 && len(m.live) < 100:
		return m.allocate(blockalloc.Layout{Size: m.size(), Align: 1 << m.rnd.IntN(19)})
	case op < 11 && len(m.live) > 0:
		return m.reallocate(m.rnd.IntN(len(m.live)), m.size())
	case len(m.live) > 0:
		i := m.rnd.IntN(len(m.live))
		e := m.live[i]
		m.live[i] = m.live[len(m.live)-1]
		m.live = m.live[:len(m.live)-1]
		return m.free(e)
	}
	return nil
}

func (m *poolModel) allocate(l blockalloc.Layout) error {
	b, err := m.pool.Allocate(l)
	if err != nil {
		return err
	}
	if b.Size() < l.Size || b.Addr()%l.Align != 0 || b.Align() != l.Align {
		return fmt.Errorf("Allocate(%v) = %v", l, b)
	}
	m.seed++
	imprint(b, l.Size, m.seed)
	m.live = append(m.live, modelled{b, l.Size, m.seed})
	return nil
}

func (m *poolModel) reallocate(i int, size uintptr) error {
	e := &m.live[i]
	b, err := m.pool.Reallocate(e.block, size)
	if err != nil {
		return errors.Join(err, imprinted(e.block, e.size, e.size, e.seed))
	}
	if err := imprinted(b, e.size, min(e.size, size), e.seed); err != nil {
		return fmt.Errorf("Reallocate(%v, %d): %w", e.block, size, err)
	}
	e.block, e.size = b, size
	imprint(b, size, e.seed)
	return nil
}

func (m *poolModel) free(e modelled) error {
	if err := imprinted(e.block, e.size, e.size, e.seed); err != nil {
		return fmt.Errorf("before Free: %w", err)
	}
	if !m.pool.Owns(e.block) {
		return fmt.Errorf("Owns(%v) = false for a live block", e.block)
	}
	return m.pool.Free(e.block)
}

func (m *poolModel) freeAll() error {
	for _, e := range m.live {
		if err := m.free(e); err != nil {
			return err
		}
	}
	m.live = nil
	return nil
}

func (m *poolModel) blocks() (blocks []blockalloc.Block) {
	for _, e := range m.live {
		blocks = append(blocks, e.block)
	}
	return blocks
}

// check holds the Pool's own figures against the model.
func (m *poolModel) check() error {
	return poolAgrees(&checkedPool{Pool: m.pool, each: 1}, m.blocks())
}

// stormSteps is how long a storm goes on.
func stormSteps(n int) int {
	if os.Getenv("ALLOCTRACE_REQUIRE_ALL") != "" {
		return 5 * n
	}
	if raceEnabled {
		return n / 4
	}
	return n
}

// TestPoolStorm: several goroutines, each with a model of its own, while others trim the Pool,
// read its figures and try to close it.
func TestPoolStorm(t *testing.T) {
	const goroutines = 4
	for _, maxCached := range []int64{0, -1, 1 << 20} {
		t.Run(fmt.Sprint(maxCached), func(t *testing.T) {
			p := poolOver(t, &blockalloc.PoolPages{}, maxCached)
			keep := poolAllocate(t, p, blockalloc.BlockLayout(64<<10))
			imprint(keep, 64<<10, -1)
			var stop atomic.Bool
			var background, wg sync.WaitGroup
			for _, f := range []func() error{
				p.Trim,
				func() error {
					if err := p.Close(); !errors.Is(err, blockalloc.ErrLive) {
						return fmt.Errorf("Close with a live block: error %v, want ErrLive", err)
					}
					return nil
				},
				func() error {
					if s := p.Stats(); s.LiveBlocks < 1 || s.LiveBytes < 64<<10 || s.LiveBytes+s.Cached > s.Carved || s.Carved > s.Committed || s.Committed > s.Reserved {
						return fmt.Errorf("%+v", s)
					}
					return nil
				},
			} {
				background.Go(func() {
					for !stop.Load() {
						if err := f(); err != nil {
							t.Error(err)
							return
						}
						runtime.Gosched()
					}
				})
			}
			for g := range goroutines {
				wg.Go(func() {
					m := &poolModel{pool: p, rnd: rand.New(rand.NewPCG(9, uint64(g))), seed: g << 24}
					for range stormSteps(1200) {
						if err := m.step(); err != nil {
							t.Error(err)
							return
						}
					}
					if err := m.freeAll(); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			stop.Store(true)
			background.Wait()
			if s := p.Stats(); s.LiveBlocks != 1 || s.LiveBytes != 64<<10 {
				t.Errorf("one block is live: %+v", s)
			}
			if err := imprinted(keep, 64<<10, 64<<10, -1); err != nil {
				t.Error(err)
			}
			poolFree(t, p, keep)
		})
	}
}
