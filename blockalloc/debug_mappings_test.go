package blockalloc_test

import (
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// TestDebugGuardsAreShared: the Debugs of a process share the mappings that it may have.
func TestDebugGuardsAreShared(t *testing.T) {
	if !hasSystem {
		return
	}
	const left = 3
	blockalloc.TakeGuards(blockalloc.MaxGuardedByAll - left)
	defer blockalloc.TakeGuards(left - blockalloc.MaxGuardedByAll)
	guards := func(wanted int, debugs ...*blockalloc.Debug) {
		t.Helper()
		n, m := 0, make(map[*blockalloc.Debug][]blockalloc.Block)
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
	o := blockalloc.DebugOptions{Guard: true, Quarantine: -1}
	first, second := blockalloc.NewDebug(new(blockalloc.Heap), o), blockalloc.NewDebug(new(blockalloc.Heap), o)
	guards(left, first, second)
	guards(left, first, second) // they came back
	o.MaxGuarded = blockalloc.MaxGuardedByAll + 2
	third := blockalloc.NewDebug(new(blockalloc.Heap), o)
	b := mustAllocate(t, first, 64, 64)
	for range left {
		defer mustFree(t, third, mustAllocate(t, third, 64, 64))
	}
	if s := third.Stats(); s.GuardedBlocks == 0 {
		t.Errorf("with a larger bound %+v", s)
	}
	mustFree(t, first, b)
}
