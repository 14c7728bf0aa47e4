package flight_test

import (
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/tracer/flight"
)

// BenchmarkPair is an allocation and a free that a Recorder observes.
func BenchmarkPair(b *testing.B) {
	recorder := flight.New(flight.Options{})
	defer recorder.Close()
	p := alloctrace.Wrap(measure.NewInner(), alloctrace.WithHooks(recorder))
	page := blockalloc.BlockLayout(4096)
	b.ReportAllocs()
	for b.Loop() {
		block, _ := p.Allocate(page)
		_ = p.Free(block)
	}
}
