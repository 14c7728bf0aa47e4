package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/otlp"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/tracer"
	"github.com/alloctrace/alloctrace/tracer/tracehttp"
)

// A variant is the service with more or less of this library.
type variant struct {
	name    string
	handler http.Handler
	took    []time.Duration
}

// BenchmarkTable prints how much longer requests take with regions, and with spans, histograms and
// lifetimes too, than without: the median and the 99th percentile, over connections of the loopback
// device. A row a measure: name value unit bound ok|over.
func BenchmarkTable(b *testing.B) {
	spans := sdktrace.NewTracerProvider(sdktrace.WithBatcher(discard{}))
	defer spans.Shutdown(context.Background())
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
	otel.SetTracerProvider(noop.NewTracerProvider())
	with := func(hooks ...alloctrace.Hook) *service {
		mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithHooks(hooks...))
		return &service{mem: mem, cache: mem.Child("cache")}
	}
	lives := tracer.NewLifetimes(tracer.LifetimeOptions{TracerProvider: spans, LongLived: []string{"cache"}})
	defer lives.Close()
	without, regions, everything := with(), with(), with(lives)
	never := make(chan struct{})
	all := func(spans trace.TracerProvider) http.Handler {
		return tracehttp.NewMiddleware(everything.mem, tracehttp.WithMeterProvider(meters), tracehttp.WithRegion(tracer.WithTracerProvider(spans)))(everything.handler())
	}
	variants := []*variant{
		{name: "without", handler: without.handler()},
		{name: "span_alone", handler: spanned(spans, without.handler())},
		{name: "regions", handler: tracehttp.NewMiddleware(regions.mem)(regions.handler())},
		{name: "everything", handler: all(spans)},
		{name: "nobody_there", handler: all(sending(b, func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }))},
		{name: "answering_503", handler: all(sending(b, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		}))},
		{name: "answering_never", handler: all(sending(b, func(w http.ResponseWriter, r *http.Request) { <-never }))},
	}
	b.Cleanup(func() { close(never) }) // before the collectors are closed
	text := strings.Repeat("the quick brown fox\njumps over\nthe lazy dog\n", 200)
	for b.Loop() {
		urls := make(map[*variant]string)
		for _, v := range variants {
			server := httptest.NewServer(v.handler)
			defer server.Close()
			urls[v] = server.URL
		}
		for round := range 14000 { // in turns: the machine is the same for all
			v := variants[round%len(variants)]
			for range 5 {
				start := time.Now()
				resp, err := http.Post(urls[v]+"/sort", "text/plain", strings.NewReader(text))
				if err != nil {
					b.Fatal(err)
				}
				_, _ = fmt.Fscan(resp.Body)
				_ = resp.Body.Close()
				v.took = append(v.took, time.Since(start))
			}
		}
		fmt.Println()
		measure.Row(os.Stdout, b, "service_without_p50", percentile(variants[0].took, 0.5)/1000, "µs", measure.NoBound)
		for _, p := range []struct {
			name string
			at   float64
		}{{"p50", 0.5}, {"p99", 0.99}} {
			base := percentile(variants[0].took, p.at)
			for _, v := range variants[1:] {
				measure.Row(os.Stdout, b, "service_"+v.name+"_"+p.name, percentile(v.took, p.at)/base, "x without", measure.NoBound)
			}
		}
	}
}

func percentile(all []time.Duration, p float64) float64 {
	slices.Sort(all)
	return float64(all[int(p*float64(len(all)-1))])
}

// sending is a provider whose spans go to a collector that answers as f does.
func sending(b *testing.B, f http.HandlerFunc) trace.TracerProvider {
	collector := httptest.NewServer(f)
	p, err := otlp.New(b.Context(), otlp.Options{Endpoint: collector.URL, Protocol: otlp.HTTP})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		gone, cancel := context.WithCancel(context.Background())
		cancel()
		_ = p.Shutdown(gone) // little has arrived
		collector.CloseClientConnections()
		collector.Close()
		if s := p.Stats(); s.Accepted == 0 || s.Pending() != 0 {
			b.Errorf("%+v: what has become of some spans is not counted", s)
		}
	})
	return p
}

// spanned is a handler whose requests have a span, and nothing else.
func spanned(spans trace.TracerProvider, next http.Handler) http.Handler {
	t := spans.Tracer("bench")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, span := t.Start(r.Context(), "POST /sort")
		defer span.End()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// discard is an exporter that drops spans.
type discard struct{}

func (discard) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (discard) Shutdown(context.Context) error                             { return nil }
