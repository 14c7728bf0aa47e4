package typed_test

import (
	"bytes"
	"fmt"
	"log"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
)

// Pages of a file by their number, outside the Go heap.
func ExampleMap() {
	type page struct{ Offset, Size uint32 }
	pages := typed.NewMap[uint64, page](blockalloc.Default())
	defer pages.Free()
	for i := range uint64(5) {
		if err := pages.Set(100+i, page{uint32(i) << 12, 4096}); err != nil {
			log.Fatal(err) // no memory: the map holds what it held
		}
	}
	pages.Ptr(102).Size = 17 // in place
	for number, p := range pages.All() {
		if p.Size == 4096 {
			pages.Delete(number)
		}
	}
	p, ok := pages.Get(102)
	fmt.Println(pages.Len(), p, ok)
	// Output: 1 {8192 17} true
}

// How often each word occurs. The words are kept by the map.
func ExampleBytesMap() {
	words := typed.NewBytesMap[int](blockalloc.Default())
	defer words.Free()
	for _, word := range bytes.Fields([]byte("the cat and the dog and the bird")) {
		n, _, err := words.Ensure(word)
		if err != nil {
			log.Fatal(err)
		}
		*n++
	}
	for word, n := range words.All() {
		fmt.Printf("%s %d\n", word, n)
	}
	// Output:
	// the 3
	// cat 1
	// and 2
	// dog 1
	// bird 1
}
