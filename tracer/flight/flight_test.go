package flight_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/internal/adapter.v2"
	"github.com/alloctrace/alloctrace/internal/spantest"
	"github.com/alloctrace/alloctrace/tracer"
	"github.com/alloctrace/alloctrace/tracer/flight"
)

var update = flag.Bool("update", false, "write the golden files of testdata anew")

// A clock stands where the test sets it.
type clock struct{ atomic.Int64 }

func (c *clock) Now() int64 { return c.Load() }

func newClock() *clock {
	c := new(clock)
	c.Store(time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) pass(d time.Duration) { c.Add(int64(d)) }

func allocate(t testing.TB, a blockalloc.Allocator, size uintptr) blockalloc.Block {
	t.Helper()
	b, err := a.Allocate(blockalloc.Layout{Size: size, Align: 64})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func free(t testing.TB, a blockalloc.Allocator, b blockalloc.Block) {
	t.Helper()
	if err := a.Free(b); err != nil {
		t.Fatal(err)
	}
}

// aligned grants what is asked for, from the Go heap.
type aligned struct{ blockalloc.Heap }

// fill has a program with two children run into its limit in a region, with times between.
func fill(t *testing.T, o flight.Options, c *clock, provider trace.TracerProvider) (*flight.Recorder, *alloctrace.Proxy, context.Context) {
	t.Helper()
	o.Clock, o.TracerProvider = c, provider
	r := flight.New(o)
	mem := alloctrace.Wrap(blockalloc.NewLimit(new(aligned), 1<<20), alloctrace.WithName("search"), alloctrace.WithHooks(r))
	r.Watch(mem)
	pages, words := mem.Child("pages"), mem.Child("words")
	old := allocate(t, pages, 64<<10)
	c.pass(2 * time.Second) // it is in no window
	var kept []blockalloc.Block
	for range 4 {
		kept = append(kept, allocate(t, pages, 128<<10))
		w := allocate(t, words, 4096)
		c.pass(110 * time.Millisecond)
		free(t, words, w)
	}
	free(t, pages, old)
	free(t, pages, kept[0])
	allocate(t, mem, 512)
	b, err := mem.Reallocate(allocate(t, mem, 1024), 2048)
	if err != nil {
		t.Fatal(err)
	}
	if o.IgnoreFailures {
		if err := pages.Free(kept[0]); err == nil {
			t.Fatal("a second free has not failed")
		}
	}
	c.pass(10 * time.Millisecond)
	ctx, region := tracer.Start(t.Context(), "GET /search", mem, tracer.WithTracerProvider(provider))
	defer region.End()
	if _, err := pages.WithContext(ctx).Allocate(blockalloc.BlockLayout(1 << 20)); !errors.Is(err, blockalloc.ErrLimit) {
		t.Fatal(err)
	}
	_ = b
	return r, mem, ctx
}

// compare compares a text with a file. Addresses, in the texts of errors, are not the same each time.
func compare(t *testing.T, file string, got []byte) {
	t.Helper()
	got = regexp.MustCompile(`0x[0-9a-f]+`).ReplaceAll(got, []byte("0xADDRESS"))
	if *update {
		if err := os.WriteFile(file, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the text is\n%s%s has\n%s", got, file, want)
	}
}

// TestText: what somebody asks for, and what the first failure leaves.
func TestText(t *testing.T) {
	r, _, _ := fill(t, flight.Options{IgnoreFailures: true}, newClock(), new(spantest.Recorder))
	var out bytes.Buffer
	if err := r.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	compare(t, "testdata/demand.txt", out.Bytes())
	if err := r.Close(); err != nil {
		t.Error(err)
	}

	out.Reset()
	r, _, _ = fill(t, flight.Options{Writer: &out}, newClock(), new(spantest.Recorder))
	if err := r.Close(); err != nil { // completes the record
		t.Error(err)
	}
	compare(t, "testdata/failure.txt", out.Bytes())
	if s := r.Stats(); s.Records != 1 || s.Suppressed != 0 || s.WriteErrors != 0 {
		t.Errorf("%+v, want one record", s)
	}
}

// TestTrace: the trace of a record has its events' times, totals, children, blocks and failures.
func TestTrace(t *testing.T) {
	c, all := newClock(), new(spantest.Recorder)
	r, _, ctx := fill(t, flight.Options{IgnoreFailures: true}, c, all)
	defer r.Close()
	if err := r.Dump(ctx); err != nil {
		t.Fatal(err)
	}
	roots := all.Named("allocator flight record")
	if len(roots) != 1 {
		t.Fatalf("%d roots", len(roots))
	}
	root, region := roots[0], all.Named("GET /search")[0]
	now := time.Unix(0, c.Now())
	check := func(s *spantest.Span, parent *spantest.Span, from, to time.Duration, want map[attribute.Key]attribute.Value) {
		t.Helper()
		if parent == nil && s.Parent.IsValid() || parent != nil && s.Parent != parent.Context.SpanID() || s.Ends != 1 || s.Scope != flight.ScopeName {
			t.Errorf("span %q of scope %q is below %v, ended %d times", s.Name, s.Scope, s.Parent, s.Ends)
		}
		end := now.Add(-to)
		if from == to || parent == nil {
			end = end.Add(time.Microsecond) // Jaeger wants some length
		}
		if !s.From.Equal(now.Add(-from)) || !s.To.Equal(end) {
			t.Errorf("span %q is from %v to %v, want %v to %v", s.Name, now.Sub(s.From), now.Sub(s.To), from, to)
		}
		if !maps.Equal(s.Attributes, want) {
			t.Errorf("span %q has %v\nwant %v", s.Name, s.Attributes, want)
		}
	}
	numbers := func(in, out, allocations, reallocations, frees, failures int64, more ...attribute.KeyValue) map[attribute.Key]attribute.Value {
		m := map[attribute.Key]attribute.Value{
			"allocator.memory.allocated": attribute.Int64Value(in), "allocator.memory.freed": attribute.Int64Value(out), "allocator.memory.net": attribute.Int64Value(in - out),
			"allocator.allocations": attribute.Int64Value(allocations), "allocator.reallocations": attribute.Int64Value(reallocations),
			"allocator.frees": attribute.Int64Value(frees), "allocator.failures": attribute.Int64Value(failures),
		}
		for _, a := range more {
			m[a.Key] = a.Value
		}
		return m
	}
	const ms, kib = time.Millisecond, 1 << 10
	check(root, nil, 450*ms, 0, numbers(4*132*kib+512+1024+2048, 4*4*kib+192*kib+1024, 10, 1, 6, 2,
		attribute.String("allocator.name", "search"), attribute.String("allocator.flight.trigger", "demand"), attribute.String("allocator.flight.reason", "somebody asked"),
		attribute.Int("allocator.flight.events", 21), attribute.Int64("allocator.memory.live", 3*128*kib+512+2048), attribute.Int64("allocator.memory.live_blocks", 5),
		attribute.Int64("allocator.memory.peak", 64*kib+4*128*kib+4*kib+2*kib+512)))
	if root.Status != codes.Unset || len(root.Links) != 1 || !root.Links[0].SpanContext.Equal(region.Context) {
		t.Errorf("status %v, links %v", root.Status, root.Links)
	}
	pages, words := all.Named("child pages")[0], all.Named("child words")[0]
	check(pages, root, 450*ms, 0, numbers(4*128*kib, 192*kib, 4, 0, 2, 2,
		attribute.String("allocator.child", "pages"), attribute.Int64("allocator.memory.live", 3*128*kib), attribute.Int64("allocator.memory.live_blocks", 3)))
	check(words, root, 450*ms, 10*ms, numbers(4*4*kib, 4*4*kib, 4, 0, 4, 0,
		attribute.String("allocator.child", "words"), attribute.Int64("allocator.memory.live", 0), attribute.Int64("allocator.memory.live_blocks", 0)))
	var got []string
	for _, b := range all.Named("block") {
		parent := map[trace.SpanID]string{root.Context.SpanID(): "", pages.Context.SpanID(): "pages", words.Context.SpanID(): "words"}[b.Parent]
		got = append(got, fmt.Sprint(parent, " ", b.Attributes["allocator.size"].AsInt64(), " ", b.Attributes["allocator.live"].AsBool(), " ", now.Sub(b.From), " to ", now.Sub(b.To)))
	}
	want := []string{
		"pages 131072 false 450ms to 10ms", "words 4096 false 450ms to 340ms", "pages 131072 true 340ms to 0s", "words 4096 false 340ms to 230ms",
		"pages 131072 true 230ms to 0s", "words 4096 false 230ms to 120ms", "pages 131072 true 120ms to 0s", "words 4096 false 120ms to 10ms",
		" 512 true 10ms to 0s", " 1024 false 10ms to 9.999ms", " 2048 true 10ms to 0s",
	}
	if !slices.Equal(got, want) {
		t.Errorf("blocks\n%q\nwant\n%q", got, want)
	}
	failure := all.Named("allocate")[1] // the first is the region's own
	check(failure, pages, 0, 0, map[attribute.Key]attribute.Value{
		"allocator.operation": attribute.StringValue("allocate"), "allocator.size": attribute.Int64Value(1 << 20), "allocator.align": attribute.Int64Value(1 << 20),
		"error.type": attribute.StringValue("limit"),
	})
	if failure.Status != codes.Error || !strings.Contains(failure.Description, "limit reached") || len(all.Named("free")) != 1 {
		t.Errorf("status %v %q, %d spans of frees", failure.Status, failure.Description, len(all.Named("free")))
	}
}

// TestFailureTrace: the record of a failure is an error, and leads to the span and the region that it happened in.
func TestFailureTrace(t *testing.T) {
	all := new(spantest.Recorder)
	r := flight.New(flight.Options{Clock: newClock(), TracerProvider: all})
	mem := alloctrace.Wrap(blockalloc.Null{}, alloctrace.WithHooks(r))
	ctx, region := tracer.Start(t.Context(), "load", mem, tracer.WithTracerProvider(all))
	if _, err := mem.WithContext(ctx).Allocate(blockalloc.BlockLayout(4096)); err == nil {
		t.Fatal("Null has memory")
	}
	region.End()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	root := all.Named("allocator flight record")[0]
	if root.Status != codes.Error || !strings.Contains(root.Description, "out of memory") || len(root.Links) != 1 || !root.Links[0].SpanContext.Equal(all.Named("load")[0].Context) {
		t.Errorf("status %v %q, links %v", root.Status, root.Description, root.Links)
	}
	if got := root.Attributes["allocator.flight.region"].AsString(); got != "load" {
		t.Errorf("region %q", got)
	}
	if got := root.Attributes["allocator.flight.reason"].AsString(); !strings.HasPrefix(got, `allocate of 4 KiB failed in region "load": `) {
		t.Errorf("reason %q", got)
	}
}

// TestHolders: with a heap profile, a record says which calls hold what.
func TestHolders(t *testing.T) {
	all, heap := new(spantest.Recorder), heapprofile.New(heapprofile.Options{Rate: 1})
	r := flight.New(flight.Options{Clock: newClock(), TracerProvider: all, Profile: heap})
	defer r.Close()
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(heap, r))
	defer free(t, mem, allocate(t, mem, 3<<10))
	var out bytes.Buffer
	if err := errors.Join(r.WriteText(&out), r.Dump(t.Context())); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "by calls: 3 KiB in 1 block is live:\n  3 KiB in 1 block of 3 KiB: flight_test.allocate (flight_test.go:") {
		t.Errorf("no calls in\n%s", &out)
	}
	holders := all.Named("allocator flight record")[0].Attributes["allocator.flight.holders"].AsStringSlice()
	if len(holders) != 1 || !strings.HasPrefix(holders[0], "3 KiB in 1 block of 3 KiB: flight_test.allocate (flight_test.go:") {
		t.Errorf("holders %q", holders)
	}
}

// TestHoldersByCaller: an attribute and a text have the calls of an adapter, and who called it, or without Skip's.
func TestHoldersByCaller(t *testing.T) {
	const adapterCalls = `inner.Allocate \(inner.go:\d+\), adapter%\S+ \(adapter.go:\d+\), adapter%2ev2.call \(adapter.go:\d+\), adapter%2ev2.\(\*builder\[...\]\).block \(adapter.go:\d+\), adapter%2ev2.build\[...\] \(adapter.go:\d+\), adapter%2ev2.New \(adapter.go:\d+\), `
	for _, c := range []struct {
		skip  []string
		calls string
	}{{nil, adapterCalls}, {[]string{"github.com/alloctrace/alloctrace/internal/adapter.v2/..."}, ""}} {
		all, heap := new(spantest.Recorder), heapprofile.New(heapprofile.Options{Rate: 1, Skip: c.skip})
		r := flight.New(flight.Options{Clock: newClock(), TracerProvider: all, Profile: heap})
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(heap, r))
		adapter.New(mem, 3<<10)
		func() { adapter.New(mem, 2<<10) }()
		var out bytes.Buffer
		if err := errors.Join(r.WriteText(&out), r.Dump(t.Context()), r.Close()); err != nil {
			t.Fatal(err)
		}
		holders := all.Named("allocator flight record")[0].Attributes["allocator.flight.holders"].AsStringSlice()
		want := regexp.MustCompile(`^3 KiB in 1 block of 3 KiB: ` + c.calls + `flight_test.TestHoldersByCaller \(flight_test.go:\d+\); .*
2 KiB in 1 block of 2 KiB: ` + c.calls + `flight_test.TestHoldersByCaller.func1 \(flight_test.go:\d+\)(, .*| and 1 more call); .*$`)
		if got := strings.Join(holders, "\n"); !want.MatchString(got) {
			t.Errorf("holders\n%s\nwant\n%s", got, want)
		}
		if want := regexp.MustCompile(`  3 KiB in 1 block of 3 KiB: ` + c.calls + `flight_test.TestHoldersByCaller `); !want.MatchString(out.String()) {
			t.Errorf("no %s in\n%s", want, &out)
		}
	}
}

