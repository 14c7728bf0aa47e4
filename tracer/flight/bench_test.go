package flight_test

import (
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/tracer/flight"
)

// observed returns an operation on one block that a Recorder observes.
func observed(tb testing.TB) (operation func()) {
	recorder := flight.New(flight.Options{})
	tb.Cleanup(func() { recorder.Close() })
	p := alloctrace.Wrap(measure.NewInner(), alloctrace.WithHooks(recorder))
	page := blockalloc.BlockLayout(4096)
	return func() {
		b, _ := p.Allocate(page)
		b, _ = p.Reallocate(b, page.Size)
		_ = p.Free(b)
	}
}

func TestNoAllocations(t *testing.T) { measure.WantAllocs(t, 0, observed(t)) }

// BenchmarkBlock is an allocation, a reallocation and a free that a Recorder observes.
func BenchmarkBlock(b *testing.B) {
	operation := observed(b)
	b.ReportAllocs()
	for b.Loop() {
		operation()
	}
}
