package alloctrace_test

import (
	"context"
	"io"
	"log/slog"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/hooks/ring"
	"github.com/alloctrace/alloctrace/hooks/sloghook"
	"github.com/alloctrace/alloctrace/internal/measure"
)

func TestNoAllocations(t *testing.T) {
	nothing := alloctrace.HookFunc(func(context.Context, alloctrace.Event, error) {})
	for name, opts := range map[string][]alloctrace.Option{
		"counted":    nil,
		"no-op hook": {alloctrace.WithHooks(nothing)},
		"two hooks":  {alloctrace.WithHooks(nothing, nothing)},
		"writer":     {alloctrace.WithHooks(hooks.NewWriter(io.Discard))},
		"slog":       {alloctrace.WithHooks(sloghook.New(slog.NewJSONHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug})))},
		"ring":       {alloctrace.WithHooks(ring.New(64, ring.PreciseClock()))},
		"heap":       {alloctrace.WithHooks(heapprofile.New(heapprofile.Options{Rate: 1}))},
		"exact":      {alloctrace.WithCounter(counter.Exact())},
		"combined": {alloctrace.WithHooks(hooks.Tee(
			hooks.Filter(nothing, hooks.MinSize(1), hooks.Kinds(alloctrace.Freeing)),
			hooks.Sample(nothing, 2),
		))},
	} {
		t.Run(name, func(t *testing.T) {
			p := alloctrace.Wrap(measure.NewInner(), opts...)
			ctx := context.WithValue(t.Context(), p, p)
			measure.WantAllocs(t, 0, func() {
				b, _ := p.Allocate(page)
				b, _ = p.Reallocate(b, page.Size)
				_ = p.Free(b)
				b, _ = p.AllocateContext(ctx, page)
				_ = p.Free(b)
			})
		})
	}
	t.Run("refused", func(t *testing.T) {
		_, err := blockalloc.Null{}.Allocate(page)
		p := alloctrace.Wrap(refusing{err}, alloctrace.WithHooks(hooks.NewWriter(io.Discard)))
		measure.WantAllocs(t, 0, func() { _, _ = p.Allocate(page) })
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
