// Package hooks combines, thins out, prints and keeps the events of an
// [alloctrace.Proxy], and knows from them what is live. All hooks here may be used by
// several goroutines at once and by several proxies, also where one Proxy takes memory from
// another, and allocate nothing on the Go heap per event, but for what [Leaks] remembers
// of live blocks.
package hooks

import (
	"context"
	"sync/atomic"

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

func (t tee) Observe(ctx context.Context, e alloctrace.Event, err error) {
	for _, h := range t {
		h.Observe(ctx, e, err)
	}
}

// Track returns the Tee of the parts for one Proxy; [alloctrace.WithHooks] calls it.
func (t tee) Track(pending *atomic.Int64) alloctrace.ReleaseHook {
	var r releases
	parts := make(tee, len(t))
	for i, h := range t {
		parts[i] = r.track(h, pending)
	}
	return struct {
		tee
		releases
	}{parts, r}
}

// releases are the hooks that a hook hands on events to and that wait for the end of releases.
type releases []alloctrace.ReleaseHook

// track returns the part of h for one Proxy, or h itself if it has none.
func (r *releases) track(h alloctrace.Hook, pending *atomic.Int64) alloctrace.Hook {
	t, ok := h.(alloctrace.TrackingHook)
	if !ok {
		return h
	}
	part := t.Track(pending)
	*r = append(*r, part)
	return part
}

func (r releases) Released(addr, size uintptr) {
	for _, h := range r {
		h.Released(addr, size)
	}
}
