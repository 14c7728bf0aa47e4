package heapprofile

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
)

// TestStackedProxies: a hook of several proxies, of which one takes memory from another, knows
// the blocks of each, also where both have one at the same address.
func TestStackedProxies(t *testing.T) {
	steps := 3000
	if requireAll {
		steps = 30_000
	}
	for name, between := range map[string]func(blockalloc.Allocator) blockalloc.Allocator{
		"Limit": func(a blockalloc.Allocator) blockalloc.Allocator { return blockalloc.NewLimit(a, 1<<18) },
		"Slab": func(a blockalloc.Allocator) blockalloc.Allocator {
			s, err := blockalloc.NewSlab(a, 1<<14)
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		"keeps what is freed": func(a blockalloc.Allocator) blockalloc.Allocator {
			return &keeper{Allocator: a}
		},
		"refuses": func(a blockalloc.Allocator) blockalloc.Allocator {
			n := 0
			return failing.If(a, func(failing.Call) bool { n++; return n%3 == 0 })
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := New(Options{Rate: 1})
			n := 0
			lower := alloctrace.Wrap(failing.If(new(blockalloc.Heap), func(failing.Call) bool { n++; return n%5 == 0 }),
				alloctrace.WithHooks(p)).Child("lower")
			upper := alloctrace.Wrap(between(lower), alloctrace.WithHooks(p)).Child("upper")
			rnd := rand.New(rand.NewPCG(3, 4))
			var blocks []blockalloc.Block
			for step := range steps {
				switch i := rnd.IntN(len(blocks) + 20); {
				case i >= len(blocks):
					if b, err := upper.Allocate(blockalloc.Layout{Size: 1 << (3 + rnd.IntN(12)), Align: 8}); err == nil {
						blocks = append(blocks, b)
					}
				case rnd.IntN(3) == 0:
					if b, err := upper.Reallocate(blocks[i], 1<<(3+rnd.IntN(12))); err == nil {
						blocks[i] = b
					}
				default:
					if upper.Free(blocks[i]) == nil {
						blocks = slices.Delete(blocks, i, i+1)
					}
				}
				if step%100 == 0 || step == steps-1 {
					wantLive(t, p, map[string]*alloctrace.Proxy{"lower": lower, "upper": upper})
				}
			}
		})
	}
}

// wantLive holds what a Profile knows of each child, by its blocks and by its samples, against what
// the child has counted.
func wantLive(t *testing.T, p *Profile, children map[string]*alloctrace.Proxy) {
	t.Helper()
	type sum struct{ blocks, bytes int64 }
	want, blocks, samples := map[string]sum{}, map[string]sum{}, map[string]sum{}
	for name, p := range children {
		if s := p.Stats(); s.LiveBlocks > 0 {
			want[name] = sum{s.LiveBlocks, s.LiveBytes}
		}
	}
	for _, b := range p.Blocks() {
		blocks[b.Owner] = sum{blocks[b.Owner].blocks + 1, blocks[b.Owner].bytes + int64(b.Size)}
	}
	for _, s := range p.Samples() {
		if name := s.Labels[0].Value; s.LiveBlocks != 0 || s.LiveBytes != 0 {
			samples[name] = sum{samples[name].blocks + s.LiveBlocks, samples[name].bytes + s.LiveBytes}
		}
	}
	if !maps.Equal(blocks, want) || !maps.Equal(samples, want) {
		t.Fatalf("live are %v; blocks are %v, and samples %v", want, blocks, samples)
	}
	if f := p.ForeignFrees(); len(f) != 0 {
		t.Fatalf("foreign frees %v", f)
	}
}

// keeper hands out again what was freed, and asks below only for what it has not.
type keeper struct {
	blockalloc.Allocator
	kept []blockalloc.Block
}

func (k *keeper) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	for i, b := range k.kept {
		if b.Size() == l.Size {
			k.kept = slices.Delete(k.kept, i, i+1)
			return b, nil
		}
	}
	return k.Allocator.Allocate(l)
}

func (k *keeper) Free(b blockalloc.Block) error {
	if len(k.kept) > 10 {
		oldest := k.kept[0]
		if err := k.Allocator.Free(oldest); err != nil {
			return err
		}
		k.kept = k.kept[1:]
	}
	k.kept = append(k.kept, b)
	return nil
}
