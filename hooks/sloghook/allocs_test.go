package sloghook_test

import (
	"context"
	"io"
	"log/slog"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/sloghook"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// A reader is a handler that reads each record and allocates nothing.
type reader struct{ sum *uint64 }

func (r reader) Enabled(context.Context, slog.Level) bool { return true }
func (r reader) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r reader) WithGroup(string) slog.Handler            { return r }
func (r reader) Handle(_ context.Context, record slog.Record) error {
	record.Attrs(func(a slog.Attr) bool {
		if a.Value.Kind() == slog.KindUint64 {
			*r.sum += a.Value.Uint64()
		}
		return true
	})
	return nil
}

// TestNoAllocations: the hook allocates nothing. Nor do slog's own handlers.
func TestNoAllocations(t *testing.T) {
	page := blockalloc.BlockLayout(4 << 10)
	var sum uint64
	for name, handler := range map[string]slog.Handler{
		"reader":    reader{&sum},
		"json":      slog.NewJSONHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug}),
		"text":      slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug}),
		"level off": slog.NewJSONHandler(io.Discard, nil),
	} {
		p := alloctrace.Wrap(measure.NewInner(), alloctrace.WithName("pages"), alloctrace.WithHooks(sloghook.New(handler)))
		for what, mem := range map[string]*alloctrace.Proxy{"proxy": p, "child": p.Child("cache"), "view": p.WithContext(t.Context())} {
			t.Run(name+"/"+what, func(t *testing.T) {
				measure.WantAllocs(t, 0, func() {
					b, _ := mem.Allocate(page)
					b, _ = mem.Reallocate(b, page.Size)
					_ = mem.Free(b)
				})
			})
		}
		t.Run(name+"/refused", func(t *testing.T) {
			_, err := blockalloc.Null{}.Allocate(page)
			hook := sloghook.New(handler).(alloctrace.Attacher).Attach(&alloctrace.Attachment{Child: "cache"})
			measure.WantAllocs(t, 0, func() { hook.Observe(t.Context(), failed, err) })
		})
	}
	if sum == 0 && !measure.Race {
		t.Error("no record was read")
	}
}
