package otlp

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/alloctrace/alloctrace/exporters/otlpfile"
)

// hang makes the collector wait with each answer until release is called, and
// with it the test's end. arrived is closed when the first request is there.
func hang(t *testing.T, c *collector) (arrived <-chan struct{}, release func()) {
	t.Helper()
	first, held := make(chan struct{}), make(chan struct{})
	var once sync.Once
	c.reply = func(ctx context.Context, _, _ int) (*collectorpb.ExportTraceServiceResponse, error) {
		once.Do(func() { close(first) })
		select {
		case <-held:
		case <-ctx.Done():
		}
		return &collectorpb.ExportTraceServiceResponse{}, nil
	}
	release = sync.OnceFunc(func() { close(held) })
	t.Cleanup(release)
	return first, release
}

// wantNonePending checks what holds whenever a Shutdown has returned.
func wantNonePending(t *testing.T, p *Provider) {
	t.Helper()
	if s := p.Stats(); s.Pending() != 0 {
		t.Errorf("Shutdown returned while %d spans are pending: %+v", s.Pending(), s)
	}
}

// Counts hold at all times, whatever the collector does, and no span is pending
// once Shutdown has returned, whichever call of it.
func TestCountsHoldWithEveryCollector(t *testing.T) {
	type reply = func(context.Context, int, int) (*collectorpb.ExportTraceServiceResponse, error)
	good := &collectorpb.ExportTraceServiceResponse{}
	servers := map[string]reply{
		"good": nil,
		"slow": func(context.Context, int, int) (*collectorpb.ExportTraceServiceResponse, error) {
			for range 1000 {
				runtime.Gosched()
			}
			return good, nil
		},
		"hanging": func(ctx context.Context, _, _ int) (*collectorpb.ExportTraceServiceResponse, error) {
			<-ctx.Done()
			return good, nil
		},
		"hanging later": func(ctx context.Context, request, _ int) (*collectorpb.ExportTraceServiceResponse, error) {
			if request > 2 {
				<-ctx.Done()
			}
			return good, nil
		},
		"refusing": func(context.Context, int, int) (*collectorpb.ExportTraceServiceResponse, error) {
			return nil, status.Error(codes.InvalidArgument, "no thanks")
		},
		"asking to try again": func(context.Context, int, int) (*collectorpb.ExportTraceServiceResponse, error) {
			return nil, status.Error(codes.Unavailable, "later")
		},
		"rejecting half": func(_ context.Context, _, spans int) (*collectorpb.ExportTraceServiceResponse, error) {
			return &collectorpb.ExportTraceServiceResponse{PartialSuccess: &collectorpb.ExportTracePartialSuccess{RejectedSpans: int64(spans / 2)}}, nil
		},
	}
	for name, reply := range servers {
		t.Run(name, func(t *testing.T) {
			eachProtocol(t, func(t *testing.T, proto Protocol) {
				c := startCollector(t, proto)
				c.reply = reply
				t.Setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "50")
				t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
				p := newTestProvider(t, Options{Endpoint: c.URL, Protocol: proto, QueueSize: 300, Timeout: time.Minute})
				const goroutines, each = 4, 200
				done := make(chan struct{})
				var watch, wg sync.WaitGroup
				watch.Go(func() {
					for {
						s := p.Stats()
						if s.Pending() < 0 || s.Pending() > 300 || s.Accepted+s.Dropped > goroutines*each {
							t.Errorf("the stats are %+v", s)
							return
						}
						select {
						case <-done:
							return
						default:
							runtime.Gosched()
						}
					}
				})
				for i := range goroutines {
					wg.Go(func() {
						emit(p, each/2)
						if i%2 == 0 {
							p.ForceFlush(within(t, time.Millisecond))
						}
						emit(p, each/2)
						p.Shutdown(within(t, 30*time.Millisecond))
						wantNonePending(t, p)
					})
				}
				wg.Wait()
				close(done)
				watch.Wait()
				s := p.Stats()
				if s.Accepted+s.Dropped != goroutines*each || s.Accepted != s.Exported+s.Failed {
					t.Errorf("%d spans ended, and the stats are %+v", goroutines*each, s)
				}
				if got := int64(len(ids(c.received()))); got < s.Exported {
					t.Errorf("the collector has %d spans, Exported is %d", got, s.Exported)
				}
			})
		})
	}
}

