package test_test

import (
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/otelmetric"
	"github.com/alloctrace/alloctrace/internal/text"
	"github.com/alloctrace/alloctrace/internal/text/texttest"
)

// startUgly starts allocators and hooks of all ugly names, and returns what is to be collected of
// them: the bytes of an allocator, and of a hook.
func startUgly(t *testing.T, provider *sdkmetric.MeterProvider, producer *otelmetric.Producer) (want []string) {
	t.Helper()
	live, memory := make(map[string]int), make(map[string]int)
	for i, u := range texttest.Table() {
		if u.Text == "" {
			continue
		}
		mem := alloctest.New(t, alloctest.WithAllocator(new(blockalloc.Heap)), alloctest.WithProxy(alloctrace.WithName(u.Text)))
		b := allocate(t, mem, uintptr(1000+i))
		t.Cleanup(func() { free(t, mem, b) })
		start(t, mem, otelmetric.WithMeterProvider(provider), otelmetric.WithProducer(producer), otelmetric.WithBackend(u.Text))
		reg, err := otelmetric.RegisterHook(used{Bytes: int64(2000 + i)}, u.Text, otelmetric.WithMeterProvider(provider))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stop(t, reg) })
		live[text.Name(u.Text)] += 1000 + i
		memory[text.Name(u.Text)] += 2000 + i
	}
	encoded := func(list ...attribute.KeyValue) string {
		set := attribute.NewSet(list...)
		return set.Encoded(attribute.DefaultEncoder())
	}
	for name, bytes := range live {
		want = append(want, line("allocator.memory.used", "By", "UpDownCounter",
			encoded(attribute.String("allocator.name", name), attribute.String("allocator.backend", name)), fmt.Sprint(bytes)))
	}
	for name, bytes := range memory {
		want = append(want, line("allocator.instrumentation.memory", "By", "UpDownCounter",
			encoded(attribute.String("allocator.instrumentation.hook", name)), fmt.Sprint(bytes)))
	}
	slices.Sort(want)
	return want
}

// onlyBytes returns the lines of the bytes of allocators and of hooks.
func onlyBytes(lines []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(l string) bool {
		return !strings.HasPrefix(l, "allocator.memory.used ") && !strings.HasPrefix(l, "allocator.instrumentation.memory ")
	})
}

func TestUglyNames(t *testing.T) {
	producer := new(otelmetric.Producer)
	reader, provider := newReader(producer)
	want := startUgly(t, provider, producer)
	wantLines(t, "collected", onlyBytes(collect(t, reader)), want)
}

// TestCollectorUglyNames sends them by OTLP to a real collector, which passes them on.
func TestCollectorUglyNames(t *testing.T) {
	next := &backend{}
	server := httptest.NewServer(next)
	t.Cleanup(server.Close)
	exporter, err := otlpmetrichttp.New(t.Context(), otlpmetrichttp.WithEndpointURL(startCollector(t, server.URL).otlp+"/v1/metrics"))
	if err != nil {
		t.Fatal(err)
	}
	producer := new(otelmetric.Producer)
	provider := sdkmetric.NewMeterProvider(
		sdkmetric.WithResource(resource.NewSchemaless(attribute.String("service.name", "ugly"))),
		sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exporter, sdkmetric.WithInterval(time.Hour), sdkmetric.WithProducer(producer))))
	want := startUgly(t, provider, producer)
	if err := provider.ForceFlush(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines := next.lines("ugly")
	wantLines(t, "passed on by the collector", onlyBytes(lines), want)
	sizes := 0
	for _, l := range lines {
		if strings.HasPrefix(l, "allocator.allocation.size ") {
			sizes++
		}
	}
	if sizes != len(want)/2 {
		t.Errorf("there are %d histograms, want %d", sizes, len(want)/2)
	}
	if err := provider.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
}
