package otlp

import (
	"context"
	"encoding/hex"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// TestMain keeps OpenTelemetry settings of the machine out of the tests. The binary may also be the program that
// TestKilled kills.
func TestMain(m *testing.M) {
	if path := os.Getenv(stormFile); path != "" {
		storm(path)
	}
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "OTEL_") {
			os.Unsetenv(name)
		}
	}
	os.Exit(m.Run())
}

func TestDelivery(t *testing.T) {
	eachProtocol(t, func(t *testing.T, proto Protocol) {
		c := startCollector(t, proto)
		before := runtime.NumGoroutine()
		p, err := New(t.Context(), Options{Endpoint: c.URL, Protocol: proto, ServiceName: "svc"})
		if err != nil {
			t.Fatal(err)
		}
		tr := p.Tracer("test")
		ctx, outer := tr.Start(t.Context(), "outer", trace.WithAttributes(attribute.Int64("bytes", 1<<40+1)))
		_, inner := tr.Start(ctx, "inner")
		inner.SetStatus(codes.Error, "out of memory")
		inner.End()
		outer.End()
		wantStats(t, p, Stats{Accepted: 2})
		if got := p.Stats().Pending(); got != 2 {
			t.Errorf("%d spans pending, want 2", got)
		}
		if err := p.Shutdown(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		wantStats(t, p, Stats{Accepted: 2, Exported: 2})
		if p.Err() != nil {
			t.Errorf("Err is %v after a clean run", p.Err())
		}

		spans := map[string]*tracepb.Span{}
		for _, s := range c.received() {
			spans[s.Name] = s
		}
		o, i := spans["outer"], spans["inner"]
		if len(spans) != 2 || o == nil || i == nil {
			t.Fatalf("the collector has %v, want outer and inner", spans)
		}
		if want := outer.SpanContext().SpanID().String(); hex.EncodeToString(i.ParentSpanId) != want || hex.EncodeToString(o.SpanId) != want {
			t.Errorf("inner has parent %x, outer has id %x, want %s for both", i.ParentSpanId, o.SpanId, want)
		}
		if got := attributes(o.Attributes)["bytes"].GetIntValue(); got != 1<<40+1 {
			t.Errorf("attribute bytes is %d, want 1<<40+1", got)
		}
		if i.Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR || i.Status.GetMessage() != "out of memory" {
			t.Errorf("status of inner is %v", i.Status)
		}
		if c.resource["service.name"] != "svc" {
			t.Errorf("resource is %v, want service.name svc", c.resource)
		}
		wantGoroutines(t, before) // the collector still runs: no connection may be left to it
	})
}

func TestDefaultServiceName(t *testing.T) {
	c := startCollector(t, HTTP)
	p := newTestProvider(t, Options{Endpoint: c.URL})
	emit(p, 1)
	if err := p.ForceFlush(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if got := c.resource["service.name"]; !strings.HasPrefix(got, "unknown_service:") || len(got) == len("unknown_service:") {
		t.Errorf("service.name is %q, want unknown_service: and the program", got)
	}
}

func TestBurstLosesNothing(t *testing.T) {
	eachProtocol(t, func(t *testing.T, proto Protocol) {
		c := startCollector(t, proto)
		p := newTestProvider(t, Options{Endpoint: c.URL, Protocol: proto})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { emit(p, 2500) })
		}
		wg.Wait()
		if err := p.ForceFlush(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		wantStats(t, p, Stats{Accepted: 10000, Exported: 10000})
		if got := len(ids(c.received())); got != 10000 {
			t.Errorf("the collector has %d different spans, want 10000", got)
		}
	})
}

// A tiny queue under flushes from all sides must drop, and count to the span.
func TestCountsAreExactUnderConcurrency(t *testing.T) {
	eachProtocol(t, func(t *testing.T, proto Protocol) {
		c := startCollector(t, proto)
		p := newTestProvider(t, Options{Endpoint: c.URL, Protocol: proto, QueueSize: 3})
		const goroutines, each = 8, 500
		var wg sync.WaitGroup
		for range goroutines {
			wg.Go(func() {
				for range each / 50 {
					emit(p, 50)
					p.ForceFlush(within(t, time.Minute)) // its error says what was dropped, counted below
				}
			})
		}
		snapshots := make(chan struct{})
		go func() {
			defer close(snapshots)
			for range 2000 {
				if s := p.Stats(); s.Pending() < 0 || s.Pending() > 3 {
					t.Errorf("a snapshot has %d spans pending in a queue of 3: %+v", s.Pending(), s)
					return
				}
				runtime.Gosched()
			}
		}()
		wg.Wait()
		<-snapshots
		err := p.Shutdown(within(t, time.Minute))
		s := p.Stats()
		if s.Accepted+s.Dropped != goroutines*each {
			t.Errorf("%d accepted and %d dropped, want %d together", s.Accepted, s.Dropped, goroutines*each)
		}
		if s.Accepted != s.Exported || s.Failed != 0 {
			t.Errorf("accepted and exported differ with a collector that takes all: %+v", s)
		}
		if got := len(ids(c.received())); int64(got) != s.Exported {
			t.Errorf("the collector has %d spans, Exported is %d", got, s.Exported)
		}
		if s.Dropped == 0 {
			t.Error("nothing was dropped: the test did not fill the queue")
		}
		if err == nil || !strings.Contains(err.Error(), "Options.QueueSize") {
			t.Errorf("Shutdown returned %v, want the drops and the remedy", err)
		}
	})
}

func TestUnsampledSpansAreNotCounted(t *testing.T) {
	t.Setenv("OTEL_TRACES_SAMPLER", "always_off")
	p := newTestProvider(t, Options{Endpoint: deadEndpoint(t)})
	emit(p, 100)
	if err := p.Shutdown(within(t, time.Minute)); err != nil {
		t.Error(err)
	}
	wantStats(t, p, Stats{})
}

// A span that is recorded but not sampled is no loss either.
func TestRecordOnlySpansAreNotCounted(t *testing.T) {
	p := newTestProvider(t, Options{Endpoint: deadEndpoint(t)})
	p.gate.OnEnd(tracetest.SpanStub{Name: "record only"}.Snapshot())
	wantStats(t, p, Stats{})
}

// A queue smaller than a batch must not wait for a batch that never fills up.
func TestSmallQueueIsSentWhenFull(t *testing.T) {
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
	c := startCollector(t, HTTP)
	p := newTestProvider(t, Options{Endpoint: c.URL, QueueSize: 10})
	emit(p, 10)
	for ctx := within(t, time.Minute); p.Stats().Exported < 10; time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("a full queue was not sent: %+v", p.Stats())
		}
	}
}

