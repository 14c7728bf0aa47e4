package blockalloc_test

import (
	"errors"
	"fmt"
	"log"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// What a scope allocated is freed when its function returns, also with an error.
func ExampleScoped() {
	mem, err := blockalloc.NewScoped(blockalloc.Default(), 64<<10)
	if err != nil {
		log.Fatal(err)
	}
	defer mem.Close()
	err = mem.Scope(func(inner *blockalloc.Scoped) error {
		scratch, err := inner.Allocate(blockalloc.BlockLayout(4096))
		if err != nil {
			return err
		}
		_, err = mem.Allocate(blockalloc.BlockLayout(4096))
		fmt.Println("the outer scope waits:", errors.Is(err, blockalloc.ErrScoped))
		fmt.Println("inside,", mem.Used(), "bytes are used; inner owns them:", inner.Owns(scratch))
		return errors.New("the parser gave up")
	})
	fmt.Println("after it,", mem.Used(), "and the error:", err)
	// Output:
	// the outer scope waits: true
	// inside, 4096 bytes are used; inner owns them: true
	// after it, 0 and the error: the parser gave up
}
