// Package zlog logs the events of an [alloctrace.Proxy] with zerolog, without
// allocating on the Go heap:
//
//	log := zerolog.New(os.Stderr).With().Timestamp().Str("allocator", "cache").Logger()
//	mem := alloctrace.Wrap(&blockalloc.System{}, alloctrace.WithHooks(zlog.New(log)))
//
// writes lines such as
//
//	{"level":"debug","allocator":"cache","addr":"00007f0000400000","size":65536,"align":65536,"message":"allocated"}
//
// Failures are logged at level warn with their error, of which up to 16 KiB are logged. What a
// child Proxy does has its name as child. Where the context holds an
// OpenTelemetry span, trace_id and span_id are logged as well; see [alloctrace.Proxy.WithContext].
// Hooks of zerolog find the context in the event.
//
// Writers that allocate from the Proxy they log for must do so through
// [alloctrace.Proxy.Quiet]: else each line they write causes the next.
package zlog

import (
	"context"
	"encoding/binary"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/internal/text"
)

// An Option configures the hook.
type Option interface{ apply(*hook) }

type optionFunc func(*hook)

func (f optionFunc) apply(h *hook) { f(h) }

// WithLevel sets the level of events that are no failure: zerolog.DebugLevel
// unless set.
func WithLevel(l zerolog.Level) Option {
	return optionFunc(func(h *hook) { h.level = l })
}

// WithFailureLevel sets the level of failures: zerolog.WarnLevel unless set.
func WithFailureLevel(l zerolog.Level) Option {
	return optionFunc(func(h *hook) { h.failureLevel = l })
}

// New returns a Hook that logs to log. An event below log's level costs a few
// comparisons. A name for the allocator belongs to log.
func New(log zerolog.Logger, opts ...Option) alloctrace.Hook {
	h := &hook{log: log, level: zerolog.DebugLevel, failureLevel: zerolog.WarnLevel}
	for _, o := range opts {
		o.apply(h)
	}
	return h
}

type hook struct {
	log                 zerolog.Logger
	level, failureLevel zerolog.Level
	child               string // "" if it is of none
}

// Attach implements [alloctrace.Attacher].
func (h *hook) Attach(to *alloctrace.Attachment) alloctrace.Hook {
	part := *h
	part.child = text.Text(to.Child)
	return &part
}

func (h *hook) Observe(ctx context.Context, e alloctrace.Event, err error) {
	level := h.level
	if e.Kind.Failed() {
		level = h.failureLevel
	}
	line := h.log.WithLevel(level)
	if line == nil { // the level is off
		return
	}
	var addr [8]byte
	binary.BigEndian.PutUint64(addr[:], uint64(e.Addr))
	line.Hex("addr", addr[:]).Uint64("size", uint64(e.Size)).Uint64("align", uint64(e.Align))
	if err != nil {
		line.Err(fit(err))
	}
	if h.child != "" {
		line.Str("child", h.child)
	}
	if ctx != context.Background() { // which is what a Proxy has unless it is given another
		line.Ctx(ctx)
		addSpan(ctx, line)
	}
	line.Msg(e.Kind.String())
}

// fit returns err, or one with a text that is valid UTF-8 and bounded.
func fit(err error) error {
	is := err.Error()
	if fit := text.Text(is); fit != is {
		return &fitting{fit, err}
	}
	return err
}

type fitting struct {
	text string
	err  error
}

func (f *fitting) Error() string { return f.text }
func (f *fitting) Unwrap() error { return f.err }

func addSpan(ctx context.Context, line *zerolog.Event) {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		t, s := span.TraceID(), span.SpanID()
		line.Hex("trace_id", t[:]).Hex("span_id", s[:])
	}
}
