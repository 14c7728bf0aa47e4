package guard

import (
	"testing"

	"github.com/alloctrace/alloctrace/internal/pages"
)

// Release gives the address space of a back at the end of a test, for which the garbage collector
// takes its time. No guarded block may be live then.
func (a *Allocator) Release(t testing.TB) {
	t.Cleanup(func() {
		if n := a.Stats(); n.LiveBlocks != 0 && !t.Failed() {
			t.Errorf("%d guarded blocks are live in the end", n.LiveBlocks)
		}
		if a.size == 0 {
			return
		}
		a.slots.live.Add(1 << 40) // for the cleanup not to do it again
		if err := pages.Unmap(a.slots.classes[len(a.slots.classes)-1].base, a.size+pages.Size); err != nil {
			t.Error(err)
		}
	})
}

// MaxSize is the size of the largest block that has a slot.
func (a *Allocator) MaxSize() uintptr {
	c := a.slots.classes[len(a.slots.classes)-1]
	return min(maxSize, c.stride-pages.Size)
}
