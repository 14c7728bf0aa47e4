package otlp

import (
	"context"
	"errors"
	"log"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// countGlobalErrors counts what reaches OpenTelemetry's global handler, which
// by default prints to the program's standard error.
func countGlobalErrors(t *testing.T) *atomic.Int64 {
	var n atomic.Int64
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		n.Add(1)
		t.Logf("global handler: %v", err)
	}))
	t.Cleanup(func() { // t must not be used any more
		otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Print(err) }))
	})
	return &n
}

func TestDownEndpoint(t *testing.T) {
	eachProtocol(t, func(t *testing.T, proto Protocol) {
		printed := countGlobalErrors(t)
		before := runtime.NumGoroutine()
		p, err := New(t.Context(), Options{Endpoint: deadEndpoint(t), Protocol: proto})
		if err != nil {
			t.Fatal(err)
		}
		emit(p, 10000)
		// HTTP takes a refused connection as final; gRPC tries again until
		// Shutdown gives up.
		limit := map[Protocol]time.Duration{GRPC: 2 * time.Second, HTTP: time.Minute}[proto]
		err = p.Shutdown(within(t, limit))
		wantStats(t, p, Stats{Accepted: 10000, Failed: 10000})
		if err == nil {
			t.Fatal("Shutdown returned nil though nothing arrived")
		}
		for _, want := range []string{"Shutdown", "10000 of 10000 spans did not reach http://127.0.0.1:", "refused"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("the error does not say %q: %v", want, err)
			}
		}
		if p.Err() == nil {
			t.Error("Err returned nil though nothing arrived")
		}
		if n := printed.Load(); n != 0 {
			t.Errorf("%d errors reached the global handler, want none", n)
		}
		wantGoroutines(t, before)
	})
}

func TestSilentEndpoint(t *testing.T) {
	eachProtocol(t, func(t *testing.T, proto Protocol) {
		url := silentEndpoint(t)
		before := runtime.NumGoroutine()
		p, err := New(t.Context(), Options{Endpoint: url, Protocol: proto, QueueSize: 6000})
		if err != nil {
			t.Fatal(err)
		}
		emit(p, 10000)
		wantStats(t, p, Stats{Accepted: 6000, Dropped: 4000})
		err = p.ForceFlush(within(t, 50*time.Millisecond))
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "6000 pending") {
			t.Errorf("ForceFlush returned %v, want the deadline and 6000 pending spans", err)
		}
		err = p.Shutdown(within(t, 50*time.Millisecond))
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "10000 of 10000") {
			t.Errorf("Shutdown returned %v, want the deadline and 10000 of 10000 spans", err)
		}
		wantStats(t, p, Stats{Accepted: 6000, Failed: 6000, Dropped: 4000})
		wantGoroutines(t, before)
	})
}

func TestTimeoutBoundsABatch(t *testing.T) {
	eachProtocol(t, func(t *testing.T, proto Protocol) {
		p := newTestProvider(t, Options{Endpoint: silentEndpoint(t), Protocol: proto, Timeout: 20 * time.Millisecond})
		emit(p, 5)
		err := p.ForceFlush(within(t, time.Minute))
		if err == nil || !strings.Contains(err.Error(), " 5 spans ") {
			t.Errorf("ForceFlush returned %v, want 5 spans lost", err)
		}
		wantStats(t, p, Stats{Accepted: 5, Failed: 5})
	})
}

