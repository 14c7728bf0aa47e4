package blockalloc_test

import (
	"fmt"
	"log"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// The temporaries of each request are freed together. What was there before stays.
func ExampleBump() {
	mem, err := blockalloc.NewBump(blockalloc.Default(), 1<<20)
	if err != nil {
		log.Fatal(err)
	}
	defer mem.Close()
	table, err := mem.Allocate(blockalloc.Layout{Size: 4096, Align: 8})
	if err != nil {
		log.Fatal(err)
	}

	mark := mem.Mark()
	for request := range 3 {
		for range 10 {
			if _, err := mem.Allocate(blockalloc.Layout{Size: 1000, Align: 8}); err != nil {
				log.Fatal(err)
			}
		}
		fmt.Println("request", request, "uses", mem.Used(), "bytes")
		if err := mem.Release(mark); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("then", mem.Used(), "bytes are used; the table is there:", mem.Owns(table))
	// Output:
	// request 0 uses 14096 bytes
	// request 1 uses 14096 bytes
	// request 2 uses 14096 bytes
	// then 4096 bytes are used; the table is there: true
}
