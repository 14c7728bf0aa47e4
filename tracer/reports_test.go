package tracer_test

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"unsafe"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/blockalloc/guard"
	"github.com/alloctrace/alloctrace/internal/adapter.v2"
	"github.com/alloctrace/alloctrace/internal/pages"
	"github.com/alloctrace/alloctrace/internal/spantest"
	"github.com/alloctrace/alloctrace/tracer"
)

//go:noinline
func allocating(t *testing.T, a blockalloc.Allocator) blockalloc.Block { return allocate(t, a, 100) }

//go:noinline
func freeing(t *testing.T, a blockalloc.Allocator, b blockalloc.Block) { free(t, a, b) }

// accessing writes a byte at an offset from the start of b, which may be outside of it.
//
//go:noinline
//go:nocheckptr
func accessing(b blockalloc.Block, offset int) { *(*byte)(unsafe.Add(b.Pointer(), offset))++ }

// raw returns a Block that nobody has allocated, at an offset from the start of b.
func raw(t *testing.T, b blockalloc.Block, offset int, size uintptr) blockalloc.Block {
	t.Helper()
	b, err := blockalloc.FromRaw(unsafe.Add(b.Pointer(), offset), blockalloc.Layout{Size: size, Align: 4})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A dirty allocator does not zero memory as it is asked to.
type dirty struct{ blockalloc.Heap }

func (d *dirty) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	b, err := d.Heap.Allocate(l)
	if !b.IsZero() {
		b.Bytes()[50] = 1
	}
	return b, err
}

const (
	allocatedStack = "allocator.allocated.stacktrace"
	freedStack     = "allocator.freed.stacktrace"
	nowStack       = "code.stacktrace"
)

type attributes = map[attribute.Key]attribute.Value

// wantReport fails t unless s is the span of r, and has the attributes and stacks with these functions, "" where there is none.
func wantReport(t *testing.T, s *spantest.Span, r *debug.Report, want, stacks attributes) {
	t.Helper()
	got := maps.Clone(s.Attributes)
	for _, key := range []attribute.Key{allocatedStack, freedStack, nowStack} {
		stack, function := got[key].AsString(), stacks[key].AsString()
		if (stack == "") != (function == "") || !strings.Contains(stack, function) {
			t.Errorf("%v: %s is %q, want it to have %q", r.Kind, key, stack, function)
		}
		delete(got, key)
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v has %v\nwant %v", r.Kind, got, want)
	}
	line, _, _ := strings.Cut(r.Error(), "\n")
	if s.Name != r.Kind.String() || s.Scope != tracer.ScopeName || s.Status != codes.Error || s.Description != line || s.Ends != 1 || s.Parent.IsValid() {
		t.Errorf("%v: the span is %+v, want status %q", r.Kind, s, line)
	}
}

// TestReports: for each kind of error that package debug finds there is one span, with what the report says.
func TestReports(t *testing.T) {
	const here = "TestReports"
	access := func(offset int) attributes {
		return attributes{"allocator.misuse.offset": attribute.IntValue(offset), "allocator.misuse.fault": attribute.BoolValue(false)}
	}
	for _, c := range []struct {
		kind                        debug.Kind
		foundBy, errorType          string
		more                        attributes
		allocatedBy, freedBy, nowBy string // functions; "" if there is no stack
		plant                       func(d *debug.Allocator)
	}{
		{debug.DoubleFree, "debug.Free", "double_free", nil, "allocating", "freeing", here, func(d *debug.Allocator) {
			b := allocating(t, d)
			freeing(t, d, b)
			_ = d.Free(b)
		}},
		{debug.Foreign, "debug.Reallocate", "not_owned", nil, "", "", here, func(d *debug.Allocator) {
			_, _ = d.Reallocate(allocating(t, new(blockalloc.Heap)), 200)
		}},
		{debug.WrongSize, "debug.Free", "not_owned", nil, "allocating", "", here, func(d *debug.Allocator) {
			b := allocating(t, d)
			_ = d.Free(raw(t, b, 0, 96))
			freeing(t, d, b)
		}},
		{debug.Interior, "debug.Free", "not_owned", access(8), "allocating", "", here, func(d *debug.Allocator) {
			b := allocating(t, d)
			_ = d.Free(raw(t, b, 8, 92))
			freeing(t, d, b)
		}},
		{debug.Overrun, "debug.Free", "overrun", access(101), "allocating", "", here, func(d *debug.Allocator) {
			b := allocating(t, d)
			accessing(b, 101)
			_ = d.Free(b) // which mends it
			freeing(t, d, b)
		}},
		{debug.Underrun, "debug.Check", "underrun", access(-1), "allocating", "", here, func(d *debug.Allocator) {
			b := allocating(t, d)
			accessing(b, -1)
			_ = d.Check()
		}},
		{debug.UseAfterFree, "debug", "use_after_free", access(7), "allocating", "freeing", "", func(d *debug.Allocator) {
			b := allocating(t, d)
			freeing(t, d, b)
			accessing(b, 7)
			freeing(t, d, allocating(t, d)) // for which b leaves the quarantine
		}},
		{debug.NotZeroed, "debug.Allocate", "not_zeroed", access(50 - 16), "", "", here, func(d *debug.Allocator) {
			_, _ = d.Allocate(blockalloc.Layout{Size: 100, Align: 8, Zeroed: true}) // behind 16 bytes of canary
		}},
		{debug.Leak, "debug.Close", "live", attributes{"allocator.misuse.blocks": attribute.IntValue(2), "allocator.misuse.bytes": attribute.IntValue(200)},
			"allocating", "", "", func(d *debug.Allocator) {
				for range 2 {
					allocating(t, d)
				}
				_ = d.Close()
			}},
	} {
		var spans spantest.Recorder
		var reports []*debug.Report
		report := tracer.Reports(tracer.WithTracerProvider(&spans), tracer.WithAttributes(attribute.String("host", "a")))
		c.plant(debug.New(new(dirty), debug.Options{QuarantineBlocks: 1, OnReport: func(r *debug.Report) {
			reports = append(reports, r)
			report(r)
		}}))
		if len(reports) != 1 || reports[0].Kind != c.kind || len(spans.Spans) != 1 {
			t.Errorf("%v: reports %v with %d spans, want one of each", c.kind, reports, len(spans.Spans))
			continue
		}
		place := reports[0].Block
		if c.kind == debug.Foreign {
			place = reports[0].Given
		}
		want := attributes{
			"host":                      attribute.StringValue("a"),
			"allocator.misuse.kind":     attribute.StringValue(c.kind.String()),
			"allocator.misuse.found_by": attribute.StringValue(c.foundBy),
			"allocator.block.address":   attribute.StringValue(fmt.Sprintf("%#x", place.Addr)),
			"allocator.block.size":      attribute.IntValue(100),
			"allocator.block.align":     attribute.IntValue(8),
			"error.type":                attribute.StringValue(c.errorType),
		}
		maps.Copy(want, c.more)
		wantReport(t, spans.Spans[0], reports[0], want, attributes{
			allocatedStack: attribute.StringValue(c.allocatedBy), freedStack: attribute.StringValue(c.freedBy), nowStack: attribute.StringValue(c.nowBy),
		})
	}
}

