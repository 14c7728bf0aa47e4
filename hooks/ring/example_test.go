package ring_test

import (
	"context"
	"fmt"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/hooks/ring"
)

// The last events before something went wrong.
func ExampleRing() {
	last := ring.New(64, nil)
	mem := alloctrace.Wrap(failing.After(&blockalloc.Heap{}, 2), alloctrace.WithHooks(last))
	b, _ := mem.Allocate(blockalloc.BlockLayout(4096))
	_ = mem.Free(b)
	_, _ = mem.Allocate(blockalloc.BlockLayout(64))
	if _, err := mem.Allocate(blockalloc.BlockLayout(8192)); err != nil {
		for _, r := range last.Records() {
			fmt.Println(r.Kind, r.Size, r.Err)
		}
	}
	// Output:
	// allocated 4096 <nil>
	// freeing 4096 <nil>
	// allocated 64 <nil>
	// allocate failed 8192 failing.After(2).Allocate(8192 B aligned to 8192): out of memory: injected failure: call 3
}

// A slow hook does not hold up those who allocate.
func ExampleNewDrainer() {
	events := ring.New(1024, nil)
	slow := alloctrace.HookFunc(func(_ context.Context, e alloctrace.Event, _ error) {
		time.Sleep(time.Millisecond)
		fmt.Println(e.Kind, e.Size)
	})
	drainer := ring.NewDrainer(events, slow, time.Second)
	mem := alloctrace.Wrap(&blockalloc.Heap{}, alloctrace.WithHooks(events))
	b, err := mem.Allocate(blockalloc.BlockLayout(4096))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(mem.Free(b))
	_ = drainer.Close()
	fmt.Println("dropped", drainer.Dropped())
	// Output:
	// <nil>
	// allocated 4096
	// freeing 4096
	// dropped 0
}
