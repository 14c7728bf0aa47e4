package guard_test

import (
	"fmt"
	"math"
	"os"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/guard"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// BenchmarkTable prints what a pair costs through an Allocator, over one without: a row a measure, name
// value unit bound ok|over. What a wrapper costs that does nothing is apart from what it draws and compares. Pairs that pass through, with their draw, are apart from the mean of all of
// them: of blocks of 4 KiB one in 2048 is guarded, which takes two system calls.
func BenchmarkTable(b *testing.B) {
	for b.Loop() {
		fmt.Println()
		guarded := func(rate int) func() blockalloc.Allocator {
			return func() blockalloc.Allocator {
				return newAllocator(b, measure.NewInner(), guard.Options{Rate: rate})
			}
		}
		profiled := func(inner func() blockalloc.Allocator) func() blockalloc.Allocator {
			return func() blockalloc.Allocator {
				return alloctrace.Wrap(inner(), alloctrace.WithHooks(heapprofile.New(heapprofile.Options{})))
			}
		}
		const never, turn = math.MaxInt32, 20_000 // of a turn some ten are guarded
		bare := func() blockalloc.Allocator { return measure.NewInner() }
		forwarded := func() blockalloc.Allocator { return &forwarding{measure.NewInner()} }
		subject := func(name string, make func() blockalloc.Allocator) measure.Subject {
			return measure.Pairs(name, turn, make(), make(), make(), make())
		}
		times := measure.Run(101, []measure.Subject{
			measure.Atomic(),
			subject("bare", bare),
			subject("passing", guarded(never)),
			subject("mean", guarded(0)),
			subject("profiled", profiled(bare)),
			subject("forwarding", profiled(forwarded)),
			subject("both", profiled(guarded(never))),
			measure.Pairs("every", 20, guarded(1)()),
		})
		measure.Row(os.Stdout, b, "guard_pair_over", times.Over("passing", "bare", "atomic"), "A", 0.8)
		measure.Row(os.Stdout, b, "guard_beside_profile_over", times.Over("both", "profiled", "atomic"), "A", 0.3)
		measure.Row(os.Stdout, b, "guard_wrapper_beside_profile_over", times.Over("forwarding", "profiled", "atomic"), "A", measure.NoBound)
		measure.Row(os.Stdout, b, "guard_draw_beside_profile_over", times.Over("both", "forwarding", "atomic"), "A", measure.NoBound)
		measure.Row(os.Stdout, b, "guard_4k_mean_over", times.Over("mean", "bare", "atomic"), "A", measure.NoBound)
		measure.Row(os.Stdout, b, "guard_every_pair", times.Median("every"), "ns", measure.NoBound)
	}
}

// forwarding is a wrapper that does nothing.
type forwarding struct{ inner blockalloc.Allocator }

func (f *forwarding) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	return f.inner.Allocate(l)
}

func (f *forwarding) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	return f.inner.Reallocate(b, size)
}

func (f *forwarding) Free(b blockalloc.Block) error { return f.inner.Free(b) }
