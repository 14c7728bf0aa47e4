// Package sloghook logs the events of an [alloctrace.Proxy] with log/slog, without allocating on
// the Go heap itself:
//
//	logger := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
//	mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithName("cache"), alloctrace.WithHooks(sloghook.New(logger.Handler())))
//
// writes lines such as
//
//	{"time":"…","level":"DEBUG","msg":"allocated","allocator":"cache","addr":139637976727552,"size":65536,"align":65536}
//
// Failures are logged at level Warn with the text of their error, up to 16 KiB of it. The
// name of the Proxy is the attribute allocator, that of a child Proxy is child. Addresses, sizes and
// alignments are of kind Uint64, for text would have to be allocated. Records have no source.
//
// The handler is given the context of the operation: see [alloctrace.Proxy.WithContext]. A
// handler that knows of OpenTelemetry, such as otelslog's, finds the span there. For any other,
// package tracer has NewSlogHandler, which adds trace_id and span_id.
//
// Handlers that allocate from the Proxy they log for must do so through
// [alloctrace.Proxy.Quiet]: else each record they handle causes the next.
package sloghook

import (
	"context"
	"log/slog"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/internal/text"
)

// An Option configures the hook.
type Option interface{ apply(*hook) }

type optionFunc func(*hook)

func (f optionFunc) apply(h *hook) { f(h) }

// WithLevel sets the level of events that are no failure: slog.LevelDebug unless set.
func WithLevel(l slog.Level) Option {
	return optionFunc(func(h *hook) { h.level = l })
}

// WithFailureLevel sets the level of failures: slog.LevelWarn unless set.
func WithFailureLevel(l slog.Level) Option {
	return optionFunc(func(h *hook) { h.failureLevel = l })
}

// New returns a Hook that logs to handler, of a logger its Handler method's. An event costs a call of
// Enabled, and if that is true a look at the clock and a call of Handle. Neither allocates unless the
// handler does. An error of Handle is dropped, as a [slog.Logger] does.
func New(handler slog.Handler, opts ...Option) alloctrace.Hook {
	if handler == nil {
		panic("sloghook: New(nil): pass a handler, such as slog.Default().Handler()")
	}
	h := &hook{handler: handler, level: slog.LevelDebug, failureLevel: slog.LevelWarn}
	for _, o := range opts {
		o.apply(h)
	}
	return h
}

type hook struct {
	handler             slog.Handler
	level, failureLevel slog.Level
	child               string // "" if it is of none
}

var _ alloctrace.Attacher = (*hook)(nil)

// Attach implements [alloctrace.Attacher].
func (h *hook) Attach(to *alloctrace.Attachment) alloctrace.Hook {
	part := *h
	part.child = text.Text(to.Child)
	if to.Proxy != "" {
		part.handler = h.handler.WithAttrs([]slog.Attr{slog.String("allocator", text.Text(to.Proxy))})
	}
	return &part
}

// Observe makes a record of at most five attributes: so many a [slog.Record] has room for
// without allocating.
func (h *hook) Observe(ctx context.Context, e alloctrace.Event, err error) {
	level := h.level
	if e.Kind.Failed() {
		level = h.failureLevel
	}
	if !h.handler.Enabled(ctx, level) {
		return
	}
	r := slog.NewRecord(time.Now(), level, e.Kind.String(), 0)
	r.AddAttrs(slog.Uint64("addr", uint64(e.Addr)), slog.Uint64("size", uint64(e.Size)), slog.Uint64("align", uint64(e.Align)))
	if err != nil {
		r.AddAttrs(slog.String("error", text.Text(err.Error())))
	}
	if h.child != "" {
		r.AddAttrs(slog.String("child", h.child))
	}
	_ = h.handler.Handle(ctx, r)
}