func TestEndpointDiesMidway(t *testing.T) {
	eachProtocol(t, func(t *testing.T, proto Protocol) {
		c := startCollector(t, proto)
		p := newTestProvider(t, Options{Endpoint: c.URL, Protocol: proto})
		emit(p, 1000)
		if err := p.ForceFlush(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		c.stop()
		emit(p, 1000)
		err := p.Shutdown(within(t, 300*time.Millisecond))
		if err == nil || !strings.Contains(err.Error(), "1000 of 2000 spans") {
			t.Errorf("Shutdown returned %v, want 1000 of 2000 spans", err)
		}
		wantStats(t, p, Stats{Accepted: 2000, Exported: 1000, Failed: 1000})
		if got := len(ids(c.received())); got != 1000 {
			t.Errorf("the collector has %d spans, want 1000", got)
		}
	})
}

// The queue counts the batch on its way, so that what a stuck collector holds
// up is never more than Options.QueueSize; once it answers, nothing accepted
// is lost.
func TestQueueFullThenFreed(t *testing.T) {
	eachProtocol(t, func(t *testing.T, proto Protocol) {
		c := startCollector(t, proto)
		arrived, release := make(chan struct{}), make(chan struct{})
		var once sync.Once
		c.reply = func(context.Context, int, int) (*collectorpb.ExportTraceServiceResponse, error) {
			once.Do(func() { close(arrived) })
			<-release
			return &collectorpb.ExportTraceServiceResponse{}, nil
		}
		p := newTestProvider(t, Options{Endpoint: c.URL, Protocol: proto, QueueSize: 1000, Timeout: time.Minute})
		emit(p, 600)
		<-arrived // 512 of them are on their way
		emit(p, 600)
		wantStats(t, p, Stats{Accepted: 1000, Dropped: 200})
		close(release)
		err := p.ForceFlush(within(t, time.Minute))
		if err == nil || !strings.Contains(err.Error(), " 200 spans ") {
			t.Errorf("ForceFlush returned %v, want 200 spans lost", err)
		}
		emit(p, 1000)
		if err := p.ForceFlush(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
		wantStats(t, p, Stats{Accepted: 2000, Exported: 2000, Dropped: 200})
		if got := len(ids(c.received())); got != 2000 {
			t.Errorf("the collector has %d spans, want 2000", got)
		}
	})
}

func TestRefusal(t *testing.T) {
	eachProtocol(t, func(t *testing.T, proto Protocol) {
		c := startCollector(t, proto)
		c.reply = func(context.Context, int, int) (*collectorpb.ExportTraceServiceResponse, error) {
			return nil, status.Error(codes.InvalidArgument, "no thanks")
		}
		p := newTestProvider(t, Options{Endpoint: c.URL, Protocol: proto})
		emit(p, 10)
		err := p.Shutdown(within(t, time.Minute))
		if err == nil || !strings.Contains(err.Error(), "10 of 10 spans") || !strings.Contains(err.Error(), "no thanks") {
			t.Errorf("Shutdown returned %v, want 10 of 10 spans and the collector's words", err)
		}
		wantStats(t, p, Stats{Accepted: 10, Failed: 10})
	})
}

func TestPartialSuccess(t *testing.T) {
	eachProtocol(t, func(t *testing.T, proto Protocol) {
		printed := countGlobalErrors(t)
		c := startCollector(t, proto)
		c.reply = func(_ context.Context, request, spans int) (*collectorpb.ExportTraceServiceResponse, error) {
			r := &collectorpb.ExportTraceServiceResponse{PartialSuccess: &collectorpb.ExportTracePartialSuccess{ErrorMessage: "name too long"}}
			if request > 1 {
				r.PartialSuccess.RejectedSpans = 3
			}
			return r, nil
		}
		p := newTestProvider(t, Options{Endpoint: c.URL, Protocol: proto})
		emit(p, 10)
		if err := p.ForceFlush(within(t, time.Minute)); err != nil {
			t.Errorf("a remark without a rejection became an error: %v", err)
		}
		if err := p.Err(); err != nil {
			t.Errorf("a remark without a rejection became a failure: %v", err)
		}
		wantStats(t, p, Stats{Accepted: 10, Exported: 10})
		emit(p, 10)
		err := p.ForceFlush(within(t, time.Minute))
		if err == nil || !strings.Contains(err.Error(), " 3 spans ") || !strings.Contains(err.Error(), "name too long") {
			t.Errorf("ForceFlush returned %v, want 3 spans and the collector's words", err)
		}
		wantStats(t, p, Stats{Accepted: 20, Exported: 17, Failed: 3})
		if n := printed.Load(); n != 0 {
			t.Errorf("%d errors reached the global handler, want none", n)
		}
	})
}

// A flush that is cut short goes on, and the next one waits its turn.
func TestForceFlushCutShortGoesOn(t *testing.T) {
	c := startCollector(t, HTTP)
	release := make(chan struct{})
	c.reply = func(context.Context, int, int) (*collectorpb.ExportTraceServiceResponse, error) {
		<-release
		return &collectorpb.ExportTraceServiceResponse{}, nil
	}
	p := newTestProvider(t, Options{Endpoint: c.URL, QueueSize: 10, Timeout: time.Minute})
	emit(p, 10)
	for range 20 { // marks that pile up in the queue would displace spans
		if err := p.ForceFlush(within(t, time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("ForceFlush returned %v, want the deadline", err)
		}
	}
	close(release)
	if err := p.ForceFlush(within(t, time.Minute)); err != nil {
		t.Error(err)
	}
	emit(p, 10)
	if err := p.ForceFlush(within(t, time.Minute)); err != nil {
		t.Error(err)
	}
	wantStats(t, p, Stats{Accepted: 20, Exported: 20})
}
