package sloghook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/sloghook"
	"github.com/alloctrace/alloctrace/internal/text"
	"github.com/alloctrace/alloctrace/internal/text/texttest"
)

var (
	allocated = alloctrace.Event{Kind: alloctrace.Allocated, Addr: 0x7f400000, Size: 65536, Align: 65536}
	failed    = alloctrace.Event{Kind: alloctrace.AllocateFailed, Size: 4096, Align: 4096}
)

// dropTime leaves out the time of a record.
func dropTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// TestLines: the lines are those of hooks/zlog, as far as slog's formats allow.
func TestLines(t *testing.T) {
	for name, c := range map[string]struct {
		level slog.Level
		opts  []sloghook.Option
		event alloctrace.Event
		err   error
		want  string
	}{
		"success": {slog.LevelDebug, nil, allocated, nil,
			`{"level":"DEBUG","msg":"allocated","allocator":"cache","addr":2134900736,"size":65536,"align":65536}` + "\n"},
		"failure": {slog.LevelDebug, nil, failed, blockalloc.ErrOutOfMemory,
			`{"level":"WARN","msg":"allocate failed","allocator":"cache","addr":0,"size":4096,"align":4096,"error":"out of memory"}` + "\n"},
		"level off":             {slog.LevelInfo, nil, allocated, nil, ""},
		"failure at level info": {slog.LevelInfo, []sloghook.Option{sloghook.WithFailureLevel(slog.LevelDebug)}, failed, blockalloc.ErrOutOfMemory, ""},
		"level set": {slog.LevelInfo, []sloghook.Option{sloghook.WithLevel(slog.LevelInfo)}, allocated, nil,
			`{"level":"INFO","msg":"allocated","allocator":"cache","addr":2134900736,"size":65536,"align":65536}` + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			logger := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: c.level, ReplaceAttr: dropTime})).With("allocator", "cache")
			sloghook.New(logger.Handler(), c.opts...).Observe(t.Context(), c.event, c.err)
			if got := out.String(); got != c.want {
				t.Errorf("line %swant %s", got, c.want)
			}
		})
	}
}

