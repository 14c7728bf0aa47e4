package blackbox

import (
	"fmt"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// TestMostFirst: of more children than there is room for, those with the most live bytes are there, and all Proxies are.
func TestMostFirst(t *testing.T) {
	b := onHeap(t, Options{Size: 2 * minSize})
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithName("mem"))
	other := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithName("other"))
	b.Watch(mem)
	b.Watch(other)
	allocate := func(child string, size uintptr) {
		block, err := mem.Child(child).Allocate(blockalloc.BlockLayout(size))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = mem.Free(block) })
	}
	const small = 500
	for i := range small {
		allocate(fmt.Sprint("small ", i), 16)
	}
	allocate("the largest", 1<<20)
	allocate("the second", 1<<19)
	b.Flush()
	c := b.read(t)
	n := len(c.Proxies)
	if n < 4 || n+c.Omitted != small+4 || c.Omitted == 0 {
		t.Fatalf("%d numbers are there, and %d omitted", n, c.Omitted)
	}
	for i, want := range map[int][2]string{0: {"mem", ""}, 1: {"mem", "the largest"}, 2: {"mem", "the second"}, 3: {"mem", "small 0"}, n - 1: {"other", ""}} {
		if got := [2]string{c.Proxies[i].Name, c.Proxies[i].Child}; got != want {
			t.Errorf("numbers %d are of %q, want %q", i, got, want)
		}
	}
}
