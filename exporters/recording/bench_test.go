package recording_test

import (
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// BenchmarkTable prints what a Recorder costs a pair of Allocate and Free on top of a counted one, and how many bytes an
// event takes, a row a measure.
func BenchmarkTable(b *testing.B) {
	for b.Loop() {
		fmt.Println()
		var recorders []*recording.Recorder
		var files []*counted
		pair := func(name string, o *recording.Options) measure.Subject {
			var hooks []alloctrace.Hook
			if o != nil {
				f := new(counted)
				r, err := recording.New(f, *o)
				if err != nil {
					b.Fatal(err)
				}
				recorders, files, hooks = append(recorders, r), append(files, f), append(hooks, r)
			}
			p := alloctrace.Wrap(&blockalloc.Pool{}, alloctrace.WithHooks(hooks...))
			l := blockalloc.BlockLayout(4096)
			return measure.Subject{Name: name, Turn: 1000, Run: func(n int) {
				for range n {
					block, err := p.Allocate(l)
					if err == nil {
						err = p.Free(block)
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			}}
		}
		times := measure.Run(101, []measure.Subject{
			pair("counted", nil),
			pair("recorded", &recording.Options{}),
			pair("recorded_stackless", &recording.Options{NoStacks: true}),
		})
		for i, name := range []string{"recorded", "recorded_stackless"} {
			measure.Row(os.Stdout, b, name+"_over_counted", times.Median(name)-times.Median("counted"), "ns", measure.NoBound)
			if err := recorders[i].Close(); err != nil {
				b.Fatal(err)
			}
			u := recorders[i].Usage()
			measure.Row(os.Stdout, b, name+"_event_bytes", float64(files[i].n)/float64(u.Sampled), "B", 8)
			measure.Row(os.Stdout, b, name+"_dropped", float64(u.Dropped)/float64(u.Events), "of all", measure.NoBound)
		}
	}
}

type counted struct{ n int64 }

func (c *counted) Write(b []byte) (int, error) { c.n += int64(len(b)); return len(b), nil }

var _ io.Writer = (*counted)(nil)
