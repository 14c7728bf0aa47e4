package guard_test

import (
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/blockalloc/guard"
)

// rates are such that every block is guarded, as far as there are slots, some are, or none.
var rates = map[string]guard.Options{
	"Every":    {Rate: 1},
	"EveryFew": {Rate: 1, Memory: 1}, // 8 slots: most blocks pass through
	"Some":     {Rate: 16 << 10},
	"None":     {Rate: -1},
}

// silent passes over what the suite does wrong on purpose.
func silent(*debug.Report) {}

// TestConforms runs the suite over a root, and where nothing is guarded over a parent of the suite's own that fails, panics
// and ends the goroutine.
func TestConforms(t *testing.T) {
	t.Parallel()
	for name, o := range rates {
		o.OnReport = silent
		if testing.Short() && name != "Every" && name != "Some" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			c := blocktest.Config{MaxSize: 16 << 20, Zeroed: true, New: func(t testing.TB) blockalloc.Allocator {
				return newAllocator(t, newRoot(), o)
			}}
			if o.Rate < 0 {
				c.NewOver = func(t testing.TB, parent blockalloc.Allocator) (blockalloc.Allocator, error) {
					return newAllocator(t, parent, o), nil
				}
			}
			blocktest.Run(t, c)
		})
	}
	if testing.Short() {
		return
	}
	t.Run("Pool", func(t *testing.T) {
		blocktest.Run(t, blocktest.Config{MaxSize: 4 << 20, New: func(t testing.TB) blockalloc.Allocator {
			return newAllocator(t, blockalloc.Default(), guard.Options{Rate: 4 << 10, OnReport: silent})
		}})
	})
}

// FuzzAllocator does the operations of the suite's model on a Heap of which some blocks are guarded.
func FuzzAllocator(f *testing.F) {
	blocktest.Fuzz(f, blocktest.Config{Zeroed: true, MaxSize: 1 << 20, New: func(t testing.TB) blockalloc.Allocator {
		return newAllocator(t, new(blockalloc.Heap), guard.Options{Rate: 64, Memory: 64 << 10, OnReport: silent})
	}})
}
