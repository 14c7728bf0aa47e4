//go:build unix

package heapprofile_test

import (
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// mapped is an allocator by syscall.Mmap, which keeps a table of what it has mapped, as that of x/sys does.
type mapped struct{ blockalloc.Null }

func (mapped) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	memory, err := syscall.Mmap(-1, 0, int(l.Size), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return blockalloc.Block{}, err
	}
	return blockalloc.NewBlock(unsafe.Pointer(unsafe.SliceData(memory)), l.Size, l)
}

// TestMmap: the table of the mappings that syscall.Mmap has made does not hold them.
func TestMmap(t *testing.T) {
	p := heapprofile.New(heapprofile.Options{Rate: 1})
	mem := alloctrace.Wrap(mapped{}, alloctrace.WithHooks(p))
	var kept blockalloc.Block
	apart(func() {
		for range 9 {
			allocate(mem, 64<<10)
		}
		kept = allocate(mem, 64<<10)
	})
	if u := unreachable(t, p); u.Looked != 10 || u.Report.Blocks < 5 || u.Report.Blocks > 9 {
		t.Errorf("of %d blocks %d are unreachable, want 9, or some less", u.Looked, u.Report.Blocks)
	}
	runtime.KeepAlive(kept)
}
