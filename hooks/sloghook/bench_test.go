package sloghook_test

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/hooks/sloghook"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// BenchmarkTable prints what logging by slog costs, a row a measure: name value unit bound ok|over. Beside slog_event,
// through a JSONHandler, is slog_log: the same record, made by slog's LogAttrs.
func BenchmarkTable(b *testing.B) {
	for b.Loop() {
		table(b)
	}
}

func table(b *testing.B) {
	var sum uint64
	json := slog.NewJSONHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug})
	logger, ctx := slog.New(json), b.Context()
	hook, bare := sloghook.New(json), sloghook.New(reader{&sum})
	counted := func(opts ...alloctrace.Option) *alloctrace.Proxy { return alloctrace.Wrap(measure.NewInner(), opts...) }
	logged := counted(alloctrace.WithHooks(hook))
	times := measure.Run(1001, []measure.Subject{
		measure.Atomic(),
		{Name: "slog_log", Turn: 200, Run: func(n int) {
			for range n {
				logger.LogAttrs(ctx, slog.LevelDebug, allocated.Kind.String(), slog.Uint64("addr", uint64(allocated.Addr)),
					slog.Uint64("size", uint64(allocated.Size)), slog.Uint64("align", uint64(allocated.Align)))
			}
		}},
		{Name: "slog_event", Turn: 200, Run: func(n int) {
			for range n {
				hook.Observe(ctx, allocated, nil)
			}
		}},
		measure.Pairs("counted", 2000, counted()),
		measure.Pairs("slog", 200, logged),
		measure.Pairs("slog_no_handler", 200, counted(alloctrace.WithHooks(bare))),
		measure.Pairs("slog_off", 2000, counted(alloctrace.WithHooks(sloghook.New(slog.NewJSONHandler(io.Discard, nil))))),
	})
	row := func(name string, value float64, unit string, bound float64) {
		measure.Row(os.Stdout, b, name, value, unit, bound)
	}
	fmt.Println()
	row("slog_event_over_slog", times.Ratio("slog_event", "slog_log"), "x", 1.10)
	for _, name := range []string{"slog", "slog_no_handler", "slog_off"} {
		row(name+"_over_counted", times.Over(name, "counted", "atomic"), "A", measure.NoBound)
	}
	pair := measure.Pairs("", 0, logged)
	row("slog_allocations", testing.AllocsPerRun(1000, func() { pair.Run(1) }), "allocs/op", 0)
}
