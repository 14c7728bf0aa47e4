package alloctrace_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// useCache stands for the code under test.
func useCache(mem blockalloc.Allocator) {
	if b, err := mem.Allocate(page); err == nil {
		defer mem.Free(b)
	}
}

func TestCacheLeaksNothing(t *testing.T) {
	mem := alloctrace.Wrap(blockalloc.Default())
	useCache(mem)
	if err := mem.Close(); err != nil { // says how many blocks and bytes are live
		t.Error(err)
	}
}

func ExampleProxy_Close() {
	mem := alloctrace.Wrap(&blockalloc.Heap{}, alloctrace.WithName("cache"))
	b, _ := mem.Allocate(blockalloc.BlockLayout(4096))
	fmt.Println(mem.Close())
	fmt.Println(mem.Free(b), mem.Close())
	// Output:
	// alloctrace: Close of proxy "cache": blocks are still live: 1 of them, 4096 bytes in all: free them first
	// <nil> <nil>
}

func ExampleProxy_Child() {
	mem := alloctrace.Wrap(&blockalloc.Heap{})
	pages, log := mem.Child("pages"), mem.Child("log")
	_, _ = pages.Allocate(blockalloc.BlockLayout(64 << 10))
	_, _ = log.Allocate(blockalloc.BlockLayout(4 << 10))
	for _, p := range mem.Children() {
		fmt.Println(p.Name(), p.Stats().LiveBytes)
	}
	fmt.Println("all", mem.Stats().LiveBytes)
	// Output:
	// pages 65536
	// log 4096
	// all 69632
}

func ExampleHookFunc() {
	mem := alloctrace.Wrap(&blockalloc.Heap{}, alloctrace.WithHooks(
		alloctrace.HookFunc(func(_ context.Context, e alloctrace.Event, _ error) { fmt.Println(e.Kind, e.Size) }),
	))
	b, _ := mem.Allocate(blockalloc.BlockLayout(4096))
	b, _ = mem.Reallocate(b, 8192)
	_ = mem.Free(b)
	// Output:
	// allocated 4096
	// reallocating 4096
	// reallocated 8192
	// freeing 8192
}
