// Package hooks combines, thins out, prints and keeps the events of an
// [alloctrace.Proxy], and knows from them what is live. All hooks here may be used by
// several goroutines at once and by several proxies, also where one Proxy takes memory from
// another, and allocate nothing on the Go heap per event, but for what [Leaks] remembers
// of live blocks.
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
