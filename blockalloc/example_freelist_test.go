package blockalloc_test

import (
	"errors"
	"fmt"
	"log"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A pool of 64 page buffers, taken ahead: the 65th is refused until one is back.
func ExampleFreeList() {
	page := blockalloc.BlockLayout(4096)
	pages, err := blockalloc.NewFreeList(blockalloc.Default(), page, 64)
	if err != nil {
		log.Fatal(err)
	}
	if err := pages.Reserve(64); err != nil {
		log.Fatal(err)
	}
	var taken []blockalloc.Block
	for {
		b, err := pages.Allocate(page)
		if errors.Is(err, blockalloc.ErrOutOfMemory) {
			break
		}
		taken = append(taken, b)
	}
	fmt.Println(len(taken), "pages taken")
	fmt.Println(errors.Is(pages.Close(), blockalloc.ErrLive))
	for _, b := range taken {
		if err := pages.Free(b); err != nil {
			log.Fatal(err)
		}
	}
	b, _ := pages.Allocate(page)
	fmt.Println("the page freed last comes first:", b == taken[63])
	fmt.Println(pages.Free(b), pages.Close())
	// Output:
	// 64 pages taken
	// true
	// the page freed last comes first: true
	// <nil> <nil>
}
