package prometheus_test

import (
	"context"
	"fmt"
	"math"
	"os"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	allocprom "github.com/alloctrace/alloctrace/exporters/prometheus"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/internal/metrics"
)

// parent has good numbers and panics when it is asked for its children.
type parent struct{ sourceFunc }

func (parent) Children() []*alloctrace.Proxy { panic("no children") }

func (parent) ChildStats() map[string]counter.Stats { panic("no children") }

type failingHook struct{}

func (failingHook) Usage() hooks.Usage { panic("no usage") }

func (failingHook) Observe(context.Context, alloctrace.Event, error) {}

// TestFailingSources: what cannot be read is left out and counted, and all else is there.
func TestFailingSources(t *testing.T) {
	no := func() int64 { panic("no bytes") }
	negative := counter.Stats{LiveBlocks: 7}
	negative.Classes[3] = counter.Class{Allocated: -1}
	most := counter.Stats{AllocatedBytes: math.MaxInt64, FreedBytes: math.MinInt64, RequestedBytes: math.MinInt64, LiveBlocks: 7}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(
		allocprom.NewCollector(sourceFunc(func() counter.Stats { panic("no stats") }), "stats", allocprom.Options{Limit: func() int64 { return 1 }}),
		allocprom.NewCollector(parent{func() counter.Stats { return counter.Stats{LiveBlocks: 7} }}, "children", allocprom.Options{Children: true}),
		allocprom.NewCollector(counter.Stats{LiveBlocks: 7}, "limit", allocprom.Options{Limit: no, Reserved: no}),
		allocprom.NewCollector(negative, "negative", allocprom.Options{}),
		allocprom.NewCollector(most, "most", allocprom.Options{}),
		allocprom.NewCollector(counter.Stats{LiveBlocks: 7}, "good", allocprom.Options{}),
		allocprom.NewHookCollector(failingHook{}, "bad"),
		allocprom.NewHookCollector(&asked{usage: hooks.Usage{Bytes: 7}}, "good"),
	)
	for scrape := 1.0; scrape <= 2; scrape++ {
		text(t, r)
		got := gather(t, r)
		for key, want := range map[string]float64{
			"allocator_memory_limit_bytes stats":                 1,
			"allocator_read_failures_total stats":                2 * scrape,
			"allocator_blocks children":                          7,
			"allocator_read_failures_total children":             2 * scrape,
			"allocator_blocks limit":                             7,
			"allocator_read_failures_total limit":                4 * scrape,
			"allocator_blocks negative":                          7,
			"allocator_read_failures_total negative":             2 * scrape,
			"allocator_blocks most":                              7,
			"allocator_blocks good":                              7,
			"allocator_read_failures_total good":                 0,
			"allocator_instrumentation_read_failures_total bad":  2 * scrape,
			"allocator_instrumentation_memory_bytes good":        7,
			"allocator_instrumentation_read_failures_total good": 0,
		} {
			if v, ok := got[key]; !ok || v != want {
				t.Errorf("scrape %v: %s is %v, %t, want %v", scrape, key, v, ok, want)
			}
		}
		for _, key := range []string{"allocator_blocks stats", "allocator_memory_limit_bytes limit", "allocator_memory_reserved_bytes limit",
			"allocator_instrumentation_memory_bytes bad", "allocator_allocation_size_bytes negative"} {
			if v, ok := got[key]; ok {
				t.Errorf("scrape %v: %s is %v and cannot be known", scrape, key, v)
			}
		}
	}
	promtool(t, r)
}

// TestClosed shows allocators that are closed, with and without their Proxy.
func TestClosed(t *testing.T) {
	pool := new(blockalloc.Pool)
	mem := alloctrace.Wrap(pool)
	child := mem.Child("child")
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(allocprom.NewCollector(mem, "index", allocprom.Options{Children: true}))
	free(t, child, allocate(t, child, 64))
	for _, closing := range []func() error{child.Close, pool.Close, mem.Close} {
		if err := closing(); err != nil {
			t.Fatal(err)
		}
		if got := gather(t, r); got["allocator_frees_total index"] != 1 || got["allocator_read_failures_total index"] != 0 {
			t.Errorf("%v frees and %v failures", got["allocator_frees_total index"], got["allocator_read_failures_total index"])
		}
	}
}

