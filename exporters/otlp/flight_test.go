package otlp

import (
	"strings"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/jaegertest"
	"github.com/alloctrace/alloctrace/tracer"
	"github.com/alloctrace/alloctrace/tracer/flight"
)

// TestJaegerShowsFlightRecords: the record of a failure is a trace in a real Jaeger, with a root of status error that
// leads to the trace of the request.
func TestJaegerShowsFlightRecords(t *testing.T) {
	j := jaegertest.Start(t)
	p := newTestProvider(t, Options{Endpoint: jaegerEndpoint(j, GRPC), Protocol: GRPC, ServiceName: "flight"})
	recorder := flight.New(flight.Options{TracerProvider: p})
	mem := alloctrace.Wrap(blockalloc.NewLimit(new(blockalloc.Heap), 1<<20), alloctrace.WithName("search"), alloctrace.WithHooks(recorder))
	recorder.Watch(mem)
	pages := mem.Child("pages")
	kept := allocate(t, pages, 256<<10)
	defer free(t, pages, kept)
	free(t, mem, allocate(t, mem, 64))
	ctx, request := tracer.Start(t.Context(), "GET /search", mem, tracer.WithTracerProvider(p))
	for range 100 { // a storm makes one
		if _, err := pages.WithContext(ctx).Allocate(blockalloc.BlockLayout(1 << 20)); err == nil {
			t.Fatal("there was room")
		}
	}
	request.End()
	if err := recorder.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Shutdown(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	const requestSpans, recordSpans = 1 + 32, 1 + 1 + 2 + 1 // the region and its failures; the root, a child, two blocks and a failure
	wantStats(t, p, Stats{Accepted: requestSpans + recordSpans, Exported: requestSpans + recordSpans})

	for _, tr := range j.FindTraces("flight") {
		if len(tr.Named("GET /search")) == 1 {
			continue
		}
		tr = j.Trace(tr[0].TraceID, recordSpans)
		roots, children, blocks, failures := tr.Named("allocator flight record"), tr.Named("child pages"), tr.Named("block"), tr.Named("allocate")
		if len(tr) != recordSpans || len(roots) != 1 || len(children) != 1 || len(blocks) != 2 || len(failures) != 1 {
			t.Fatalf("the record is %+v", tr)
		}
		root, child := roots[0], children[0]
		if root.StatusCode != 2 || !strings.Contains(root.StatusMessage, "limit reached") || root.Scope != flight.ScopeName || root.ParentID != "" {
			t.Errorf("the root is %+v", root)
		}
		requests := j.FindTraces("flight")
		for _, other := range requests {
			if r := other.Named("GET /search"); len(r) == 1 && (len(root.Links) != 1 || root.Links[0].TraceID != r[0].TraceID || root.Links[0].SpanID != r[0].SpanID) {
				t.Errorf("links %+v, want the request %s of trace %s", root.Links, r[0].SpanID, r[0].TraceID)
			}
		}
		for key, want := range map[string]any{
			"allocator.name": "search", "allocator.flight.trigger": "failure", "allocator.flight.region": "GET /search", "allocator.flight.events": int64(4),
			"allocator.memory.allocated": int64(256<<10 + 64), "allocator.memory.freed": int64(64), "allocator.memory.live": int64(256 << 10),
			"allocator.failures": int64(1),
		} {
			if got := root.Attributes[key]; got != want {
				t.Errorf("the root has %s = %v, want %v", key, got, want)
			}
		}
		if child.ParentID != root.SpanID || child.Attributes["allocator.memory.live"] != int64(256<<10) || failures[0].ParentID != child.SpanID || failures[0].StatusCode != 2 {
			t.Errorf("the child is %+v, the failure %+v", child, failures[0])
		}
		for _, s := range tr {
			if w := s.Attributes["@jaeger@warnings"]; w != nil {
				t.Errorf("Jaeger says of %s: %v", s.Name, w)
			}
		}
		for _, b := range blocks {
			large := b.Attributes["allocator.size"] == int64(256<<10)
			if b.Attributes["allocator.live"] != large || (b.ParentID == child.SpanID) != large || b.Start < root.Start || b.End > root.End {
				t.Errorf("block %+v", b)
			}
		}
		return
	}
	t.Error("Jaeger has no record")
}
