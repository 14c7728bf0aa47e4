package alloctest

import (
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/callers"
)

// fills are the bytes that fresh memory is full of, one after the other.
var fills = []byte{0x00, 0xcd, 0xff}

// CheckInitialized runs scenario three times, with fresh memory whose bytes are all 0x00, all
// 0xcd and all 0xff. It fails the test if the results differ, because then the scenario reads
// memory that it has not written. The failure names the first allocation whose bytes change the
// result; to find it, scenario runs once more for each allocation up to it. The scenario must be
// deterministic. Results are compared by [reflect.DeepEqual]. Blocks whose [blockalloc.Layout] has
// Zeroed set are zero each time.
func CheckInitialized[T any](t TestingT, scenario func(mem *alloctrace.Proxy) T) {
	t.Helper()
	packages, err := flaggedSkip()
	if err != nil {
		t.Fatalf("alloctest: %v", err)
	}
	skip, _ := callers.NewSkip(packages) // they are good
	run := func(f *filling) T { return scenario(alloctrace.Wrap(f)) }
	zeroed := filling{}
	want := run(&zeroed)
	for _, with := range fills[1:] {
		got := run(&filling{with: with})
		if reflect.DeepEqual(got, want) {
			continue
		}
		text := fmt.Sprintf("alloctest: the scenario reads memory that it has not written: it returns %v where fresh memory is full of %#02x, and %v where it is full of %#02x", want, fills[0], got, with)
		for i := range zeroed.n {
			alone := filling{with: with, only: i + 1}
			if !reflect.DeepEqual(run(&alone), want) {
				text += fmt.Sprintf("\nallocation %d of %d, of %v, by\n\t%s", i+1, zeroed.n, alone.layout, strings.ReplaceAll(callers.Lines(skip.Frames(alone.stack)), "\n", "\n\t"))
				break
			}
		}
		t.Errorf("%s", text)
		return
	}
}

// filling is an allocator whose fresh memory is full of one byte. It may be used by
// several goroutines at once.
type filling struct {
	heap blockalloc.Heap
	with byte
	only int // which allocation it fills, from 1 on, all others being zeroed; 0 for all

	mu     sync.Mutex
	n      int               // allocations
	layout blockalloc.Layout // of the only one
	stack  []uintptr
}

var (
	_ blockalloc.Allocator = (*filling)(nil)
	_ blockalloc.Finder    = (*filling)(nil)
)

func (f *filling) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	b, err := f.heap.Allocate(l)
	f.fill(b, 0)
	return b, err
}

func (f *filling) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	n, err := f.heap.Reallocate(b, size)
	if err == nil {
		f.fill(n, b.Size())
	}
	return n, err
}

func (f *filling) Free(b blockalloc.Block) error { return f.heap.Free(b) }

func (f *filling) Find(p unsafe.Pointer) (blockalloc.Block, bool) { return f.heap.Find(p) }

func (f *filling) fill(b blockalloc.Block, from uintptr) {
	if b.Layout().Zeroed {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	if f.only != 0 && f.only != f.n {
		return
	}
	if f.only == f.n {
		f.layout, f.stack = b.Layout(), make([]uintptr, 32)
		f.stack = f.stack[:runtime.Callers(2, f.stack)]
	}
	mem := b.Bytes()
	for i := min(from, b.Size()); i < b.Size(); i++ {
		mem[i] = f.with
	}
}
