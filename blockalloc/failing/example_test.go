package failing_test

import (
	"errors"
	"fmt"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
)

func ExampleAfter() {
	mem := failing.After(&blockalloc.Heap{}, 2)
	for range 3 {
		_, err := mem.Allocate(blockalloc.BlockLayout(64))
		fmt.Println(err)
	}
	fmt.Println(mem.Injected(), "of", mem.Calls())
	// Output:
	// <nil>
	// <nil>
	// failing.After(2).Allocate(64 B aligned to 64): out of memory: injected failure: call 3
	// 1 of 3
}

func ExampleEvery() {
	mem := failing.Every(&blockalloc.Heap{}, 3)
	for range 6 {
		_, err := mem.Allocate(blockalloc.BlockLayout(64))
		fmt.Print(err == nil, " ")
	}
	// Output: true true false true true false
}

func ExampleIf() {
	large := func(c failing.Call) bool { return c.Op == failing.OpReallocate && c.Layout.Size > 1000 }
	mem := failing.If(&blockalloc.Heap{}, large)
	b, err := mem.Allocate(blockalloc.Layout{Size: 2000, Align: 8})
	if err != nil {
		fmt.Println(err)
		return
	}
	kept, err := mem.Reallocate(b, 4000)
	fmt.Println(errors.Is(err, failing.ErrInjected), kept == b)
	b, err = mem.Reallocate(b, 500)
	fmt.Println(b.Size(), err)
	// Output:
	// true true
	// 500 <nil>
}