// TestBelow: a Limit and a Pool below a Proxy are shown unless an option says otherwise.
func TestBelow(t *testing.T) {
	pool := new(blockalloc.Pool)
	limit := blockalloc.NewLimit(blockalloc.NewLimit(pool, 2<<20), 1<<20)
	mem := alloctest.New(t, alloctest.WithAllocator(blockalloc.NewLocked(limit)))
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(
		allocprom.NewCollector(mem, "found", allocprom.Options{}),
		allocprom.NewCollector(mem, "options", allocprom.Options{Limit: func() int64 { return 7 }, Reserved: func() int64 { return 8 }}),
		allocprom.NewCollector(mem, "half", allocprom.Options{Reserved: func() int64 { return 8 }}),
		allocprom.NewCollector(alloctest.New(t, alloctest.WithAllocator(new(blockalloc.Heap))), "none", allocprom.Options{}),
		allocprom.NewCollector(new(counter.Counter), "counter", allocprom.Options{}),
	)
	free(t, mem, allocate(t, mem, 64))
	got := gather(t, r)
	reserved := float64(pool.Stats().Reserved)
	if reserved == 0 {
		t.Fatal("the Pool has reserved nothing")
	}
	stats := pool.Stats()
	for key, want := range map[string]float64{
		"limit found": 1 << 20, "reserved found": reserved, "pinned found": float64(stats.Carved - stats.LiveBytes),
		"limit options": 7, "reserved options": 8,
		"limit half": 1 << 20, "reserved half": 8,
	} {
		var metric, name string
		fmt.Sscan(key, &metric, &name)
		if v := got["allocator_memory_"+metric+"_bytes "+name]; v != want {
			t.Errorf("%s: %v, want %v", key, v, want)
		}
	}
	for _, name := range []string{"none", "counter"} {
		for _, metric := range []string{"limit", "reserved", "pinned"} {
			if v, ok := got["allocator_memory_"+metric+"_bytes "+name]; ok {
				t.Errorf("%s of %s is %v, and there is none", metric, name, v)
			}
		}
	}
	limit.SetMax(3 << 20)
	if v := gather(t, r)["allocator_memory_limit_bytes found"]; v != 2<<20 {
		t.Errorf("once it was raised the limit is %v, want the other's", v)
	}
}

// openTelemetry is what OpenTelemetry's exporter to Prometheus is to a registry: it says
// nothing of its metrics before it sends them, which are all that package otelmetric has.
type openTelemetry struct{}

func (openTelemetry) Describe(chan<- *prometheus.Desc) {}

func (openTelemetry) Collect(ch chan<- prometheus.Metric) {
	for _, m := range metrics.All {
		desc := prometheus.NewDesc(m.Prometheus, m.Help, []string{"allocator_name", "otel_scope_name"}, nil)
		labels := []string{"index", "github.com/alloctrace/alloctrace/exporters/otelmetric"}
		switch m.Kind {
		case metrics.Counter:
			ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, 1, labels...)
		case metrics.Histogram:
			ch <- prometheus.MustNewConstHistogram(desc, 1, 1, map[float64]uint64{1: 1}, labels...)
		default:
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, 1, labels...)
		}
	}
}

// TestBesideOpenTelemetry has both in one registry.
func TestBesideOpenTelemetry(t *testing.T) {
	r := prometheus.NewRegistry()
	hook := &asked{usage: hooks.Usage{Events: 1, Time: 1}}
	mem := alloctest.New(t, alloctest.WithAllocator(blockalloc.NewLimit(new(blockalloc.Pool), 1<<20)))
	r.MustRegister(openTelemetry{}, allocprom.NewCollector(mem, "index", allocprom.Options{Children: true}), allocprom.NewHookCollector(hook, "hook"))
	rss, err := allocprom.NewRSSCollector(mem)
	if err == nil {
		r.MustRegister(rss)
	} else if _, proc := os.Stat("/proc/self/smaps"); proc == nil {
		t.Fatal(err)
	}
	all := families(t, r)
	for _, m := range metrics.All {
		f := all[m.Prometheus]
		want := 2
		switch {
		case m == metrics.BlockCount: // to Prometheus it is allocator_blocks
			want = 1
		case rss == nil && (m == metrics.RSS || m == metrics.MemoryResident || m == metrics.RSSReadFailures):
			want = 1
		case m == metrics.Failures:
			want = 4
		case m == metrics.RSS:
			want = 6
		}
		if len(f.GetMetric()) != want || f.GetHelp() != m.Help {
			t.Errorf("%s has %d series, want %d, and the description %q", m.Prometheus, len(f.GetMetric()), want, f.GetHelp())
		}
	}
	text(t, r)
}