// Every call of Shutdown waits until the counts are final.
func TestConcurrentShutdown(t *testing.T) {
	c := startCollector(t, HTTP)
	arrived, release := hang(t, c)
	p := newTestProvider(t, Options{Endpoint: c.URL, Timeout: time.Minute})
	emit(p, 100)
	var wg sync.WaitGroup
	shutdown := func() {
		if err := p.Shutdown(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
		wantNonePending(t, p)
	}
	wg.Go(shutdown)
	<-arrived
	for range 4 {
		wg.Go(shutdown)
		wg.Go(func() {
			if err := p.ForceFlush(within(t, time.Minute)); err != nil {
				t.Error(err)
			}
			if s := p.Stats(); s.Pending() != 0 {
				t.Errorf("ForceFlush returned nil while %d spans are pending", s.Pending())
			}
		})
	}
	if err := p.ForceFlush(within(t, 10*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "100 pending") {
		t.Errorf("ForceFlush during Shutdown returned %v, want the deadline and 100 pending spans", err)
	}
	release()
	wg.Wait()
	wantStats(t, p, Stats{Accepted: 100, Exported: 100})
	if err := p.ForceFlush(within(t, 0)); err != nil {
		t.Errorf("ForceFlush after Shutdown returned %v, want nil", err)
	}
}

// The call whose context ends first gives up for all.
func TestShortestShutdownGivesUp(t *testing.T) {
	c := startCollector(t, HTTP)
	arrived, _ := hang(t, c)
	p := newTestProvider(t, Options{Endpoint: c.URL, Timeout: time.Minute})
	emit(p, 100)
	first := make(chan error, 1)
	go func() { first <- p.Shutdown(within(t, time.Minute)) }()
	<-arrived
	if err := p.Shutdown(within(t, 0)); err != nil {
		t.Errorf("the second Shutdown returned %v, want nil", err)
	}
	wantStats(t, p, Stats{Accepted: 100, Failed: 100})
	if err := <-first; err == nil || !strings.Contains(err.Error(), "100 of 100 spans") || !strings.Contains(err.Error(), errGivenUp.Error()) {
		t.Errorf("the first Shutdown returned %v, want 100 of 100 spans given up", err)
	}
}

// A stuckFile is one on a file system that hangs: no context ends a write.
type stuckFile struct{ release <-chan struct{} }

func (f stuckFile) Write(b []byte) (int, error) {
	<-f.release
	return len(b), nil
}

// What is stuck in a write when Shutdown gives up has failed, also if the
// write succeeds in the end.
func TestShutdownOfAStuckFile(t *testing.T) {
	release := make(chan struct{})
	before := runtime.NumGoroutine()
	p := newFileProvider(t, otlpfile.New(stuckFile{release}))
	emit(p, 10)
	err := p.Shutdown(within(t, time.Millisecond))
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "10 of 10 spans") || !strings.Contains(err.Error(), "10 failed, 0 dropped, 0 pending") {
		t.Errorf("Shutdown returned %v, want the deadline and 10 failed spans", err)
	}
	want := Stats{Accepted: 10, Failed: 10}
	wantStats(t, p, want)
	close(release)
	wantGoroutines(t, before)
	wantStats(t, p, want)
}

// A delay of 0 sends a span by itself.
func TestNoDelay(t *testing.T) {
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "0")
	c := startCollector(t, HTTP)
	p := newTestProvider(t, Options{Endpoint: c.URL})
	emit(p, 1)
	for ctx := within(t, time.Minute); p.Stats().Exported < 1; time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("a span was not sent: %+v", p.Stats())
		}
	}
}
