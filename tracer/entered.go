package tracer

import (
	"context"
	rtrace "runtime/trace"
)

// An entered is a region's context if its end has more to undo than its span. Few regions have one,
// so no Region has fields for it.
type entered struct {
	context.Context
	task   *rtrace.Task    // nil if no trace of the Go runtime was on when the region began
	former context.Context // has the goroutine's labels from before; nil if the region sets none
}

// enter begins what a region is beside a span, and returns what Start returns. former is the
// context that it is in.
func (r *Region) enter(former context.Context) (context.Context, *Region) {
	if traced, labelled := rtrace.IsEnabled(), r.failures.config.labels; traced || labelled {
		e := &entered{Context: r.context}
		if traced {
			e.startTask(r.name)
		}
		if labelled {
			e.setLabels(r, former)
		}
		r.context = e
	}
	return (*inner)(r), r
}

// leave ends what enter began, but for labels if the goroutine panics.
func (r *Region) leave(panics bool) {
	if e, ok := r.context.(*entered); ok {
		e.endTask(r)
		if !panics {
			e.restoreLabels()
		}
	}
}
