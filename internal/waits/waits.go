// Package waits has what a context knows of who wants to know that an allocation has waited for
// room. Package blockalloc says it, and regions count it.
package waits

import (
	"context"
	"time"
)

// Key is the key of an [Observer] in a context.
type Key struct{}

// An Observer counts waits. Waited is called concurrently.
type Observer interface{ Waited(d time.Duration) }

// Done says that an allocation in ctx has waited since start.
func Done(ctx context.Context, start time.Time) {
	if o, ok := ctx.Value(Key{}).(Observer); ok {
		o.Waited(time.Since(start))
	}
}
