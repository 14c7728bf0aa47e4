package blockalloc_test

import (
	"errors"
	"fmt"
	"log"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A fixed buffer is all the memory there is: the program knows what happens when
// it is used up.
func ExampleFixed() {
	var buffer [4096]byte
	mem, err := blockalloc.NewFixed(buffer[:])
	if err != nil {
		log.Fatal(err)
	}
	packets := 0
	for {
		_, err := mem.Allocate(blockalloc.Layout{Size: 1024, Align: 1})
		if errors.Is(err, blockalloc.ErrOutOfMemory) {
			break
		}
		packets++
	}
	fmt.Println(packets, "packets use", mem.Used(), "of", mem.Size(), "bytes")
	mem.Reset()
	fmt.Println("now", mem.Used())
	// Output:
	// 4 packets use 4096 of 4096 bytes
	// now 0
}
