// Package hooks combines, thins out and prints the events of an [alloctrace.Proxy]. All hooks
// here may be used by several goroutines at once and by several proxies, and allocate nothing on
// the Go heap per event. Package hooks/heapprofile knows from them what is live, and hooks/ring
// keeps the last ones.
package hooks

import (
	"context"

	"github.com/alloctrace/alloctrace"
)

// Tee returns a Hook that hands on each event to all of hooks, in order. A nil Hook
// is left out.
func Tee(hooks ...alloctrace.Hook) alloctrace.Hook {
	var t tee
	for _, h := range hooks {
		if h != nil {
			t = append(t, h)
		}
	}
	return t
}

type tee []alloctrace.Hook

func (t tee) Observe(ctx context.Context, e alloctrace.Event, err error) {
	for _, h := range t {
		h.Observe(ctx, e, err)
	}
}

// Attach implements [alloctrace.Attacher].
func (t tee) Attach(to *alloctrace.Attachment) alloctrace.Hook {
	parts := make(tee, len(t))
	for i, h := range t {
		parts[i] = to.Attach(h)
	}
	return parts
}
