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
	for name, opts := range map[string][]alloctrace.Option{
		"logged":    {alloctrace.WithHooks(zlog.New(logger))},
		"in a span": {alloctrace.WithHooks(zlog.New(logger)), alloctrace.WithContext(span)},
		"level off": {alloctrace.WithHooks(zlog.New(logger.Level(zerolog.Disabled)))},
	} {
		t.Run(name, func(t *testing.T) {
			p := alloctrace.Wrap(measure.NewInner(), opts...)
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