// TestReportOfAGuard: the span of a fault says who did the access.
func TestReportOfAGuard(t *testing.T) {
	if !pages.Supported {
		return
	}
	var spans spantest.Recorder
	report := tracer.Reports(tracer.WithTracerProvider(&spans))
	a := guard.New(blockalloc.Null{}, guard.Options{Rate: 1, OnReport: report})
	b := allocating(t, a)
	freeing(t, a, b)
	var r *debug.Report
	if err := a.Catch(func() { accessing(b, 7) }); !errors.As(err, &r) || len(spans.Spans) != 1 {
		t.Fatalf("Catch: %v; %d spans, want one", err, len(spans.Spans))
	}
	wantReport(t, spans.Spans[0], r, attributes{
		"allocator.misuse.kind":     attribute.StringValue("use after free"),
		"allocator.misuse.found_by": attribute.StringValue("guard.Catch"),
		"allocator.misuse.offset":   attribute.IntValue(7),
		"allocator.misuse.fault":    attribute.BoolValue(true),
		"allocator.block.address":   attribute.StringValue(fmt.Sprintf("%#x", b.Addr())),
		"allocator.block.size":      attribute.IntValue(100),
		"allocator.block.align":     attribute.IntValue(8),
		"error.type":                attribute.StringValue("use_after_free"),
	}, attributes{
		allocatedStack: attribute.StringValue("allocating"), freedStack: attribute.StringValue("freeing"), nowStack: attribute.StringValue("accessing"),
	})
}

// TestReportLogs: each report is a log record, in its span if it has one, with the attributes of that and all of the text.
func TestReportLogs(t *testing.T) {
	var spans spantest.Recorder
	var logs logRecorder
	report := tracer.Reports(tracer.WithTracerProvider(&spans), tracer.WithMaxFailures(1), tracer.WithLogs(logs.emit))
	d := debug.New(new(blockalloc.Heap), debug.Options{OnReport: report})
	b := allocating(t, d)
	freeing(t, d, b)
	err := d.Free(b)
	_ = d.Free(b)
	if len(spans.Spans) != 1 || len(logs.records) != 2 {
		t.Fatalf("%d spans and %d records, want 1 and 2", len(spans.Spans), len(logs.records))
	}
	if span := spans.Spans[0]; !logs.spans[0].Equal(span.Context) || logs.spans[1].IsValid() {
		t.Errorf("the records are of %v, want that of the span, %v, and none", logs.spans, span.Context)
	}
	for _, r := range logs.records {
		got := make(attributes)
		for _, a := range r.Attributes {
			got[a.Key] = a.Value
		}
		if want := maps.Clone(spans.Spans[0].Attributes); r.Event != "allocator.misuse" || r.Level != slog.LevelError || !sameButNow(got, want) {
			t.Errorf("a record %+v, want the attributes %v", r, want)
		}
	}
	if logs.records[0].Body != err.Error() || !strings.Contains(err.Error(), "\n") {
		t.Errorf("the body is %q, want %q", logs.records[0].Body, err)
	}
}

// sameButNow compares attributes without the stack of who called.
func sameButNow(got, want attributes) bool {
	for _, m := range []attributes{got, want} {
		if len(m[nowStack].AsString()) == 0 {
			return false
		}
		delete(m, nowStack)
	}
	return maps.Equal(got, want)
}

// TestReportSkip: the stacks begin with who called an adapter, as in the report's text.
func TestReportSkip(t *testing.T) {
	const adapterCall = "internal/adapter.v2/inner.Allocate"
	for _, skip := range [][]string{nil, {adapterPackages}} {
		var spans spantest.Recorder
		d := debug.New(new(blockalloc.Heap), debug.Options{Skip: skip, OnReport: tracer.Reports(tracer.WithTracerProvider(&spans))})
		adapter.New(d, 64)
		_ = d.Close()
		if len(spans.Spans) != 1 {
			t.Fatalf("%d spans, want 1", len(spans.Spans))
		}
		stack := spans.Spans[0].Attributes[allocatedStack].AsString()
		if strings.Contains(stack, adapterCall) != (skip == nil) || !strings.Contains(stack, "tracer_test.TestReportSkip\n") {
			t.Errorf("without %q the stack is\n%s", skip, stack)
		}
	}
}
