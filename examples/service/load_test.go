package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/tracer/tracehttp"
)

// A request is what its span says.
type request struct {
	name                  string
	allocated, freed, net int64
}

// requests is a SpanProcessor that keeps of each span what a request has, by trace.
type requests struct {
	mu      sync.Mutex
	byTrace map[string]request
	twice   int
}

func (r *requests) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (r *requests) Shutdown(context.Context) error                  { return nil }
func (r *requests) ForceFlush(context.Context) error                { return nil }

func (r *requests) OnEnd(s sdktrace.ReadOnlySpan) {
	q := request{name: s.Name()}
	for _, a := range s.Attributes() {
		if to := map[attribute.Key]*int64{
			"allocator.memory.allocated": &q.allocated, "allocator.memory.freed": &q.freed, "allocator.memory.net": &q.net,
		}[a.Key]; to != nil {
			*to = a.Value.AsInt64()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	id := s.SpanContext().TraceID().String()
	if _, ok := r.byTrace[id]; ok {
		r.twice++
	}
	r.byTrace[id] = q
}

// load has 8 clients send requests, at least 300 each and until the time is over. It returns what they were told.
func load(t *testing.T, url string, long time.Duration) map[string]answer {
	t.Helper()
	var mu sync.Mutex
	all := make(map[string]answer)
	var wg sync.WaitGroup
	end := time.Now().Add(long)
	for client := range uint64(8) {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(15, client))
			for n := 0; n < 300 || time.Now().Before(end); n++ {
				text := strings.Repeat(fmt.Sprintf("%d\n%x %x\n", random.Int64(), client, n), random.IntN(200))
				var a answer
				switch n % 4 {
				case 0:
					a = send(t, "PUT", fmt.Sprintf("%s/pages/%d", url, random.IntN(64)), text)
				case 1:
					a = send(t, "GET", fmt.Sprintf("%s/pages/%d", url, random.IntN(64)), "")
				case 2:
					a = send(t, "POST", url+"/sort", text)
				default:
					a = send(t, "POST", url+"/index?word="+fmt.Sprint(n), text)
				}
				if a.status != 200 {
					t.Errorf("client %d: status %d: %s", client, a.status, a.body)
					return
				}
				a.body = ""
				mu.Lock()
				all[a.traceID] = a
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return all
}

// serve has a service under load, beside work that belongs to no request. It returns the service, the requests by
// their spans, and how much was allocated and freed outside of them.
func serve(t *testing.T, leak bool, long time.Duration) (*service, map[string]request, int64) {
	t.Helper()
	spans := &requests{byTrace: make(map[string]request)}
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	otel.SetTracerProvider(provider)
	defer otel.SetTracerProvider(noop.NewTracerProvider())
	mem := alloctrace.Wrap(blockalloc.Default())
	s := &service{mem: mem, cache: mem.Child("cache"), leak: leak}
	server := httptest.NewServer(tracehttp.NewMiddleware(mem)(s.handler()))
	defer server.Close()

	var outside int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := uintptr(1); !stop.Load(); n = n%5000 + 1 {
			m := &meter{inner: s.cache} // of which requests allocate too
			b, err := m.Allocate(blockalloc.Layout{Size: n, Align: 8})
			if err == nil {
				err = m.Free(b)
			}
			if err != nil {
				t.Error(err)
			}
			outside += m.bytes
		}
	})
	answers := load(t, server.URL, long)
	server.Close() // waits for the ends of the requests
	stop.Store(true)
	wg.Wait()
	t.Logf("%d requests in %v, %d bytes outside", len(answers), long, outside)

	if spans.twice != 0 || len(spans.byTrace) != len(answers) || outside == 0 {
		t.Errorf("%d spans of %d requests, %d of a trace that has one, and %d bytes outside", len(spans.byTrace), len(answers), spans.twice, outside)
	}
	wrong := 0
	for id, a := range answers {
		if q, ok := spans.byTrace[id]; !ok || q.allocated != a.allocated || a.traceID == (trace.TraceID{}).String() {
			if wrong++; wrong <= 5 {
				t.Errorf("a request allocated %d bytes, and its span is %+v", a.allocated, q)
			}
		}
	}
	return s, spans.byTrace, outside
}

// TestLoad: each request's span has its own bytes, and all of them with what is outside are the Proxy's, to the byte.
func TestLoad(t *testing.T) {
	long := time.Second
	if requireAll {
		long = 30 * time.Second
	}
	s, requests, outside := serve(t, false, long)
	var sum counter.Stats
	for _, q := range requests {
		sum.AllocatedBytes += q.allocated
		sum.FreedBytes += q.freed
		sum.LiveBytes += q.net
	}
	if got := s.mem.Stats(); got.AllocatedBytes != sum.AllocatedBytes+outside || got.FreedBytes != sum.FreedBytes+outside || got.LiveBytes != sum.LiveBytes {
		t.Errorf("the requests have %d bytes allocated and %d freed, outside are %d, and mem has %v", sum.AllocatedBytes, sum.FreedBytes, outside, got)
	}
	if cache := s.cache.Stats(); cache.LiveBytes != sum.LiveBytes || cache.LiveBytes == 0 {
		t.Errorf("the cache has %v; the requests have left %d bytes", cache, sum.LiveBytes)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
}

// TestLeak: the planted leak is there, one in 500 requests of one route, and no request of another leaves what the cache does not have.
func TestLeak(t *testing.T) {
	s, requests, _ := serve(t, true, 0)
	left, sorts := make(map[string]int64), 0
	for _, q := range requests {
		left[q.name] += q.net
		if q.name == "POST /sort" {
			sorts++
		}
	}
	cache := s.cache.Stats().LiveBytes
	if left["POST /sort"] <= 0 || left["PUT /pages/{n}"] != cache || left["GET /pages/{n}"] != 0 || left["POST /index"] != 0 {
		t.Errorf("left are %v; the cache has %d bytes", left, cache)
	}
	err := s.close()
	if got := s.mem.Stats(); !errors.Is(err, alloctrace.ErrLive) || got.LiveBytes != left["POST /sort"] || got.LiveBlocks > int64(sorts/500) || got.LiveBlocks == 0 {
		t.Errorf("%d requests of POST /sort; Close: %v", sorts, err)
	}
}
