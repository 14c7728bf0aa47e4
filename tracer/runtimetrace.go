package tracer

import (
	"context"
	"fmt"
	rtrace "runtime/trace"

	"github.com/alloctrace/alloctrace/internal/text"
)

// logCategory is the category of messages in a trace of the Go runtime.
const logCategory = "allocator"

// A taskContext is a region's context if a trace of the Go runtime was on when the region
// began. Only such regions have one, so that no Region has a field for it.
type taskContext struct {
	context.Context
	task *rtrace.Task
}

// enter makes a region's context that of a task if a trace of the Go runtime is on, and returns what Start
// returns.
func (r *Region) enter() (context.Context, *Region) {
	if rtrace.IsEnabled() {
		r.startTask()
	}
	return (*inner)(r), r
}

func (r *Region) startTask() {
	name := text.Name(r.name)
	if name == "" {
		name = "region" // InSpan has no name
	}
	ctx, task := rtrace.NewTask(r.context, name)
	r.context = &taskContext{ctx, task}
}

// leave ends what enter began.
func (r *Region) leave() {
	if c, ok := r.context.(*taskContext); ok {
		t := r.inside.Totals()
		rtrace.Log(c, logCategory, fmt.Sprintf("end: %d bytes allocated, %d freed, %d live, peak %d, %d failures, %d waits",
			t.AllocatedBytes, t.FreedBytes, t.LiveBytes, t.PeakBytes, t.Failures[0]+t.Failures[1]+t.Failures[2], t.Waits))
		c.task.End()
	}
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
