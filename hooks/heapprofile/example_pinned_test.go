package heapprofile_test

import (
	"fmt"
	"log"
	"path"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// openSession allocates what a session needs as long as it is open.
func openSession(mem blockalloc.Allocator) blockalloc.Block { return allocateKiB(mem) }

// answer allocates what a request needs.
func answer(mem blockalloc.Allocator) blockalloc.Block { return allocateKiB(mem) }

func allocateKiB(mem blockalloc.Allocator) blockalloc.Block {
	b, err := mem.Allocate(blockalloc.Layout{Size: 1 << 10, Align: 8})
	if err != nil {
		log.Fatal(err)
	}
	return b
}

// Sessions are few, and yet keep the blocks of a Slab in which thousands of requests had their memory.
func ExampleProfile_Pinned() {
	slab, err := blockalloc.NewSlab(new(blockalloc.Heap), 64<<10)
	if err != nil {
		log.Fatal(err)
	}
	heap := heapprofile.New(heapprofile.Options{Rate: 1})
	mem := alloctrace.Wrap(slab, alloctrace.WithHooks(heap))
	var sessions, requests []blockalloc.Block
	for i := range 4096 {
		if i%64 == 0 {
			sessions = append(sessions, openSession(mem))
		} else {
			requests = append(requests, answer(mem))
		}
	}
	for _, b := range requests {
		if err := mem.Free(b); err != nil {
			log.Fatal(err)
		}
	}

	pinned, err := heap.Pinned(mem)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("live:", mem.Stats().LiveBytes>>10, "KiB")
	fmt.Println("what the Slab has and nobody uses:", pinned.Bytes == slab.Stats().BlockBytes-slab.Stats().LiveSlotBytes)
	by := pinned.Sites[0]
	for _, f := range by.Stack[:2] {
		fmt.Println("by", path.Base(f.Function))
	}
	fmt.Println("over 90% of it:", float64(by.Bytes) > 0.90*float64(pinned.Bytes))

	for _, b := range sessions {
		if err := mem.Free(b); err != nil {
			log.Fatal(err)
		}
	}
	if err := slab.Close(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// live: 64 KiB
	// what the Slab has and nobody uses: true
	// by heapprofile_test.allocateKiB
	// by heapprofile_test.openSession
	// over 90% of it: true
}
