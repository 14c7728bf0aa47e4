package hooks_test

import (
	"fmt"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/hooks/ring"
)

// A Meter around a hook estimates what the hook costs, and returns what it takes. Of so few events
// it may have timed some, or none.
func ExampleNewMeter() {
	events := ring.New(1024, nil)
	meter := hooks.NewMeter(events)
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(meter))
	for range 1000 {
		block, err := mem.Allocate(blockalloc.BlockLayout(4096))
		if err != nil {
			fmt.Println(err)
			return
		}
		defer mem.Free(block)
	}

	u := meter.Usage()
	fmt.Println(u.Events, "events,", u.Dropped, "dropped, more than 32 KiB:", u.Bytes > 32<<10)
	// Output: 1000 events, 0 dropped, more than 32 KiB: true
}
