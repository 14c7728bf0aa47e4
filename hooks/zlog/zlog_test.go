package zlog_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/zlog"
	"github.com/alloctrace/alloctrace/internal/text"
	"github.com/alloctrace/alloctrace/internal/text/texttest"
)

func TestLines(t *testing.T) {
	allocated := alloctrace.Event{Kind: alloctrace.Allocated, Addr: 0x7f400000, Size: 65536, Align: 65536}
	failed := alloctrace.Event{Kind: alloctrace.AllocateFailed, Size: 4096, Align: 4096}
	span := trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{0xab, 15: 0xcd}, SpanID: trace.SpanID{0x12, 7: 0x34},
	}))
	for name, c := range map[string]struct {
		ctx   context.Context
		level zerolog.Level
		opts  []zlog.Option
		event alloctrace.Event
		err   error
		want  string
	}{
		"success": {context.Background(), zerolog.TraceLevel, nil, allocated, nil,
			`{"level":"debug","allocator":"cache","addr":"000000007f400000","size":65536,"align":65536,"message":"allocated"}` + "\n"},
		"failure": {context.Background(), zerolog.TraceLevel, nil, failed, blockalloc.ErrOutOfMemory,
			`{"level":"warn","allocator":"cache","addr":"0000000000000000","size":4096,"align":4096,"error":"out of memory","message":"allocate failed"}` + "\n"},
		"span": {span, zerolog.TraceLevel, nil, allocated, nil,
			`{"level":"debug","allocator":"cache","addr":"000000007f400000","size":65536,"align":65536,` +
				`"trace_id":"ab0000000000000000000000000000cd","span_id":"1200000000000034","message":"allocated"}` + "\n"},
		"level off":             {context.Background(), zerolog.InfoLevel, nil, allocated, nil, ""},
		"failure at level info": {context.Background(), zerolog.InfoLevel, []zlog.Option{zlog.WithFailureLevel(zerolog.DebugLevel)}, failed, blockalloc.ErrOutOfMemory, ""},
		"level set": {context.Background(), zerolog.InfoLevel, []zlog.Option{zlog.WithLevel(zerolog.InfoLevel)}, allocated, nil,
			`{"level":"info","allocator":"cache","addr":"000000007f400000","size":65536,"align":65536,"message":"allocated"}` + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			log := zerolog.New(&out).Level(c.level).With().Str("allocator", "cache").Logger()
			zlog.New(log, c.opts...).Observe(c.ctx, c.event, c.err)
			if got := out.String(); got != c.want {
				t.Errorf("line %swant %s", got, c.want)
			}
		})
	}
}

type key struct{}

// TestContext: a hook of zerolog finds the context of the operation, or else that of the logger; and
// that allocates nothing.
func TestContext(t *testing.T) {
	var got []any
	log := zerolog.New(io.Discard).With().Ctx(context.WithValue(t.Context(), key{}, "logger")).Logger().
		Hook(zerolog.HookFunc(func(e *zerolog.Event, _ zerolog.Level, _ string) { got = append(got, e.GetCtx().Value(key{})) }))
	h := zlog.New(log)
	p := alloctrace.Wrap(blockalloc.Null{}, alloctrace.WithHooks(h))
	_, _ = p.WithContext(context.WithValue(t.Context(), key{}, "operation")).Allocate(blockalloc.BlockLayout(64))
	_, _ = p.Allocate(blockalloc.BlockLayout(64))
	if want := []any{"operation", "logger"}; !slices.Equal(got, want) {
		t.Errorf("the contexts are %v, want %v", got, want)
	}
	ctx := context.WithValue(t.Context(), key{}, "operation")
	h = zlog.New(zerolog.New(io.Discard))
	e := alloctrace.Event{Kind: alloctrace.Allocated, Addr: 0x7f400000, Size: 65536, Align: 65536}
	failed := alloctrace.Event{Kind: alloctrace.AllocateFailed, Size: 64, Align: 64}
	h.Observe(ctx, e, nil) // fills zerolog's pool
	if n := testing.AllocsPerRun(1000, func() { h.Observe(ctx, e, nil); h.Observe(ctx, failed, blockalloc.ErrLimit) }); n != 0 && !raceEnabled {
		t.Errorf("%v allocations a line, want none", n)
	}
}

// TestChild: lines of a child have its name, with which they can be grouped, and others have none.
func TestChild(t *testing.T) {
	var out bytes.Buffer
	p := alloctrace.Wrap(blockalloc.Null{}, alloctrace.WithHooks(zlog.New(zerolog.New(&out))))
	cache := p.Child("cache")
	for _, mem := range []*alloctrace.Proxy{p, cache, cache.WithContext(context.WithValue(t.Context(), key{}, 1)), p.Child(""), p.Child("\"\xff")} {
		_, _ = mem.Allocate(blockalloc.BlockLayout(64))
	}
	var children []any
	for lines := json.NewDecoder(&out); lines.More(); {
		line := make(map[string]any)
		if err := lines.Decode(&line); err != nil {
			t.Fatal(err)
		}
		children = append(children, line["child"])
	}
	if want := []any{nil, "cache", "cache", nil, "\"\ufffd"}; !slices.Equal(children, want) {
		t.Errorf("the children are %q, want %q", children, want)
	}
}

// TestUglyErrors: a line is JSON whatever the text of an error is, has what is valid of it, and is
// bounded.
func TestUglyErrors(t *testing.T) {
	for _, ugly := range texttest.Table() {
		var out bytes.Buffer
		zlog.New(zerolog.New(&out)).Observe(t.Context(), alloctrace.Event{Kind: alloctrace.FreeFailed}, errors.New(ugly.Text))
		var line struct{ Error, Message string }
		if err := json.Unmarshal(out.Bytes(), &line); err != nil || line.Message != "free failed" {
			t.Errorf("%s: %v: %.200q", ugly.Case, err, out.String())
		}
		if bytes.Count(out.Bytes(), []byte("\n")) != 1 || !utf8.Valid(out.Bytes()) || len(line.Error) > text.MaxText || line.Error != text.Text(ugly.Text) {
			t.Errorf("%s: the line has %d bytes, and the error has become %.200q", ugly.Case, out.Len(), line.Error)
		}
	}
}
