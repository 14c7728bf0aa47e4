package heapprofile

import (
	"fmt"
	"os"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// BenchmarkTable prints what a pair of which every block is sampled costs with the options of a Profile, over one without them, and
// one of which hardly any is: a row a measure, name value unit bound ok|over.
func BenchmarkTable(b *testing.B) {
	for b.Loop() {
		fmt.Println()
		profiled := func(name string, o Options) measure.Subject {
			mem := alloctrace.Wrap(measure.NewInner(), alloctrace.WithHooks(New(o)))
			return measure.Pairs(name, 0, mem)
		}
		times := measure.Run(51, []measure.Subject{
			measure.Atomic(),
			profiled("every", Options{Rate: 1}),
			profiled("every+lifetimes", Options{Rate: 1, Lifetimes: true}),
			profiled("every+peak", Options{Rate: 1, Peak: true}),
			profiled("some", Options{}),
			profiled("some+both", Options{Lifetimes: true, Peak: true}),
		})
		measure.Row(os.Stdout, b, "heapprofile_every_pair", times.Median("every"), "ns", measure.NoBound)
		for _, name := range []string{"lifetimes", "peak"} {
			measure.Row(os.Stdout, b, "heapprofile_every_"+name+"_over", times.Median("every+"+name)-times.Median("every"), "ns", measure.NoBound)
		}
		measure.Row(os.Stdout, b, "heapprofile_some_both_over", times.Over("some+both", "some", "atomic"), "A", 0.6)
	}
}
