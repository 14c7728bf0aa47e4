// Package waits has what a context knows of who wants to know that an allocation has waited for
// room. Package blockalloc says it, and regions count it.
package waits

import (
	"context"
	"fmt"
	rtrace "runtime/trace"
	"time"
)

// Key is the key of an [Observer] in a context.
type Key struct{}

// An Observer counts waits. Waited is called concurrently.
type Observer interface{ Waited(d time.Duration) }

// Done says that an allocation in ctx has waited since start, in a trace of the Go runtime too if
// one is taken.
func Done(ctx context.Context, start time.Time) {
	if rtrace.IsEnabled() {
		rtrace.Log(ctx, "allocator", fmt.Sprintf("waited %v for room", time.Since(start)))
	}
	if o, ok := ctx.Value(Key{}).(Observer); ok {
		o.Waited(time.Since(start))
	}
}
