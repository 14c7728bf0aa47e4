package tracer

import (
	"context"
	"runtime/pprof"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/internal/text"
)

// maxLabel is how many bytes of a label's value its readers take.
const maxLabel = 48

// WithProfilerLabels has a region set labels of runtime/pprof, in its context and on the goroutine
// that calls [Start] or [InSpan]: "allocator", the name of the Proxy or child, and "region", the
// region's name. Values are valid UTF-8 and cut to 48 bytes; an empty one is not set. Goroutines
// that are started inside inherit them. They are in profiles of the processor and of goroutines,
// in those of package heapprofile, and, of modules with go 1.27 in go.mod, in tracebacks.
//
// [Region.End] restores the labels of the context that the region is in, as [pprof.Do] does. So it
// must be called on the goroutine that began the region. When a panic goes through a deferred End
// of a region with a span of its own, the labels stay for the traceback; if the
// program recovers further out, they stay until the goroutine's next region ends.
//
// It costs half a microsecond, and 250 bytes in 5 allocations on the Go heap.
func WithProfilerLabels() Option {
	return optionFunc(func(c *config) { c.labels = true })
}

// setLabels sets the labels of a region in the context former.
func (e *entered) setLabels(r *Region, former context.Context) {
	var labels []string
	if p, ok := r.mem.(*alloctrace.Proxy); ok && p.Name() != "" {
		labels = append(labels, "allocator", text.Valid(p.Name(), maxLabel))
	}
	if r.name != "" {
		labels = append(labels, "region", text.Valid(r.name, maxLabel))
	}
	e.former, e.Context = former, pprof.WithLabels(e.Context, pprof.Labels(labels...))
	pprof.SetGoroutineLabels(e)
}

func (e *entered) restoreLabels() {
	if e.former != nil {
		pprof.SetGoroutineLabels(e.former)
	}
}
