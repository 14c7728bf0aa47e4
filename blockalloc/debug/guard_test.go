package debug_test

import (
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
)

// TestGuardsAreShared: the Allocators of a process share the mappings that it may have.
func TestGuardsAreShared(t *testing.T) {
	if !hasGuards {
		return
	}
	const left = 3
	debug.TakeGuards(debug.MaxGuardedByAll - left)
	defer debug.TakeGuards(left - debug.MaxGuardedByAll)
	guards := func(wanted int, debugs ...*debug.Allocator) {
		t.Helper()
		n, m := 0, make(map[*debug.Allocator][]blockalloc.Block)
		for range 4 {
			for _, d := range debugs {
				m[d] = append(m[d], mustAllocate(t, d, 64, 64))
			}
		}
		for d, blocks := range m {
			n += d.Stats().GuardedBlocks
			for _, b := range blocks {
				mustFree(t, d, b)
			}
		}
		if n > wanted {
			t.Errorf("%d blocks have mappings, want %d at most", n, wanted)
		}
	}
	o := debug.Options{Guard: true, Quarantine: -1}
	first, second := debug.New(new(blockalloc.Heap), o), debug.New(new(blockalloc.Heap), o)
	guards(left, first, second)
	guards(left, first, second) // they came back
	o.MaxGuarded = debug.MaxGuardedByAll + 2
	third := debug.New(new(blockalloc.Heap), o)
	b := mustAllocate(t, first, 64, 64)
	for range left {
		defer mustFree(t, third, mustAllocate(t, third, 64, 64))
	}
	if s := third.Stats(); s.GuardedBlocks == 0 {
		t.Errorf("with a larger bound %+v", s)
	}
	mustFree(t, first, b)
}
