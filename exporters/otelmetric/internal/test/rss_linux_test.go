package test_test

import (
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/otelmetric"
)

// cache returns a Proxy with 32 MiB in memory and 8 MiB that are not.
func cache(t *testing.T) *alloctrace.Proxy {
	mem := alloctrace.Wrap(new(blockalloc.System), alloctrace.WithName("cache"))
	for _, size := range []uintptr{32 << 20, 8 << 20} {
		b := allocate(t, mem, size)
		t.Cleanup(func() { free(t, mem, b) })
		for i := 0; size == 32<<20 && i < len(b.Bytes()); i += os.Getpagesize() {
			b.Bytes()[i] = 1
		}
	}
	return mem
}

var wantRSS = []string{
	"allocator.memory.resident By UpDownCounter {allocator.name=cache} 33554432",
	"allocator.rss By UpDownCounter {allocator.rss.part=files} some",
	"allocator.rss By UpDownCounter {allocator.rss.part=go_heap} some",
	"allocator.rss By UpDownCounter {allocator.rss.part=go_other} some",
	"allocator.rss By UpDownCounter {allocator.rss.part=tracked} 33554432",
	"allocator.rss By UpDownCounter {allocator.rss.part=unattributed} some",
	"allocator.rss.read_failures {failure} Counter {} 0",
}

// some puts the word in the place of what is not known.
func some(lines []string) (list []string) {
	for _, l := range lines {
		if at := strings.LastIndexByte(l, ' '); strings.HasPrefix(l, "allocator.rss ") && !strings.Contains(l, "tracked") {
			l = l[:at] + " some"
		}
		list = append(list, l)
	}
	return list
}

func TestRSS(t *testing.T) {
	reader, provider := newReader(new(otelmetric.Producer))
	reg, err := otelmetric.RegisterRSS([]counter.Source{cache(t)}, otelmetric.WithMeterProvider(provider))
	if err != nil {
		t.Fatal(err)
	}
	wantLines(t, "collected", some(collect(t, reader)), wantRSS)
	stop(t, reg)
	wantLines(t, "after Close", collect(t, reader), nil)
	wantPanic(t, "otelmetric: RegisterRSS: source 0 is nil: pass a Proxy or another counter.Source",
		func() { _, _ = otelmetric.RegisterRSS([]counter.Source{nil}) })
}

// TestCollectorRSS sends it by OTLP to a real collector, which passes it on.
func TestCollectorRSS(t *testing.T) {
	next := &backend{}
	server := httptest.NewServer(next)
	t.Cleanup(server.Close)
	exporter, err := otlpmetrichttp.New(t.Context(), otlpmetrichttp.WithEndpointURL(startCollector(t, server.URL).otlp+"/v1/metrics"))
	if err != nil {
		t.Fatal(err)
	}
	provider := sdkmetric.NewMeterProvider(
		sdkmetric.WithResource(resource.NewSchemaless(attribute.String("service.name", "rss"))),
		sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exporter, sdkmetric.WithInterval(time.Hour))))
	reg, err := otelmetric.RegisterRSS([]counter.Source{cache(t)}, otelmetric.WithMeterProvider(provider))
	if err != nil {
		t.Fatal(err)
	}
	if err := provider.ForceFlush(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop(t, reg)
	if err := provider.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantLines(t, "passed on by the collector", some(next.lines("rss")), wantRSS)
}
