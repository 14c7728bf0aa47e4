package tracer

import (
	"context"
	"fmt"
	rtrace "runtime/trace"

	"github.com/alloctrace/alloctrace/internal/text"
)

// logCategory is the category of messages in a trace of the Go runtime.
const logCategory = "allocator"

// startTask begins the task of a region in a trace of the Go runtime.
func (e *entered) startTask(name string) {
	if name = text.Name(name); name == "" {
		name = "region" // InSpan has no name
	}
	e.Context, e.task = rtrace.NewTask(e.Context, name)
}

func (e *entered) endTask(r *Region) {
	if e.task == nil {
		return
	}
	t := r.inside.Totals()
	rtrace.Log(e, logCategory, fmt.Sprintf("end: %d bytes allocated, %d freed, %d live, peak %d, %d failures, %d waits",
		t.AllocatedBytes, t.FreedBytes, t.LiveBytes, t.PeakBytes, t.Failures[0]+t.Failures[1]+t.Failures[2], t.Waits))
	e.task.End()
}

// Peaked says in a trace of the Go runtime that the peak has reached another power of two.
func (i *inner) Peaked(bytes int64) {
	rtrace.Log(i.context, logCategory, fmt.Sprintf("peak %d bytes", bytes))
}

// logFailure says in a trace of the Go runtime that an operation has failed.
func logFailure(ctx context.Context, op string, size uintptr, err error) {
	live := ""
	if r := FromContext(ctx); r != nil {
		t := r.inside.Totals()
		live = fmt.Sprintf(", %d live of the region, peak %d", t.LiveBytes, t.PeakBytes)
	}
	rtrace.Log(ctx, logCategory, text.Name(fmt.Sprintf("%s failed: %d bytes%s: %v", op, size, live, err)))
}
