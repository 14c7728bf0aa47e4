package blackbox

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/hooks/ring"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// BenchmarkTable prints what a pair costs with a Box over one with a Ring of as many events, and what writing the rest does: a row a
// measure, name value unit bound ok|over.
func BenchmarkTable(b *testing.B) {
	for b.Loop() {
		fmt.Println()
		clock := ring.NewCoarseClock(time.Millisecond)
		defer clock.Close()
		var rings, boxes []blockalloc.Allocator
		for i := range 3 {
			box, err := Create(filepath.Join(b.TempDir(), fmt.Sprint(i)), Options{Clock: clock, Size: 1 << 20})
			if err != nil {
				b.Fatal(err)
			}
			defer box.Close()
			boxes = append(boxes, alloctrace.Wrap(measure.NewInner(), alloctrace.WithHooks(box)))
			rings = append(rings, alloctrace.Wrap(measure.NewInner(), alloctrace.WithHooks(ring.New(int(box.shared.events), clock))))
		}
		times := measure.Run(301, []measure.Subject{
			measure.Atomic(),
			measure.Pairs("ring", 2000, rings...),
			measure.Pairs("box", 2000, boxes...),
		})
		measure.Row(os.Stdout, b, "blackbox_pair", times.Median("box"), "ns", measure.NoBound)
		measure.Row(os.Stdout, b, "blackbox_over_ring", times.Over("box", "ring", "atomic"), "A", 0.2)
		flushed(b)
	}
}

// flushed prints how long a Flush of 1000 sites takes.
func flushed(b *testing.B) {
	profile := heapprofile.New(heapprofile.Options{Rate: 1, Peak: true})
	box := onHeap(b, Options{Profile: profile, Period: time.Hour})
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(profile, box))
	box.Watch(mem)
	for i := range 1000 {
		if _, err := mem.Child(fmt.Sprint(i)).Allocate(blockalloc.BlockLayout(64)); err != nil {
			b.Fatal(err)
		}
	}
	times := measure.Run(21, []measure.Subject{{Name: "flush", Turn: 1, Run: func(int) { box.Flush() }}})
	measure.Row(os.Stdout, b, "blackbox_flush_1000_sites", times.Median("flush")/1e6, "ms", measure.NoBound)
}
