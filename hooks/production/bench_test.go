package production_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/guard"
	"github.com/alloctrace/alloctrace/hooks/blackbox"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/hooks/production"
	"github.com/alloctrace/alloctrace/hooks/ring"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// BenchmarkTable prints what a pair from a Pool costs with everything on, and what each part adds to a counted one: a row a measure, name
// value unit bound ok|over.
func BenchmarkTable(b *testing.B) {
	for b.Loop() {
		fmt.Println()
		clock := ring.NewCoarseClock(time.Millisecond)
		defer clock.Close()
		box, err := blackbox.Create(filepath.Join(b.TempDir(), "part"), blackbox.Options{Clock: clock})
		if err != nil {
			b.Fatal(err)
		}
		defer box.Close()
		all, err := production.Wrap(new(blockalloc.Pool), production.Options{BlackBox: filepath.Join(b.TempDir(), "all")})
		if err != nil {
			b.Fatal(err)
		}
		defer all.Close()
		with := func(name string, hooks ...alloctrace.Hook) measure.Subject {
			return measure.Pairs(name, 0, alloctrace.Wrap(new(blockalloc.Pool), alloctrace.WithHooks(hooks...)))
		}
		times := measure.Run(101, []measure.Subject{
			measure.Atomic(),
			measure.Pairs("pool", 0, new(blockalloc.Pool)),
			with("counted"),
			with("ring", ring.New(8192, clock)),
			with("box", box),
			with("profile", heapprofile.New(heapprofile.Options{})),
			with("peak", heapprofile.New(heapprofile.Options{Peak: true, Lifetimes: true})),
			measure.Pairs("guard", 0, alloctrace.Wrap(guard.New(new(blockalloc.Pool), guard.Options{}))),
			measure.Pairs("all", 0, all.Proxy),
		})
		measure.Row(os.Stdout, b, "production_pool_pair", times.Ratio("pool", "atomic"), "A", measure.NoBound)
		measure.Row(os.Stdout, b, "production_counted_pair", times.Ratio("counted", "atomic"), "A", measure.NoBound)
		for _, part := range []string{"ring", "box", "profile", "peak", "guard"} {
			measure.Row(os.Stdout, b, "production_"+part+"_over", times.Over(part, "counted", "atomic"), "A", measure.NoBound)
		}
		measure.Row(os.Stdout, b, "production_all_pair", times.Ratio("all", "atomic"), "A", 8.3)
	}
}
