package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/otlp"
	"github.com/alloctrace/alloctrace/internal/jaegertest"
	"github.com/alloctrace/alloctrace/tracer/tracehttp"
)

// A relay is what is between the service and Jaeger.
type relay struct {
	answer atomic.Pointer[http.HandlerFunc]
}

func (r *relay) ServeHTTP(w http.ResponseWriter, q *http.Request) { (*r.answer.Load())(w, q) }

func (r *relay) leadTo(j *jaegertest.Jaeger) {
	to, _ := url.Parse(j.HTTPEndpoint())
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) } // as if nobody were there
	r.become(proxy.ServeHTTP)
}

func (r *relay) become(f http.HandlerFunc) { r.answer.Store(&f) }

// refusing is a collector that answers with a status.
func refusing(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(status)
	}
}

// slow is a collector that takes a span, of some 400 bytes, a second.
func slow(never <-chan struct{}) http.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) {
		for span := make([]byte, 400); ; {
			if _, err := io.ReadFull(r.Body, span); err != nil {
				return
			}
			select {
			case <-time.After(time.Second):
			case <-never:
				return
			}
		}
	}
}

// TestJaegerFails: whatever becomes of Jaeger, each request is answered with its own numbers, each span is counted, and
// traces arrive again as soon as Jaeger is back.
func TestJaegerFails(t *testing.T) {
	j := jaegertest.Start(t)
	between := new(relay)
	between.leadTo(j)
	collector := httptest.NewServer(between)
	t.Cleanup(collector.Close)
	never := make(chan struct{})
	t.Cleanup(sync.OnceFunc(func() { close(never) }))

	spans, err := otlp.New(t.Context(), otlp.Options{Endpoint: collector.URL, Protocol: otlp.HTTP, ServiceName: "service", QueueSize: 256, Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	otel.SetTracerProvider(spans)
	defer otel.SetTracerProvider(noop.NewTracerProvider())
	mem := alloctrace.Wrap(blockalloc.Default())
	s := &service{mem: mem, cache: mem.Child("cache")}
	server := httptest.NewServer(tracehttp.NewMiddleware(mem)(s.handler()))
	defer server.Close()

	requests := 0
	arrives := func(j *jaegertest.Jaeger) {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; {
			exported := spans.Stats().Exported
			a := send(t, "POST", server.URL+"/sort", "b\na\n")
			requests++
			_ = spans.ForceFlush(t.Context()) // which tells of what was lost before, too
			if spans.Stats().Exported > exported && spans.Stats().Pending() == 0 {
				if got := j.Trace(a.traceID, 1)[0].Attributes["allocator.memory.allocated"]; fmt.Sprint(got) != fmt.Sprint(a.allocated) {
					t.Errorf("Jaeger has %v bytes of a request that allocated %d", got, a.allocated)
				}
				return
			}
			if time.Now().After(end) {
				t.Fatalf("no trace arrives again: %+v", spans.Stats())
			}
		}
	}
	arrives(j)
	for name, fails := range map[string]http.HandlerFunc{
		"killed": nil, "slow": slow(never),
		"429": refusing(http.StatusTooManyRequests), "503": refusing(http.StatusServiceUnavailable),
		"silent": func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-never:
			case <-r.Context().Done():
			}
		},
	} {
		if name == "killed" {
			j.Kill() // requests still go there
		} else {
			between.become(fails)
		}
		lost := spans.Stats().Lost()
		requests += len(load(t, server.URL, time.Second)) // which fails if an answer is not as it should be
		if got := spans.Stats(); got.Lost() == lost {
			t.Errorf("%s: %+v: no span was lost: that tests nothing", name, got)
		}
		if name == "killed" {
			j = jaegertest.Start(t)
		}
		between.leadTo(j)
		arrives(j)
	}
	server.Close()
	_ = spans.Shutdown(context.WithoutCancel(t.Context())) // says what was lost
	if got := spans.Stats(); got.Accepted+got.Dropped != int64(requests) || got.Pending() != 0 {
		t.Errorf("%d requests, and the spans are %+v", requests, got)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
}
