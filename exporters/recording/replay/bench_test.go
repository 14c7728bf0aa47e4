package replay_test

import (
	"context"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/recording/replay"
)

// BenchmarkRun measures a replay on each allocator, and what it takes of it.
func BenchmarkRun(b *testing.B) {
	file, _ := storm(b, 1, 50_000, true)
	p := load(b, file)
	for _, of := range []struct {
		name string
		new  func() blockalloc.Allocator
	}{
		{"Heap", func() blockalloc.Allocator { return new(blockalloc.Heap) }},
		{"Pool", func() blockalloc.Allocator { return new(blockalloc.Pool) }},
		{"Slab", func() blockalloc.Allocator { return slab(b) }},
	} {
		for name, o := range map[string]replay.Options{"/all": {}, "/edges": {Edges: true}, "/addresses": {Edges: true, Addresses: true}, "/goroutines": {Edges: true, Goroutines: 2}} {
			b.Run(of.name+name, func(b *testing.B) {
				var operations int64
				var called, wall time.Duration
				a := of.new()
				for b.Loop() {
					r, err := replay.Run(context.Background(), p, a, o)
					if err != nil {
						b.Fatal(err)
					}
					operations += r.Operations
					wall += r.Wall
					called += r.Calls.Allocate.Time + r.Calls.Reallocate.Time + r.Calls.Free.Time
				}
				b.ReportMetric(float64(wall)/float64(operations), "ns/operation")
				b.ReportMetric(float64(called)/float64(operations), "ns/call")
			})
		}
	}
}
