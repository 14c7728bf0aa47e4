package backstop_test

import (
	"context"
	"fmt"
	"path"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/backstop"
)

// receive returns a message, for the caller to free.
func receive(mem *backstop.Backstop) *[]byte {
	message, err := mem.Allocate(blockalloc.Layout{Size: 64 << 10, Align: 64})
	if err != nil {
		panic(err)
	}
	return message
}

func ExampleBackstop() {
	counted := alloctrace.Wrap(&blockalloc.Pool{})
	mem := backstop.New(counted, backstop.Options{OnDrop: func(d backstop.Drop) {
		fmt.Println(d.Size, "bytes dropped, allocated by", path.Base(d.Frames()[0].Function))
	}})

	if err := mem.Free(receive(mem)); err != nil {
		fmt.Println(err)
	}
	_ = receive(mem) // nobody frees this one

	if err := backstop.Collect(context.Background()); err != nil { // a program just goes on: the collector runs now and then
		fmt.Println(err)
	}
	fmt.Println(mem.Stats().DroppedBlocks, "dropped,", counted.Stats().LiveBlocks, "live")
	// Output:
	// 65536 bytes dropped, allocated by backstop_test.receive
	// 1 dropped, 0 live
}
