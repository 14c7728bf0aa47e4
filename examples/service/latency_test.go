package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
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
	"github.com/alloctrace/alloctrace/blockalloc/guard"
	"github.com/alloctrace/alloctrace/exporters/otlp"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/tracer"
	"github.com/alloctrace/alloctrace/tracer/tracehttp"
)

// A variant is the service with more or less of this library.
type variant struct {
	name    string
	handler http.Handler
	base    *variant // that it is compared with
	url     string
	took    []time.Duration

	guards    *guard.Allocator // nil if nothing is guarded
	unguarded []time.Duration  // of the requests in which no block was guarded
}

// BenchmarkTable prints how much longer requests take with regions, and with spans, histograms and
// lifetimes too, than without, and with collectors that fail than with one that works: the median and the 99th percentile, over
// connections of the loopback device. The requests are short ones, of some 0.2 ms, and long ones, of some 2 ms. A row a
// measure: name value unit bound ok|over.
func BenchmarkTable(b *testing.B) {
	variants, spans := variants(b)
	for _, v := range variants {
		server := httptest.NewServer(v.handler)
		defer server.Close()
		v.url = server.URL
	}
	for b.Loop() {
		fmt.Println()
		for _, length := range []struct {
			name        string
			lines, turn int
		}{{"short", 600, 200}, {"long", 12000, 10}} {
			text := strings.Repeat("the quick brown fox\njumps over\nthe lazy dog\n", length.lines/3)
			for _, v := range variants {
				v.took = nil
			}
			for range 60 { // in turns, in any order: the machine is the same for all
				for _, i := range rand.Perm(len(variants)) {
					v := variants[i]
					for range length.turn {
						v.took = append(v.took, post(b, v.url+"/sort", text))
					}
				}
			}
			rows(b, length.name, variants)
		}
	}
	for _, p := range spans {
		if s := p.Stats(); s.Accepted == 0 {
			b.Errorf("%+v: no span was accepted", s)
		}
	}
}

// variants returns the variants, and the providers whose spans go to collectors.
func variants(b *testing.B) ([]*variant, []*otlp.Provider) {
	discarding := sdktrace.NewTracerProvider(sdktrace.WithBatcher(discard{}))
	b.Cleanup(func() { _ = discarding.Shutdown(context.Background()) })
	otel.SetTracerProvider(noop.NewTracerProvider())
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
	with := func(hooks ...alloctrace.Hook) *service {
		mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithHooks(hooks...))
		return &service{mem: mem, cache: mem.Child("cache")}
	}
	everything := func(spans trace.TracerProvider) http.Handler {
		lives := tracer.NewLifetimes(tracer.LifetimeOptions{TracerProvider: spans, LongLived: []string{"cache"}})
		b.Cleanup(lives.Close)
		s := with(lives)
		return tracehttp.NewMiddleware(s.mem, tracehttp.WithMeterProvider(meters), tracehttp.WithRegion(tracer.WithTracerProvider(spans)))(s.handler())
	}
	plain, regions := with(), with()
	without := &variant{name: "without", handler: plain.handler()}
	all := []*variant{
		without,
		{name: "span_alone", base: without, handler: spanned(discarding, plain.handler())},
		{name: "regions", base: without, handler: tracehttp.NewMiddleware(regions.mem)(regions.handler())},
		{name: "everything", base: without, handler: everything(discarding)},
	}
	var sending []*otlp.Provider
	collected := func(answer http.HandlerFunc) http.Handler {
		p := provider(b, answer)
		sending = append(sending, p)
		return everything(p)
	}
	working := &variant{name: "collector_works", handler: collected(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })}
	all = append(all, working)
	never := make(chan struct{})
	for name, answer := range map[string]http.HandlerFunc{
		"is_gone":         func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"is_slow":         slow(never),
		"answers_429":     refusing(http.StatusTooManyRequests),
		"answers_503":     refusing(http.StatusServiceUnavailable),
		"answers_nothing": func(http.ResponseWriter, *http.Request) { <-never },
	} {
		all = append(all, &variant{name: "collector_" + name, base: working, handler: collected(answer)})
	}
	b.Cleanup(func() { close(never) }) // before the collectors are closed
	return all, sending
}

func post(b *testing.B, url, text string) time.Duration {
	start := time.Now()
	resp, err := http.Post(url, "text/plain", strings.NewReader(text))
	if err != nil {
		b.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body) // all of it: the connection is used again
	_ = resp.Body.Close()
	return time.Since(start)
}

func rows(b *testing.B, length string, variants []*variant) {
	at := func(v *variant, p float64) float64 { return percentile(v.took, p) }
	name := func(v *variant, p string) string { return "service_" + length + "_" + v.name + "_" + p }
	measure.Row(os.Stdout, b, name(variants[0], "p50"), at(variants[0], 0.5)/1000, "µs", measure.NoBound)
	for _, v := range variants {
		if v.base == nil {
			continue
		}
		measure.Row(os.Stdout, b, name(v, "p50"), at(v, 0.5)/at(v.base, 0.5), "x "+v.base.name, measure.NoBound)
		measure.Row(os.Stdout, b, name(v, "p99"), at(v, 0.99)/at(v.base, 0.99), "x "+v.base.name, measure.NoBound)
		measure.Row(os.Stdout, b, name(v, "p50_added"), (at(v, 0.5)-at(v.base, 0.5))/1000, "µs", measure.NoBound)
	}
}

func percentile(all []time.Duration, p float64) float64 {
	slices.Sort(all)
	return float64(all[int(p*float64(len(all)-1))])
}

// provider is one whose spans go to a collector that answers so.
func provider(b *testing.B, answer http.HandlerFunc) *otlp.Provider {
	collector := httptest.NewServer(answer)
	p, err := otlp.New(b.Context(), otlp.Options{Endpoint: collector.URL, Protocol: otlp.HTTP})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		gone, cancel := context.WithCancel(context.Background())
		cancel()
		_ = p.Shutdown(gone) // little may have arrived
		collector.CloseClientConnections()
		collector.Close()
		if s := p.Stats(); s.Pending() != 0 {
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
