package test_test

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/alloctrace/alloctrace/exporters/otelmetric"
	"github.com/alloctrace/alloctrace/hooks"
)

// used is a hook of known usage.
type used hooks.Usage

func (u used) Usage() hooks.Usage { return hooks.Usage(u) }

// startHooks starts a hook that has all, and one that counts no events and whose time nobody
// measures.
func startHooks(t *testing.T, provider *sdkmetric.MeterProvider) (regs []*otelmetric.Registration) {
	t.Helper()
	for name, hook := range map[string]hooks.UsageSource{
		"all":  used{Events: 4096, Sampled: 70, Dropped: 7, Bytes: 1 << 20, Time: 1500 * time.Millisecond, TimeError: time.Second},
		"some": used{Sampled: 5, Bytes: 99},
	} {
		reg, err := otelmetric.RegisterHook(hook, name, otelmetric.WithMeterProvider(provider), otelmetric.WithName("no matter"), nil)
		if err != nil {
			t.Fatal(err)
		}
		regs = append(regs, reg)
	}
	return regs
}

var wantHooks = []string{
	"allocator.instrumentation.dropped {sample} Counter {allocator.instrumentation.hook=all} 7",
	"allocator.instrumentation.dropped {sample} Counter {allocator.instrumentation.hook=some} 0",
	"allocator.instrumentation.events {event} Counter {allocator.instrumentation.hook=all} 4096",
	"allocator.instrumentation.memory By UpDownCounter {allocator.instrumentation.hook=all} 1048576",
	"allocator.instrumentation.memory By UpDownCounter {allocator.instrumentation.hook=some} 99",
	"allocator.instrumentation.read_failures {failure} Counter {allocator.instrumentation.hook=all} 0",
	"allocator.instrumentation.read_failures {failure} Counter {allocator.instrumentation.hook=some} 0",
	"allocator.instrumentation.sampled {sample} Counter {allocator.instrumentation.hook=all} 70",
	"allocator.instrumentation.sampled {sample} Counter {allocator.instrumentation.hook=some} 5",
	"allocator.instrumentation.time s Counter {allocator.instrumentation.hook=all} 1.5",
}

func TestHooks(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	regs := startHooks(t, provider)
	wantLines(t, "collected", collect(t, reader), wantHooks)
	for range 2 {
		for _, reg := range regs {
			stop(t, reg)
		}
		wantLines(t, "after Close", collect(t, reader), nil)
	}
}

// TestHookTable compares the package comment's table of a hook with the metrics there are.
func TestHookTable(t *testing.T) {
	doc, err := os.ReadFile("../../doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, l := range wantHooks {
		f := strings.Fields(l)
		got = append(got, strings.Join([]string{f[0], f[2], f[1]}, " "))
	}
	for _, m := range regexp.MustCompile(`(?m)^//\t(\S+) +(allocator\.instrumentation\.\S+) +(\S+) +\S`).FindAllStringSubmatch(string(doc), -1) {
		want = append(want, strings.Join([]string{m[2], m[1], m[3]}, " "))
	}
	slices.Sort(want)
	wantLines(t, "metrics", slices.Compact(got), want)
}

// TestCollectorHooks sends what hooks take by OTLP to a real collector, and reads it there.
func TestCollectorHooks(t *testing.T) {
	next := httptest.NewServer(&backend{})
	t.Cleanup(next.Close)
	collector := startCollector(t, next.URL)
	exporter, err := otlpmetrichttp.New(t.Context(), otlpmetrichttp.WithEndpointURL(collector.otlp+"/v1/metrics"))
	if err != nil {
		t.Fatal(err)
	}
	provider := sdkmetric.NewMeterProvider(
		sdkmetric.WithResource(resource.NewSchemaless(attribute.String("service.name", "db"))),
		sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exporter, sdkmetric.WithInterval(time.Hour))))
	regs := startHooks(t, provider)
	if err := provider.ForceFlush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, reg := range regs {
		stop(t, reg)
	}
	if err := provider.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range []struct{ name, kind, all, some string }{
		{"dropped_total", "counter", "7", "0"},
		{"events_total", "counter", "4096", ""},
		{"memory_bytes", "gauge", "1.048576e+06", "99"},
		{"read_failures_total", "counter", "0", "0"},
		{"sampled_total", "counter", "70", "5"},
		{"time_seconds_total", "counter", "1.5", ""},
	} {
		name := "allocator_instrumentation_" + m.name
		want = append(want, "# TYPE "+name+" "+m.kind)
		for hook, value := range map[string]string{"all": m.all, "some": m.some} {
			if value != "" {
				want = append(want, fmt.Sprintf(`%s{allocator_instrumentation_hook=%q,job="db",otel_scope_name=%q,otel_scope_schema_url="",otel_scope_version=%q} %s`,
					name, hook, otelmetric.ScopeName, otelmetric.Version(), value))
			}
		}
	}
	slices.Sort(want)
	wantLines(t, "scraped from the collector", collector.scrape(t), want)
}

// noMemory is a provider whose meter refuses the instrument of memory.
type noMemory struct {
	noop.MeterProvider
	err error
}

func (n noMemory) Meter(string, ...metric.MeterOption) metric.Meter { return noMemoryMeter{err: n.err} }

type noMemoryMeter struct {
	noop.Meter
	err error
}

func (m noMemoryMeter) Int64ObservableUpDownCounter(string, ...metric.Int64ObservableUpDownCounterOption) (metric.Int64ObservableUpDownCounter, error) {
	return noop.Int64ObservableUpDownCounter{}, m.err
}

func TestHookErrors(t *testing.T) {
	no := errors.New("no")
	hook := used{}
	for _, x := range []struct {
		hook hooks.UsageSource
		name string
		opt  otelmetric.Option
		want string
		is   error
	}{
		{hook, "", nil, `otelmetric: RegisterHook: the name is "": pass one, by which the hook is known from others`, nil},
		{hook, "ring", otelmetric.WithMeterProvider(refusing{callback: no}), "otelmetric: RegisterHook: the MeterProvider refuses: no", no},
		{hook, "ring", otelmetric.WithMeterProvider(noMemory{err: no}), "otelmetric: RegisterHook: the MeterProvider refuses: no", no},
	} {
		reg, err := otelmetric.RegisterHook(x.hook, x.name, x.opt)
		if reg != nil || err == nil || err.Error() != x.want || x.is != nil && !errors.Is(err, x.is) {
			t.Errorf("RegisterHook = %v, %v; want %s", reg, err, x.want)
		}
	}
	wantPanic(t, `otelmetric: RegisterHook(nil, "ring"): pass a hook that reports its Usage, such as a ring.Ring`,
		func() { _, _ = otelmetric.RegisterHook(nil, "ring") })
}
