package tracer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"testing"
	"testing/slogtest"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/sloghook"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/tracer"
)

// inSpan returns a context that holds a span.
func inSpan(ctx context.Context) context.Context {
	return trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{0xab, 15: 0xcd}, SpanID: trace.SpanID{0x12, 7: 0x34},
	}))
}

func dropTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// TestSlogHandler: the ids come after what the record has, and only where there is a span.
func TestSlogHandler(t *testing.T) {
	var out bytes.Buffer
	logger := slog.New(tracer.NewSlogHandler(slog.NewJSONHandler(&out, &slog.HandlerOptions{ReplaceAttr: dropTime})))
	ctx := inSpan(t.Context())
	logger.InfoContext(ctx, "hello", "a", 1)
	logger.InfoContext(t.Context(), "no span", "a", 1)
	logger.DebugContext(ctx, "level off")
	logger.With("b", 2).InfoContext(ctx, "with")
	logger.WithGroup("g").InfoContext(ctx, "group", "a", 1)
	mem := alloctrace.Wrap(blockalloc.Null{}, alloctrace.WithName("pages"), alloctrace.WithHooks(sloghook.New(logger.Handler())))
	_, _ = mem.Child("cache").WithContext(ctx).Allocate(blockalloc.BlockLayout(64))
	const ids = `"trace_id":"ab0000000000000000000000000000cd","span_id":"1200000000000034"`
	const want = `{"level":"INFO","msg":"hello","a":1,` + ids + `}
{"level":"INFO","msg":"no span","a":1}
{"level":"INFO","msg":"with","b":2,` + ids + `}
{"level":"INFO","msg":"group","g":{"a":1,` + ids + `}}
{"level":"WARN","msg":"allocate failed","allocator":"pages","addr":0,"size":64,"align":64,"error":"blockalloc: Null.Allocate(64 B aligned to 64): out of memory","child":"cache",` + ids + `}
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

// TestSlogHandlerContract: it is a handler as testing/slogtest wants it, in a span and out of one.
func TestSlogHandlerContract(t *testing.T) {
	for name, ctx := range map[string]context.Context{"no span": t.Context(), "span": inSpan(t.Context())} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			slogtest.Run(t, func(*testing.T) slog.Handler {
				out.Reset()
				return inContext{ctx, tracer.NewSlogHandler(slog.NewJSONHandler(&out, nil))}
			}, func(t *testing.T) map[string]any {
				var line map[string]any
				if err := json.Unmarshal(out.Bytes(), &line); err != nil {
					t.Fatal(err)
				}
				withoutIDs(line)
				return line
			})
		})
	}
}

// withoutIDs removes the ids from a line and from its groups, which then may have to go as well.
func withoutIDs(line map[string]any) {
	delete(line, "trace_id")
	delete(line, "span_id")
	for name, v := range line {
		if group, ok := v.(map[string]any); ok {
			if withoutIDs(group); len(group) == 0 {
				delete(line, name)
			}
		}
	}
}

// inContext hands on records in a context of its own.
type inContext struct {
	ctx context.Context
	slog.Handler
}

func (h inContext) Handle(_ context.Context, r slog.Record) error { return h.Handler.Handle(h.ctx, r) }
func (h inContext) WithAttrs(attrs []slog.Attr) slog.Handler {
	return inContext{h.ctx, h.Handler.WithAttrs(attrs)}
}
func (h inContext) WithGroup(name string) slog.Handler {
	return inContext{h.ctx, h.Handler.WithGroup(name)}
}

// TestSlogHandlerShares: copies of one record can go to two handlers that add the ids of different spans.
func TestSlogHandlerShares(t *testing.T) {
	var one, two bytes.Buffer
	r := slog.NewRecord(time.Time{}, slog.LevelInfo, "shared", 0)
	for range 9 { // more than a record has room for
		r.AddAttrs(slog.Int("a", 1))
	}
	other := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}}))
	for _, c := range []struct {
		ctx context.Context
		out *bytes.Buffer
	}{{inSpan(t.Context()), &one}, {other, &two}} {
		if err := tracer.NewSlogHandler(slog.NewJSONHandler(c.out, nil)).Handle(c.ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	if r.NumAttrs() != 9 || bytes.Contains(one.Bytes(), []byte("BUG")) || bytes.Contains(two.Bytes(), []byte("BUG")) ||
		!bytes.Contains(one.Bytes(), []byte(`"span_id":"1200000000000034"`)) || !bytes.Contains(two.Bytes(), []byte(`"span_id":"0100000000000000"`)) {
		t.Errorf("%d attributes, lines\n%s%s", r.NumAttrs(), one.String(), two.String())
	}
}

// TestSlogHandlerAllocations: the ids are one allocation, and a sixth attribute makes it two.
func TestSlogHandlerAllocations(t *testing.T) {
	handler := tracer.NewSlogHandler(slog.NewJSONHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug}))
	mem := alloctrace.Wrap(measure.NewInner(), alloctrace.WithHooks(sloghook.New(handler)))
	ctx := inSpan(t.Context())
	for name, c := range map[string]struct {
		mem  *alloctrace.Proxy
		want float64 // of an allocation and a free
	}{
		"no span": {mem.WithContext(t.Context()), 0},
		"span":    {mem.WithContext(ctx), 2},
		"child":   {mem.Child("cache").WithContext(ctx), 4},
	} {
		t.Run(name, func(t *testing.T) {
			measure.WantAllocs(t, c.want, func() {
				b, _ := c.mem.Allocate(blockalloc.BlockLayout(4 << 10))
				_ = c.mem.Free(b)
			})
		})
	}
}

func TestSlogHandlerNil(t *testing.T) {
	defer func() {
		if got, want := recover(), "tracer: NewSlogHandler(nil): pass a handler, such as slog.NewJSONHandler(os.Stderr, nil)"; got != want {
			t.Errorf("panics with %v, want %v", got, want)
		}
	}()
	tracer.NewSlogHandler(nil)
}
