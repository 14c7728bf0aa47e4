// Alloctest has a function whose test runs with a leak-checked allocator.
package main

import "github.com/alloctrace/alloctrace/blockalloc"

func main() { use(blockalloc.Default()) }

func use(mem blockalloc.Allocator) {
	b, err := mem.Allocate(blockalloc.BlockLayout(4096))
	if err != nil {
		panic(err)
	}
	if err := mem.Free(b); err != nil {
		panic(err)
	}
}