// TestText: a TextHandler writes all kinds of events in their order, and the names of the Proxy and the child.
func TestText(t *testing.T) {
	var out bytes.Buffer
	handler := slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: dropTime})
	block, err := new(blockalloc.Heap).Allocate(blockalloc.BlockLayout(4096))
	if err != nil {
		t.Fatal(err)
	}
	mem := alloctrace.Wrap(one{block}, alloctrace.WithName("pages"), alloctrace.WithHooks(sloghook.New(handler)))
	if _, err := mem.Allocate(blockalloc.BlockLayout(4096)); err != nil {
		t.Fatal(err)
	}
	cache := mem.Child("cache")
	_, _ = cache.Reallocate(block, 4096)
	_, _ = cache.Reallocate(block, 1)
	_ = cache.WithContext(t.Context()).Free(block)
	_ = alloctrace.Wrap(one{}, alloctrace.WithHooks(sloghook.New(handler))).Free(block)

	got := out.String()
	addr := got[strings.Index(got, "addr=")+len("addr="):]
	addr = addr[:strings.Index(addr, " ")]
	got = strings.ReplaceAll(got, "addr="+addr+" ", "addr=X ")
	const want = `level=DEBUG msg=allocated allocator=pages addr=X size=4096 align=4096
level=DEBUG msg=reallocating allocator=pages addr=X size=4096 align=4096 child=cache
level=DEBUG msg=reallocated allocator=pages addr=X size=4096 align=4096 child=cache
level=DEBUG msg=reallocating allocator=pages addr=X size=4096 align=4096 child=cache
level=WARN msg="reallocate failed" allocator=pages addr=X size=4096 align=4096 error="limit reached" child=cache
level=DEBUG msg=freeing allocator=pages addr=X size=4096 align=4096 child=cache
level=DEBUG msg=freeing addr=X size=4096 align=4096
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// one is an allocator of one block, which it cannot make smaller than 4 KiB.
type one struct{ block blockalloc.Block }

func (o one) Allocate(blockalloc.Layout) (blockalloc.Block, error) { return o.block, nil }
func (o one) Free(blockalloc.Block) error                          { return nil }
func (o one) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if size < 4096 {
		return b, errLimit
	}
	return o.block, nil
}

var errLimit = errors.New("limit reached")

// A keeper is a handler that keeps what it is given.
type keeper struct {
	records  []slog.Record
	contexts []context.Context
	err      error
}

func (k *keeper) Enabled(context.Context, slog.Level) bool { return true }
func (k *keeper) WithAttrs([]slog.Attr) slog.Handler       { return k }
func (k *keeper) WithGroup(string) slog.Handler            { return k }
func (k *keeper) Handle(ctx context.Context, r slog.Record) error {
	k.records, k.contexts = append(k.records, r), append(k.contexts, ctx)
	return k.err
}

// TestRecord: the handler is given the context of the operation, the time, the text of the error, and no source.
func TestRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{err: errors.New("disk full")}
		p := alloctrace.Wrap(one{}, alloctrace.WithHooks(sloghook.New(k)))
		type key struct{}
		ctx := context.WithValue(t.Context(), key{}, 1)
		_, _ = p.WithContext(ctx).Reallocate(blockalloc.Block{}, 1)
		time.Sleep(time.Second)
		_, _ = p.Reallocate(blockalloc.Block{}, 1)
		if len(k.records) != 2 || k.contexts[0] != ctx || k.contexts[1] != context.Background() {
			t.Fatalf("%d records, in %v", len(k.records), k.contexts)
		}
		if d := k.records[1].Time.Sub(k.records[0].Time); d != time.Second || k.records[1].Time != time.Now() {
			t.Errorf("the records are %v apart, want 1 s", d)
		}
		var keys []string
		k.records[0].Attrs(func(a slog.Attr) bool {
			keys = append(keys, a.Key)
			if a.Key == "error" && !a.Value.Equal(slog.StringValue("limit reached")) {
				t.Errorf("the error is %#v", a.Value.Any())
			}
			return true
		})
		if want := []string{"addr", "size", "align", "error"}; !slices.Equal(keys, want) || k.records[0].Source() != nil {
			t.Errorf("the attributes are %q, want %q; the source %v", keys, want, k.records[0].Source())
		}
	})
}

// TestChild: records of a child have its name, with which they can be grouped, and others have none.
func TestChild(t *testing.T) {
	var out bytes.Buffer
	p := alloctrace.Wrap(blockalloc.Null{}, alloctrace.WithName("\xffname"), alloctrace.WithHooks(sloghook.New(slog.NewJSONHandler(&out, nil))))
	cache := p.Child("cache")
	for _, mem := range []*alloctrace.Proxy{p, cache, cache.WithContext(t.Context()), p.Child(""), p.Child("\"\xff"), cache.Child("deep")} {
		_, _ = mem.Allocate(blockalloc.BlockLayout(64))
	}
	var children []any
	for lines := json.NewDecoder(&out); lines.More(); {
		line := make(map[string]any)
		if err := lines.Decode(&line); err != nil {
			t.Fatal(err)
		}
		if line["allocator"] != "\ufffdname" {
			t.Errorf("the allocator is %q", line["allocator"])
		}
		children = append(children, line["child"])
	}
	if want := []any{nil, "cache", "cache", nil, "\"\ufffd", "deep"}; !slices.Equal(children, want) {
		t.Errorf("the children are %q, want %q", children, want)
	}
}

// TestUglyErrors: a record has what is valid of the text of an error, and is bounded.
func TestUglyErrors(t *testing.T) {
	for _, ugly := range texttest.Table() {
		k := new(keeper)
		sloghook.New(k).Observe(t.Context(), alloctrace.Event{Kind: alloctrace.FreeFailed}, errors.New(ugly.Text))
		k.records[0].Attrs(func(a slog.Attr) bool {
			if s := a.Value.String(); !utf8.ValidString(s) || a.Key == "error" && s != text.Text(ugly.Text) {
				t.Errorf("%s: %s is %.200q", ugly.Case, a.Key, s)
			}
			return true
		})
	}
}

// TestConcurrent: one hook observes for many goroutines, and each event is one whole line.
func TestConcurrent(t *testing.T) {
	var out bytes.Buffer
	p := alloctrace.Wrap(blockalloc.Null{}, alloctrace.WithHooks(sloghook.New(slog.NewJSONHandler(&out, nil))))
	const goroutines, each = 8, 200
	done := make(chan bool)
	for range goroutines {
		go func() {
			child := p.Child("child")
			for range each {
				_, _ = child.Allocate(blockalloc.BlockLayout(64))
			}
			done <- true
		}()
	}
	for range goroutines {
		<-done
	}
	lines := 0
	for d := json.NewDecoder(&out); ; lines++ {
		var line struct{ Msg, Child string }
		if err := d.Decode(&line); err == io.EOF {
			break
		} else if err != nil || line.Msg != "allocate failed" || line.Child != "child" {
			t.Fatalf("line %+v: %v", line, err)
		}
	}
	if lines != goroutines*each {
		t.Errorf("%d lines, want %d", lines, goroutines*each)
	}
}

func TestNil(t *testing.T) {
	defer func() {
		if got, want := recover(), "sloghook: New(nil): pass a handler, such as slog.Default().Handler()"; got != want {
			t.Errorf("panics with %v, want %v", got, want)
		}
	}()
	sloghook.New(nil)
}
