package otlp

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/jaegertest"
	"github.com/alloctrace/alloctrace/tracer"
)

// These tests send regions through the whole stack into a real Jaeger and read
// them back through its API.

func jaegerEndpoint(j *jaegertest.Jaeger, p Protocol) string {
	if p == GRPC {
		return j.GRPCEndpoint()
	}
	return j.HTTPEndpoint()
}

func allocate(t *testing.T, mem blockalloc.Allocator, size uintptr) blockalloc.Block {
	t.Helper()
	b, err := mem.Allocate(blockalloc.BlockLayout(size))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func free(t *testing.T, mem blockalloc.Allocator, b blockalloc.Block) {
	t.Helper()
	if err := mem.Free(b); err != nil {
		t.Fatal(err)
	}
}

// regionAttributes is what the tracer package documents for a region's span.
func regionAttributes(name string, s counter.Stats) map[string]any {
	return map[string]any{
		"allocator.name":             name,
		"allocator.memory.allocated": s.AllocatedBytes,
		"allocator.memory.freed":     s.FreedBytes,
		"allocator.memory.net":       s.AllocatedBytes - s.FreedBytes,
		"allocator.memory.peak":      s.PeakBytes,
		"allocator.allocations":      s.Allocations,
		"allocator.reallocations":    s.Reallocations,
		"allocator.frees":            s.Frees,
		"allocator.failures":         s.FailedAllocations + s.FailedReallocations + s.FailedFrees,
	}
}

// work runs an outer region with two inner ones, the second of which fails
// three operations, and checks the numbers of each against what was done.
func work(t *testing.T, tp trace.TracerProvider) (id string, want map[string]map[string]any) {
	t.Helper()
	mem := alloctest.New(t, alloctest.WithProxy(alloctrace.WithName("index")))
	with := tracer.WithTracerProvider(tp)
	ctx, load := tracer.Start(t.Context(), "load", mem, with)

	ctx2, read := tracer.Start(ctx, "read", load.Allocator(), with, tracer.WithAttributes(attribute.String("file", "a€b")))
	kept := allocate(t, read.Allocator(), 1<<16)
	gone := allocate(t, read.Allocator(), 1<<20)
	free(t, read.Allocator(), gone)
	read.End()
	atEnd := read.Stats() // what is inside its context later counts, but is no part of the span

	_, parse := tracer.Start(ctx, "parse", load.Allocator(), with)
	kept, err := parse.Allocator().Reallocate(kept, 1<<17)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parse.Allocator().Allocate(blockalloc.Layout{Size: 4096, Align: 999}); !errors.Is(err, blockalloc.ErrBadLayout) {
		t.Fatalf("alignment 999 gave %v", err)
	}
	if _, err := parse.Allocator().Reallocate(kept, ^uintptr(0)); err == nil {
		t.Fatal("a reallocation to the whole address space succeeded")
	}
	free(t, parse.Allocator(), kept)
	parse.End()

	// Nothing can be had from Null: a region over it shows running out of memory.
	_, starve := tracer.Start(ctx2, "starve", alloctrace.Wrap(blockalloc.Null{}, alloctrace.WithName("null")), with)
	if _, err := starve.Allocator().Allocate(blockalloc.BlockLayout(8192)); !errors.Is(err, blockalloc.ErrOutOfMemory) {
		t.Fatalf("Null gave %v", err)
	}
	starve.End()
	load.End()

	if s := mem.Stats(); s.AllocatedBytes != load.Stats().AllocatedBytes {
		t.Fatalf("the proxy's numbers are %v, the outer region's %v", s, load.Stats())
	}
	if s := atEnd; s.AllocatedBytes != 1<<16+1<<20 || s.FreedBytes != 1<<20 || s.PeakBytes != 1<<16+1<<20 {
		t.Fatalf("the numbers of read are %v", s)
	}
	want = map[string]map[string]any{
		"load":   regionAttributes("index", load.Stats()),
		"read":   regionAttributes("index", atEnd),
		"parse":  regionAttributes("index", parse.Stats()),
		"starve": regionAttributes("null", starve.Stats()),
	}
	want["read"]["file"] = "a€b"
	return trace.SpanContextFromContext(ctx).TraceID().String(), want
}

const workSpans = 4 + 3 // the regions and the failures

// checkWork checks the trace of work.
func checkWork(t *testing.T, tr jaegertest.Trace, service string, want map[string]map[string]any) {
	t.Helper()
	if len(tr) != workSpans {
		t.Fatalf("the trace has %d spans, want %d: %+v", len(tr), workSpans, tr)
	}
	span := map[string]jaegertest.Span{}
	for name, attributes := range want {
		named := tr.Named(name)
		if len(named) != 1 {
			t.Fatalf("%d spans are named %s, want 1", len(named), name)
		}
		span[name] = named[0]
		if got := named[0].Attributes; !reflect.DeepEqual(got, attributes) {
			t.Errorf("%s has attributes\n%v, want\n%v", name, got, attributes)
		}
		if named[0].StatusCode == 2 {
			t.Errorf("region %s has status error", name)
		}
	}
	for _, x := range []struct{ child, parent string }{{"load", ""}, {"read", "load"}, {"parse", "load"}, {"starve", "read"}} {
		c, p := span[x.child], span[x.parent]
		if c.ParentID != p.SpanID {
			t.Errorf("%s has parent %q, want %s with id %q", x.child, c.ParentID, x.parent, p.SpanID)
		}
		if x.child != "starve" && x.parent != "" && (c.Start < p.Start || c.End > p.End) {
			t.Errorf("%s from %d to %d is outside of %s from %d to %d", x.child, c.Start, c.End, x.parent, p.Start, p.End)
		}
	}
	for _, x := range []struct {
		op, parent, errorType string
		words                 error
		size, align           any
	}{
		{"allocate", "parse", "bad_layout", blockalloc.ErrBadLayout, int64(4096), int64(999)},
		{"reallocate", "parse", "", nil, nil, nil},
		{"allocate", "starve", "out_of_memory", blockalloc.ErrOutOfMemory, int64(8192), int64(8192)},
	} {
		var found []jaegertest.Span
		for _, s := range tr.Named(x.op) {
			if s.ParentID == span[x.parent].SpanID {
				found = append(found, s)
			}
		}
		if len(found) != 1 {
			t.Errorf("%d failures named %s in %s, want 1", len(found), x.op, x.parent)
			continue
		}
		s := found[0]
		if s.StatusCode != 2 || s.StatusMessage == "" {
			t.Errorf("failed %s in %s has status %d %q, want 2 and the error's text", x.op, x.parent, s.StatusCode, s.StatusMessage)
		}
		if x.words == nil {
			continue
		}
		if a := s.Attributes; !strings.Contains(s.StatusMessage, x.words.Error()) || a["error.type"] != x.errorType ||
			a["allocator.size"] != x.size || a["allocator.align"] != x.align {
			t.Errorf("failed %s in %s has status %q and attributes %v, want %+v", x.op, x.parent, s.StatusMessage, a, x)
		}
	}
	for _, s := range tr {
		if s.Resource["service.name"] != service || s.Scope != tracer.ScopeName {
			t.Errorf("%s has resource %v and scope %q", s.Name, s.Resource, s.Scope)
		}
	}
}

func TestJaegerShowsRegions(t *testing.T) {
	eachProtocol(t, func(t *testing.T, proto Protocol) {
		j := jaegertest.Start(t)
		p := newTestProvider(t, Options{Endpoint: jaegerEndpoint(j, proto), Protocol: proto, ServiceName: "regions"})
		id, want := work(t, p)
		if err := p.Shutdown(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		wantStats(t, p, Stats{Accepted: workSpans, Exported: workSpans})
		checkWork(t, j.Trace(id, workSpans), "regions", want)
		if found := j.FindTraces("regions"); len(found) != 1 || len(found[0]) != workSpans || found[0][0].TraceID != id {
			t.Errorf("a search by service name found %v, want the trace %s alone", found, id)
		}
	})
}

func TestJaegerTakesTheFile(t *testing.T) {
	j := jaegertest.Start(t)
	path := filepath.Join(t.TempDir(), "trace.json")
	p := newTestProvider(t, Options{File: path, ServiceName: "file"})
	id, want := work(t, p)
	if err := p.Shutdown(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var written jaegertest.Trace
	for line := range bytes.Lines(file) {
		traces, err := jaegertest.Decode(line)
		if err != nil || len(traces) != 1 {
			t.Fatalf("a line of the file has %d traces, %v: %s", len(traces), err, line)
		}
		written = append(written, traces[0]...)
		resp, err := http.Post(j.HTTPEndpoint()+"/v1/traces", "application/json", bytes.NewReader(line))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("Jaeger answered %s to %s", resp.Status, line)
		}
	}
	checkWork(t, written, "file", want)
	if stored := j.Trace(id, workSpans); !reflect.DeepEqual(stored, written) {
		t.Errorf("Jaeger has\n%+v\nthe file has\n%+v", stored, written)
	}
}

// region allocates and frees one block in a region of its own.
func region(ctx context.Context, mem blockalloc.Allocator, tp trace.TracerProvider, size uintptr) error {
	_, r := tracer.Start(ctx, "step", mem, tracer.WithTracerProvider(tp))
	defer r.End()
	b, err := r.Allocator().Allocate(blockalloc.BlockLayout(size))
	if err != nil {
		return err
	}
	return r.Allocator().Free(b)
}

func TestJaegerLosesNoneOfTenThousand(t *testing.T) {
	eachProtocol(t, func(t *testing.T, proto Protocol) {
		const spans = 10_000
		j := jaegertest.Start(t)
		p := newTestProvider(t, Options{Endpoint: jaegerEndpoint(j, proto), Protocol: proto, ServiceName: "burst"})
		mem := alloctest.New(t)
		ctx, all := tracer.Start(t.Context(), "all", mem, tracer.WithTracerProvider(p))
		for i := range spans - 1 {
			if err := region(ctx, all.Allocator(), p, 64<<(i%4)); err != nil {
				t.Fatal(err)
			}
		}
		all.End()
		if err := p.ForceFlush(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		wantStats(t, p, Stats{Accepted: spans, Exported: spans})

		tr := j.Trace(trace.SpanContextFromContext(ctx).TraceID().String(), spans)
		distinct := map[string]bool{}
		var sum int64
		for _, s := range tr {
			distinct[s.SpanID] = true
			if s.Name == "step" {
				sum += s.Attributes["allocator.memory.allocated"].(int64)
			}
		}
		if len(tr) != spans || len(distinct) != spans {
			t.Errorf("Jaeger has %d spans, %d of them distinct, want %d", len(tr), len(distinct), spans)
		}
		root := tr.Named("all")
		if len(root) != 1 {
			t.Fatalf("%d spans are named all, want 1", len(root))
		}
		if got := root[0].Attributes["allocator.memory.allocated"]; got != sum || sum != mem.Stats().AllocatedBytes {
			t.Errorf("the root allocated %v bytes, its children %d, the proxy %d", got, sum, mem.Stats().AllocatedBytes)
		}
	})
}

func TestJaegerKilledMidway(t *testing.T) {
	eachProtocol(t, func(t *testing.T, proto Protocol) {
		const before, after, queue = 500, 10_000, 1000
		j := jaegertest.Start(t)
		p := newTestProvider(t, Options{Endpoint: jaegerEndpoint(j, proto), Protocol: proto, ServiceName: "killed", QueueSize: queue, Timeout: time.Minute})
		mem := alloctest.New(t)
		run := func(n int) {
			t.Helper()
			done := make(chan error, 1)
			go func() {
				for range n {
					if err := region(context.Background(), mem, p, 4096); err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
			select {
			case err := <-done:
				if err != nil {
					t.Fatal(err)
				}
			case <-within(t, time.Minute).Done():
				t.Fatal("the program hangs at the end of a region")
			}
		}
		run(before)
		if err := p.ForceFlush(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		wantStats(t, p, Stats{Accepted: before, Exported: before})
		if got := len(j.FindTraces("killed")); got != before {
			t.Errorf("Jaeger has %d traces, want %d", got, before)
		}

		j.Kill()
		run(after)
		err := p.Shutdown(within(t, 200*time.Millisecond))
		s := p.Stats()
		if s.Accepted+s.Dropped != before+after || s.Exported != before || s.Accepted != s.Exported+s.Failed {
			t.Errorf("%d spans ended before Jaeger was killed and %d after it, and the stats are %+v", before, after, s)
		}
		// By gRPC the first batch is tried again for longer than the test runs,
		// so that the queue fills up; by HTTP a refused connection is final.
		if proto == GRPC && (s.Failed != queue || s.Dropped != after-queue) {
			t.Errorf("with a queue of %d the stats are %+v", queue, s)
		}
		if err == nil || !strings.Contains(err.Error(), "10000 of 10500 spans") {
			t.Errorf("Shutdown returned %v, want 10000 of 10500 spans", err)
		}
		if m := mem.Stats(); m.Allocations != before+after || m.Frees != before+after || m.AllocatedBytes != (before+after)*4096 {
			t.Errorf("the allocator's numbers are %v", m)
		}
	})
}
