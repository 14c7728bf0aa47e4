package zlog_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/zlog"
)

func TestLines(t *testing.T) {
	allocated := alloctrace.Event{Kind: alloctrace.Allocated, Addr: 0x7f400000, Size: 65536, Align: 65536}
	failed := alloctrace.Event{Kind: alloctrace.AllocateFailed, Size: 4096, Align: 4096, Err: blockalloc.ErrOutOfMemory}
	span := trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{0xab, 15: 0xcd}, SpanID: trace.SpanID{0x12, 7: 0x34},
	}))
	for name, c := range map[string]struct {
		ctx   context.Context
		level zerolog.Level
		opts  []zlog.Option
		event alloctrace.Event
		want  string
	}{
		"success": {context.Background(), zerolog.TraceLevel, nil, allocated,
			`{"level":"debug","allocator":"cache","addr":"000000007f400000","size":65536,"align":65536,"message":"allocated"}` + "\n"},
		"failure": {context.Background(), zerolog.TraceLevel, nil, failed,
			`{"level":"warn","allocator":"cache","addr":"0000000000000000","size":4096,"align":4096,"error":"out of memory","message":"allocate failed"}` + "\n"},
		"span": {span, zerolog.TraceLevel, nil, allocated,
			`{"level":"debug","allocator":"cache","addr":"000000007f400000","size":65536,"align":65536,` +
				`"trace_id":"ab0000000000000000000000000000cd","span_id":"1200000000000034","message":"allocated"}` + "\n"},
		"level off":             {context.Background(), zerolog.InfoLevel, nil, allocated, ""},
		"failure at level info": {context.Background(), zerolog.InfoLevel, []zlog.Option{zlog.WithFailureLevel(zerolog.DebugLevel)}, failed, ""},
		"level set": {context.Background(), zerolog.InfoLevel, []zlog.Option{zlog.WithLevel(zerolog.InfoLevel)}, allocated,
			`{"level":"info","allocator":"cache","addr":"000000007f400000","size":65536,"align":65536,"message":"allocated"}` + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			log := zerolog.New(&out).Level(c.level).With().Str("allocator", "cache").Logger()
			zlog.New(log, c.opts...).Observe(c.ctx, c.event)
			if got := out.String(); got != c.want {
				t.Errorf("line %swant %s", got, c.want)
			}
		})
	}
}