func TestForceFlushReportsEachLossOnce(t *testing.T) {
	p := newTestProvider(t, Options{Endpoint: deadEndpoint(t), Protocol: HTTP})
	emit(p, 7)
	err := p.ForceFlush(within(t, time.Minute))
	if err == nil || !strings.Contains(err.Error(), "7 spans did not reach http://127.0.0.1:") {
		t.Errorf("first flush returned %v, want the 7 lost spans", err)
	}
	if err := p.ForceFlush(within(t, time.Minute)); err != nil {
		t.Errorf("second flush returned %v, want nil: nothing was lost since", err)
	}
	emit(p, 2)
	if err := p.ForceFlush(within(t, time.Minute)); err == nil || !strings.Contains(err.Error(), " 2 spans ") {
		t.Errorf("third flush returned %v, want the 2 lost spans", err)
	}
	if err := p.Shutdown(within(t, time.Minute)); err == nil || !strings.Contains(err.Error(), "9 of 9 spans") {
		t.Errorf("Shutdown returned %v, want all 9 lost spans", err)
	}
}

func TestAfterShutdown(t *testing.T) {
	c := startCollector(t, HTTP)
	p := newTestProvider(t, Options{Endpoint: c.URL})
	_, open := p.Tracer("test").Start(t.Context(), "open across Shutdown")
	emit(p, 1)
	if err := p.Shutdown(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	open.End()
	emit(p, 2)
	wantStats(t, p, Stats{Accepted: 1, Exported: 1, Dropped: 3})
	if err := p.Shutdown(within(t, time.Minute)); err != nil {
		t.Errorf("second Shutdown returned %v, want nil", err)
	}
	if err := p.ForceFlush(within(t, time.Minute)); err != nil {
		t.Errorf("ForceFlush after Shutdown returned %v, want nil", err)
	}
}

// Spans that end while Shutdown runs are either exported or counted as
// dropped: the SDK's processor alone would lose some of them.
func TestSpansDuringShutdown(t *testing.T) {
	for range 20 {
		c := startCollector(t, HTTP)
		p := newTestProvider(t, Options{Endpoint: c.URL})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { emit(p, 200) })
		}
		p.Shutdown(within(t, time.Minute)) // its error says what was dropped, counted below
		wg.Wait()
		s := p.Stats()
		if s.Accepted != s.Exported || s.Accepted+s.Dropped != 800 || len(ids(c.received())) != int(s.Exported) {
			t.Fatalf("800 spans ended, the collector has %d, and the stats are %+v", len(c.received()), s)
		}
	}
}

func TestDefaultTimeoutBoundsUnboundedContexts(t *testing.T) {
	start := time.Now()
	ctx, cancel := withDefaultTimeout(context.Background())
	defer cancel()
	if d, ok := ctx.Deadline(); !ok || d.Before(start.Add(DefaultShutdownTimeout)) || d.After(time.Now().Add(DefaultShutdownTimeout)) {
		t.Errorf("a context without a deadline ends at %v, want %v after %v", d, DefaultShutdownTimeout, start)
	}
	own := within(t, time.Hour)
	ctx, cancel2 := withDefaultTimeout(own)
	defer cancel2()
	want, _ := own.Deadline()
	if d, _ := ctx.Deadline(); d != want {
		t.Errorf("a context's own deadline %v became %v", want, d)
	}
}
