package flight_test

import (
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/tracer/flight"
)

func TestNoAllocations(t *testing.T) {
	recorder := flight.New(flight.Options{})
	defer recorder.Close()
	p := alloctrace.Wrap(measure.NewInner(), alloctrace.WithHooks(recorder))
	page := blockalloc.BlockLayout(4096)
	measure.WantAllocs(t, 0, func() {
		b, _ := p.Allocate(page)
		b, _ = p.Reallocate(b, page.Size)
		_ = p.Free(b)
	})
}
