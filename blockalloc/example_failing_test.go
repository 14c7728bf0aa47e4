package blockalloc_test

import (
	"errors"
	"fmt"

	"github.com/alloctrace/alloctrace/blockalloc"
)

func ExampleFailAfter() {
	mem := blockalloc.FailAfter(&blockalloc.Heap{}, 2)
	for range 3 {
		_, err := mem.Allocate(blockalloc.BlockLayout(64))
		fmt.Println(err)
	}
	fmt.Println(mem.Injected(), "of", mem.Calls())
	// Output:
	// <nil>
	// <nil>
	// blockalloc: FailAfter(2).Allocate(64 B aligned to 64): out of memory: injected failure: call 3
	// 1 of 3
}

func ExampleFailEvery() {
	mem := blockalloc.FailEvery(&blockalloc.Heap{}, 3)
	for range 6 {
		_, err := mem.Allocate(blockalloc.BlockLayout(64))
		fmt.Print(err == nil, " ")
	}
	// Output: true true false true true false
}

func ExampleFailIf() {
	large := func(c blockalloc.Call) bool { return c.Op == blockalloc.OpReallocate && c.Layout.Size > 1000 }
	mem := blockalloc.FailIf(&blockalloc.Heap{}, large)
	b, err := mem.Allocate(blockalloc.Layout{Size: 2000, Align: 8})
	if err != nil {
		fmt.Println(err)
		return
	}
	kept, err := mem.Reallocate(b, 4000)
	fmt.Println(errors.Is(err, blockalloc.ErrInjected), kept == b)
	b, err = mem.Reallocate(b, 500)
	fmt.Println(b.Size(), err)
	// Output:
	// true true
	// 500 <nil>
}
