// Package hooks combines, thins out, prints and keeps the events of an
// [alloctrace.Proxy], and knows from them what is live. All hooks here may be used by
// several goroutines at once and by several proxies, and allocate nothing on the Go
// heap per event, but for what [Leaks] remembers of live blocks.
package hooks

import (
	"context"

	"github.com/alloctrace/alloctrace"
)

// Tee returns a Hook that tells each event to all of hooks, in order. A nil Hook
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

func (t tee) Observe(ctx context.Context, e alloctrace.Event) {
	for _, h := range t {
		h.Observe(ctx, e)
	}
}