// TestBounds: whatever happens, a record has so many spans and lines, says what it lacks, and is valid UTF-8.
func TestBounds(t *testing.T) {
	all := new(spantest.Recorder)
	r := flight.New(flight.Options{Clock: newClock(), TracerProvider: all, IgnoreFailures: true, Events: 1 << 14})
	defer r.Close()
	mem := alloctrace.Wrap(blockalloc.NewLimit(new(aligned), 1<<20), alloctrace.WithHooks(r))
	r.Watch(mem)
	for i := range 40 {
		child := mem.Child(fmt.Sprintf("child \xff %d\n", i))
		for range 10 {
			allocate(t, child, uintptr(64+i))
		}
		_, _ = child.Allocate(blockalloc.Layout{Size: ^uintptr(0) - 7, Align: 8})
	}
	var out bytes.Buffer
	if err := errors.Join(r.WriteText(&out), r.Dump(t.Context())); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !utf8.ValidString(got) || strings.Count(got, "\n") > 350 || !strings.Contains(got, "  184 events before\n") || !strings.Contains(got, "and 8 more children") {
		t.Errorf("%d lines, valid %v\n%s", strings.Count(got, "\n"), utf8.ValidString(got), got)
	}
	if n := len(all.Spans); n != 1+16+64+16 {
		t.Errorf("%d spans", n)
	}
	for _, s := range all.Spans {
		for k, v := range s.Attributes {
			if !utf8.ValidString(v.AsString()) {
				t.Errorf("%s of %q is %q", k, s.Name, v.AsString())
			}
		}
		if !utf8.ValidString(s.Name) || !utf8.ValidString(s.Description) {
			t.Errorf("%q %q", s.Name, s.Description)
		}
		if s.Name == "block" && s.Attributes["allocator.size"].AsInt64() < 97 {
			t.Errorf("a block of %d B, and larger ones have no span", s.Attributes["allocator.size"].AsInt64())
		}
	}
	if got := all.Spans[0].Attributes["allocator.flight.blocks_omitted"].AsInt64(); got != 400-64 {
		t.Errorf("%d blocks omitted", got)
	}
}
