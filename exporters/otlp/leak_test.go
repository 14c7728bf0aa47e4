package otlp

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/jaegertest"
	"github.com/alloctrace/alloctrace/tracer"
)

// TestJaegerFindsTheLeak: of a service that runs, a search for the tag allocator.leaked=true finds the
// blocks that requests have left behind, with route, child and stack, and no block of its cache.
func TestJaegerFindsTheLeak(t *testing.T) {
	j := jaegertest.Start(t)
	p := newTestProvider(t, Options{Endpoint: j.HTTPEndpoint(), Protocol: HTTP, ServiceName: "leaky"})
	l := tracer.NewLifetimes(tracer.LifetimeOptions{Rate: 1, TracerProvider: p, OldAge: time.Nanosecond, LongLived: []string{"cache"}, Budget: tracer.NewBudget(10_000)})
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithName("mem"), alloctrace.WithHooks(l))
	cache, parse := mem.Child("cache"), mem.Child("parse")
	var cached, leaked []blockalloc.Block
	requests := make(map[string]string) // the trace of each request that leaks, by its span
	for i := range 100 {
		ctx, r := tracer.Start(t.Context(), "request", mem, tracer.WithTracerProvider(p))
		b := allocateIn(ctx, t, parse)
		if i%10 == 0 {
			cached = append(cached, allocateIn(ctx, t, cache))
		}
		if i%25 == 3 {
			leaked = append(leaked, b)
			of := trace.SpanContextFromContext(ctx)
			requests[of.SpanID().String()] = of.TraceID().String()
			r.SetAttributes(attribute.String("http.route", "/leak"))
		} else {
			free(t, parse.WithContext(ctx), b)
			r.SetAttributes(attribute.String("http.route", "/fine"))
		}
		r.End()
	}
	time.Sleep(time.Millisecond) // for all to be old, and where the clock is coarse
	l.Checkpoint()
	if err := p.ForceFlush(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	found := j.FindTagged("leaky", "allocator.leaked", "true")
	if len(found) != len(leaked) {
		t.Errorf("the search finds %d blocks, want %d", len(found), len(leaked))
	}
	for _, tr := range found {
		s := tr[0]
		for name, want := range map[string]any{
			"http.route": "/leak", "allocator.child": "parse", "allocator.name": "mem", "allocator.region": "request",
			"allocator.block.size": int64(4096), "allocator.leaked": true, "allocator.live": true,
		} {
			if s.Attributes[name] != want {
				t.Errorf("%s is %v, want %v", name, s.Attributes[name], want)
			}
		}
		if stack, _ := s.Attributes["code.stacktrace"].(string); !strings.Contains(stack, "otlp.allocateIn\n") || s.StatusCode != 2 || s.ParentID != "" {
			t.Errorf("a leak with status %d, parent %q, stack %q", s.StatusCode, s.ParentID, stack)
		}
		if len(s.Links) != 1 || requests[s.Links[0].SpanID] != s.Links[0].TraceID {
			t.Errorf("the leak is linked to %+v, want a request that leaks", s.Links)
		}
	}
	if live := j.FindTagged("leaky", "allocator.live", "true"); len(live) != len(leaked)+len(cached) {
		t.Errorf("%d blocks are shown as live, want %d", len(live), len(leaked)+len(cached))
	}
	for _, b := range cached {
		free(t, cache, b)
	}
	for _, b := range leaked {
		free(t, parse, b)
	}
	l.Close()
	if s := l.Stats(); s.Leaked != int64(len(leaked)) || s.Live != 0 || s.Suppressed != 0 {
		t.Errorf("at the end %+v", s)
	}
	if err := p.Shutdown(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
}

func allocateIn(ctx context.Context, t *testing.T, mem *alloctrace.Proxy) blockalloc.Block {
	b, err := mem.WithContext(ctx).Allocate(blockalloc.BlockLayout(4096))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
