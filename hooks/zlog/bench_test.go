package zlog_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/rs/zerolog"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/hooks/zlog"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// BenchmarkTable prints what logging costs, a row a measure: name value unit bound ok|over.
func BenchmarkTable(b *testing.B) {
	for b.Loop() {
		table(b)
	}
}

func table(b *testing.B) {
	logger := zerolog.New(io.Discard)
	off := logger.Level(zerolog.Disabled)
	hook := zlog.New(logger)
	event := alloctrace.Event{Kind: alloctrace.Allocated, Addr: 0x7f400000, Size: 4096, Align: 4096}
	ctx := context.Background()
	counted := func(opts ...alloctrace.Option) *alloctrace.Proxy { return alloctrace.Wrap(measure.NewInner(), opts...) }
	logged := counted(alloctrace.WithHooks(hook))
	times := measure.Run(1001, []measure.Subject{
		measure.Atomic(),
		{Name: "zerolog_event", Turn: 200, Run: func(n int) {
			for range n {
				var addr [8]byte
				binary.BigEndian.PutUint64(addr[:], uint64(event.Addr))
				logger.Debug().Hex("addr", addr[:]).Uint64("size", uint64(event.Size)).Uint64("align", uint64(event.Align)).Msg(event.Kind.String())
			}
		}},
		{Name: "zlog_event", Turn: 200, Run: func(n int) {
			for range n {
				hook.Observe(ctx, event, nil)
			}
		}},
		measure.Pairs("counted", 2000, counted()),
		measure.Pairs("zlog", 200, logged),
		measure.Pairs("zlog_off", 2000, counted(alloctrace.WithHooks(zlog.New(off)))),
		measure.Pairs("sample_64", 2000, counted(alloctrace.WithHooks(hooks.Sample(hook, 64)))),
	})
	row := func(name string, value float64, unit string, bound float64) {
		measure.Row(os.Stdout, b, name, value, unit, bound)
	}
	fmt.Println()
	row("zlog_event_over_zerolog", times.Ratio("zlog_event", "zerolog_event"), "x", 1.10)
	for _, name := range []string{"zlog", "zlog_off", "sample_64"} {
		row(name+"_over_counted", times.Over(name, "counted", "atomic"), "A", measure.NoBound)
	}
	pair := measure.Pairs("", 0, logged)
	row("zlog_allocations", testing.AllocsPerRun(1000, func() { pair.Run(1) }), "allocs/op", 0)
}
