package blockalloc_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
)

// bumpSteps are what a Bump and a Fixed do beside what all allocators do.
var bumpSteps = []blocktest.Step{
	{Name: "Mark", Weight: 2, Do: func(s *blocktest.State) error {
		p := placedOf(s.Allocator)
		k := placedMark{p.inner.(bumping).Mark(), len(p.pieces), 0}
		if k.depth > 0 {
			k.number = p.pieces[k.depth-1].number
		}
		p.marks = append(p.marks, k)
		return nil
	}},
	{Name: "Release", Weight: 2, Do: func(s *blocktest.State) error {
		p := placedOf(s.Allocator)
		if len(p.marks) == 0 {
			return nil
		}
		i := s.IntN(len(p.marks))
		k := p.marks[i]
		s.Logf("mark %d, of %d pieces", i, k.depth)
		err := p.inner.(bumping).Release(k.mark)
		if k.depth > len(p.pieces) || k.depth > 0 && p.pieces[k.depth-1].number != k.number {
			if !errors.Is(err, blockalloc.ErrDoubleFree) {
				return fmt.Errorf("of a stale mark: %v, want ErrDoubleFree", err)
			}
			return nil
		}
		s.Freed(p.cut(k.depth)...)
		return err
	}},
	{Name: "Reset", Do: func(s *blocktest.State) error {
		if s.IntN(8) > 0 { // not so often that few blocks are ever live
			return nil
		}
		p := placedOf(s.Allocator)
		p.inner.(bumping).Reset()
		s.Freed(p.cut(0)...)
		return nil
	}},
}

// bumpConfigs describe Bumps of 4 MiB, and of so little that much does not fit.
func bumpConfigs() map[string]blocktest.Config {
	configs := make(map[string]blocktest.Config)
	for name, c := range map[string]blocktest.Config{
		"large": {MaxSize: 1 << 20, Capacity: 4 << 20},
		"small": {MaxSize: 1 << 10, MaxLive: 2, Capacity: 3000},
	} {
		c.NewOver = func(_ testing.TB, parent blockalloc.Allocator) (blockalloc.Allocator, error) {
			b, err := blockalloc.NewBump(parent, c.Capacity)
			if err != nil {
				return nil, err
			}
			p, err := place(placed{inner: b})
			return placedCloser{p}, err
		}
		configs[name] = bumpModelConfig(c)
	}
	return configs
}

// bumpModelConfig describes what Bump and Fixed have in common.
func bumpModelConfig(c blocktest.Config) blocktest.Config {
	c.Bounded, c.Arena, c.SingleThreaded = true, true, true
	c.Steps, c.Check = bumpSteps, placedBlocks
	return c
}

// moated is a Fixed in the midst of memory that nobody may touch.
type moated struct {
	*placed
	around []byte
}

const fixedOffset = 21

func fixedConfigs() map[string]blocktest.Config {
	configs := make(map[string]blocktest.Config)
	for name, c := range map[string]blocktest.Config{
		"large": {MaxSize: 1 << 20, Capacity: 4 << 20},
		"small": {MaxSize: 1 << 10, MaxLive: 2, Capacity: 4000},
	} {
		c = bumpModelConfig(c)
		c.New = func(t testing.TB) blockalloc.Allocator {
			around := make([]byte, c.Capacity+64)
			end := fixedOffset + c.Capacity
			for i := range around[:fixedOffset] {
				around[i] = byte(i) + 77
			}
			for i := range around[end:] {
				around[end:][i] = byte(i) + 77
			}
			p, err := place(placed{inner: newFixed(t, around[fixedOffset:end])})
			if err != nil {
				t.Fatal(err)
			}
			return moated{p, around}
		}
		c.Check = func(a blockalloc.Allocator, live []blockalloc.Block) error {
			m := a.(moated)
			for i, v := range m.around[:fixedOffset] {
				if v != byte(i)+77 {
					return fmt.Errorf("byte %d was written, before the buffer", i)
				}
			}
			end := fixedOffset + c.Capacity
			for i, v := range m.around[end:] {
				if v != byte(i)+77 {
					return fmt.Errorf("byte %d was written, behind the buffer", i)
				}
			}
			return placedBlocks(a, live)
		}
		configs[name] = c
	}
	return configs
}

func TestBumpConforms(t *testing.T) {
	t.Parallel()
	for name, c := range bumpConfigs() {
		t.Run(name, func(t *testing.T) { blocktest.Run(t, c) })
	}
}

func TestFixedConforms(t *testing.T) {
	for name, c := range fixedConfigs() {
		t.Run(name, func(t *testing.T) { blocktest.Run(t, c) })
	}
}

func FuzzBump(f *testing.F) { blocktest.Fuzz(f, bumpConfigs()["small"]) }

func FuzzFixed(f *testing.F) { blocktest.Fuzz(f, fixedConfigs()["small"]) }
