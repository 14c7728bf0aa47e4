package alloctrace_test

import (
	"context"
	"io"
	"testing"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/hooks/zlog"
)

// wantAllocs checks how many Go heap allocations a call of f makes.
func wantAllocs(t *testing.T, want float64, f func()) {
	t.Helper()
	if raceEnabled {
		t.Log("under the race detector sync.Pool drops items: nothing to measure")
		return
	}
	if got := testing.AllocsPerRun(1000, f); got != want {
		t.Errorf("%v allocations, want %v", got, want)
	}
}

func TestNoAllocations(t *testing.T) {
	span := trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2},
	}))
	nothing := alloctrace.HookFunc(func(context.Context, alloctrace.Event) {})
	logger := zerolog.New(io.Discard)
	for name, opts := range map[string][]alloctrace.Option{
		"counted":        nil,
		"no-op hook":     {alloctrace.WithHooks(nothing)},
		"two hooks":      {alloctrace.WithHooks(nothing, nothing)},
		"writer":         {alloctrace.WithHooks(hooks.NewWriter(io.Discard))},
		"ring":           {alloctrace.WithHooks(hooks.NewRing(64, hooks.Precise))},
		"exact":          {alloctrace.WithCounter(counter.Exact())},
		"zlog":           {alloctrace.WithHooks(zlog.New(logger))},
		"zlog in a span": {alloctrace.WithHooks(zlog.New(logger)), alloctrace.WithContext(span)},
		"zlog off":       {alloctrace.WithHooks(zlog.New(logger.Level(zerolog.Disabled)))},
		"combined": {alloctrace.WithHooks(hooks.Tee(
			hooks.Filter(nothing, hooks.MinSize(1), hooks.Kinds(alloctrace.Freeing)),
			hooks.Sample(2, nothing),
		))},
	} {
		t.Run(name, func(t *testing.T) {
			p := alloctrace.Wrap(newSingle(t), opts...)
			wantAllocs(t, 0, func() {
				b, _ := p.Allocate(page)
				b, _ = p.Reallocate(b, page.Size)
				_ = p.Free(b)
			})
		})
	}
	t.Run("refused", func(t *testing.T) {
		_, err := blockalloc.Null{}.Allocate(page)
		p := alloctrace.Wrap(refusing{err}, alloctrace.WithHooks(zlog.New(logger), hooks.NewWriter(io.Discard)))
		wantAllocs(t, 0, func() { _, _ = p.Allocate(page) })
	})
}

// refusing fails each operation with one error that was made before.
type refusing struct{ err error }

func (r refusing) Allocate(blockalloc.Layout) (blockalloc.Block, error) {
	return blockalloc.Block{}, r.err
}

func (r refusing) Reallocate(b blockalloc.Block, _ uintptr) (blockalloc.Block, error) {
	return b, r.err
}

func (r refusing) Free(blockalloc.Block) error { return r.err }
