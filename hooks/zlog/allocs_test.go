package zlog_test

import (
	"context"
	"io"
	"testing"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/zlog"
	"github.com/alloctrace/alloctrace/internal/measure"
)

func TestNoAllocations(t *testing.T) {
	page := blockalloc.BlockLayout(4 << 10)
	span := trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2},
	}))
	logger := zerolog.New(io.Discard)
	logged := alloctrace.Wrap(measure.NewInner(), alloctrace.WithHooks(zlog.New(logger)))
	for name, p := range map[string]*alloctrace.Proxy{
		"logged":    logged,
		"of child":  logged.Child("cache"),
		"in a span": logged.WithContext(span),
		"level off": alloctrace.Wrap(measure.NewInner(), alloctrace.WithHooks(zlog.New(logger.Level(zerolog.Disabled)))),
	} {
		t.Run(name, func(t *testing.T) {
			measure.WantAllocs(t, 0, func() {
				b, _ := p.Allocate(page)
				b, _ = p.Reallocate(b, page.Size)
				_ = p.Free(b)
			})
		})
	}
	t.Run("refused", func(t *testing.T) {
		_, err := blockalloc.Null{}.Allocate(page)
		failed := alloctrace.Event{Kind: alloctrace.AllocateFailed, Size: page.Size, Align: page.Align}
		hook := zlog.New(logger)
		measure.WantAllocs(t, 0, func() { hook.Observe(span, failed, err) })
	})
}
