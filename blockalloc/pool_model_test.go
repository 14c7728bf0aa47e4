package blockalloc_test

import (
	"errors"
	"fmt"
	"math/bits"
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
	pool  *blockalloc.Pool
	rnd   *rand.Rand
	max   uintptr // the largest block asked for
	live  []modelled
	dead  []blockalloc.Block // freed lately
	seed  int
	alone bool // nobody else uses the Pool
}

type modelled struct {
	block blockalloc.Block
	size  uintptr
	seed  int
}

// size returns a size that is more often small than large, and alignment likewise.
func (m *poolModel) size() uintptr {
	limit := uintptr(1) << m.rnd.IntN(bits.Len(uint(m.max)))
	return 1 + uintptr(m.rnd.Uint64N(uint64(limit)))
}

// step does one operation and holds the outcome against the model.
func (m *poolModel) step() error {
	switch op := m.rnd.IntN(20); {
	case op < 8 && len(m.live) < 100:
		l := blockalloc.Layout{Size: m.size(), Align: 1 << m.rnd.IntN(bits.Len(uint(m.max)))}
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
	case op < 11 && len(m.live) > 0:
		e := &m.live[m.rnd.IntN(len(m.live))]
		size := m.size()
		b, err := m.pool.Reallocate(e.block, size)
		if err != nil {
			return err
		}
		if err := imprinted(b, e.size, min(e.size, size), e.seed); err != nil {
			return fmt.Errorf("Reallocate(%v, %d): %w", e.block, size, err)
		}
		if b.Addr() != e.block.Addr() {
			m.died(e.block)
		}
		e.block, e.size = b, size
		imprint(b, size, e.seed)
	case op < 18 && len(m.live) > 0:
		i := m.rnd.IntN(len(m.live))
		e := m.live[i]
		m.live[i] = m.live[len(m.live)-1]
		m.live = m.live[:len(m.live)-1]
		return m.free(e)
	case op == 18 && len(m.dead) > 0 && m.alone:
		return m.freeAgain(m.dead[m.rnd.IntN(len(m.dead))])
	case op == 19 && m.alone && m.rnd.IntN(10) == 0:
		return m.pool.Trim()
	}
	return nil
}

func (m *poolModel) died(b blockalloc.Block) { m.dead = append(m.dead[max(0, len(m.dead)-20):], b) }

func (m *poolModel) free(e modelled) error {
	if err := imprinted(e.block, e.size, e.size, e.seed); err != nil {
		return fmt.Errorf("before Free: %w", err)
	}
	if !m.pool.Owns(e.block) {
		return fmt.Errorf("Owns(%v) = false for a live block", e.block)
	}
	m.died(e.block)
	return m.pool.Free(e.block)
}

// freeAgain frees a block that is not live, unless its place was given out again.
func (m *poolModel) freeAgain(b blockalloc.Block) error {
	for _, e := range m.live {
		if e.block.Addr() == b.Addr() {
			return nil
		}
	}
	if err := m.pool.Free(b); !errors.Is(err, blockalloc.ErrDoubleFree) && !errors.Is(err, blockalloc.ErrNotOwned) {
		return fmt.Errorf("second Free(%v): error %v", b, err)
	}
	if m.pool.Owns(b) {
		return fmt.Errorf("Owns(%v), which is not live", b)
	}
	return nil
}

// check holds the Pool's own figures against the model.
func (m *poolModel) check() error {
	var inUse int64
	for _, e := range m.live {
		inUse += int64(e.block.Size())
	}
	if s := m.pool.Stats(); s.Blocks != int64(len(m.live)) || s.InUse != inUse {
		return fmt.Errorf("%d blocks of %d B are live: %+v", len(m.live), inUse, s)
	}
	return blockalloc.CheckPool(m.pool)
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

// steps is how long the tests below go on.
func poolSteps(n int) int {
	if os.Getenv("ALLOCTRACE_REQUIRE_ALL") != "" {
		return 5 * n
	}
	if raceEnabled {
		return n / 4
	}
	return n
}

// TestPoolModel: one goroutine, random operations, all of the Pool's parts checked after each few.
func TestPoolModel(t *testing.T) {
	for seed, maxCached := range []int64{0, -1, 1 << 20, 1} {
		t.Run(fmt.Sprint(maxCached), func(t *testing.T) {
			p := poolOver(t, &blockalloc.PoolPages{}, maxCached)
			m := &poolModel{pool: p, rnd: rand.New(rand.NewPCG(7, uint64(seed))), alone: true}
			for i := range poolSteps(2000) {
				m.max = 256 << 10
				if i%500 == 499 {
					m.max = 4 * blockalloc.PoolChunkSize
				}
				err := m.step()
				if err == nil && i%10 == 0 {
					err = m.check()
				}
				if err != nil {
					t.Fatalf("step %d: %v", i, err)
				}
			}
			if err := m.freeAll(); err != nil {
				t.Fatal(err)
			}
		})
	}
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
					if s := p.Stats(); s.Blocks < 1 || s.InUse < 64<<10 || s.InUse+s.Cached > s.Carved || s.Carved > s.Committed || s.Committed > s.Reserved {
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
					m := &poolModel{pool: p, rnd: rand.New(rand.NewPCG(9, uint64(g))), max: 256 << 10, seed: g << 24}
					for range poolSteps(1200) {
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
			if s := p.Stats(); s.Blocks != 1 || s.InUse != 64<<10 {
				t.Errorf("one block is live: %+v", s)
			}
			if err := imprinted(keep, 64<<10, 64<<10, -1); err != nil {
				t.Error(err)
			}
			poolFree(t, p, keep)
		})
	}
}
