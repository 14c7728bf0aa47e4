package prometheus_test

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	allocprom "github.com/alloctrace/alloctrace/exporters/prometheus"
	"github.com/alloctrace/alloctrace/internal/prometheustest"
)

// serve runs a handler of r and a Prometheus that scrapes it: as job native the protobuf
// format, with native histograms, and as job classic the text format.
func serve(t *testing.T, r prometheus.Gatherer) *server {
	t.Helper()
	handler := promhttp.HandlerFor(r, promhttp.HandlerOpts{})
	mux := http.NewServeMux()
	mux.Handle("/native", handler)
	mux.HandleFunc("/classic", func(w http.ResponseWriter, req *http.Request) {
		req.Header.Del("Accept")
		handler.ServeHTTP(w, req)
	})
	h := httptest.NewServer(mux)
	t.Cleanup(h.Close)
	return startServer(t, map[string]string{"native": h.URL + "/native", "classic": h.URL + "/classic"})
}

// A Prometheus scrapes an allocator before, during and after a storm, and answers what
// the counters say.
func TestPrometheus(t *testing.T) {
	limit := blockalloc.NewLimit(new(blockalloc.Pool), 64<<20)
	mem := alloctest.New(t, alloctest.WithAllocator(limit), alloctest.WithStacks(alloctest.Off))
	child := mem.Child("parser")
	r := prometheus.NewRegistry()
	r.MustRegister(allocprom.NewCollector(mem, "index", allocprom.Options{Children: true}))
	s := serve(t, r)
	s.await(t, `count(allocator_blocks{allocator_child=""} == 0)`, 2)

	held := allocate(t, child, 300_000)
	defer free(t, child, held)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for _, p := range []*alloctrace.Proxy{mem, child} {
		wg.Go(func() {
			for n := uintptr(0); !stop.Load(); n++ {
				b := allocate(t, p, 1<<(n%16)+n%3)
				if n%5 == 0 {
					var err error
					if b, err = p.Reallocate(b, 10_000); err != nil {
						t.Error(err)
					}
				}
				free(t, p, b)
			}
		})
	}
	const scrapes = `count(count_over_time((allocator_allocations_total{allocator_child=""} > 0)[5m:1s]) > 10)`
	prometheustest.Eventually(t, "ten scrapes during the storm", func() error {
		if n, err := s.number(scrapes); err != nil || n != 2 {
			return fmt.Errorf("%v jobs have them (%v)", n, err)
		}
		return nil
	})
	stop.Store(true)
	wg.Wait()
	if _, err := mem.Allocate(blockalloc.BlockLayout(128 << 20)); err == nil {
		t.Fatal("the limit allows twice of it")
	}

	for job, labels := range map[string]string{"native": `{job="native"`, "classic": `{job="classic"`} {
		s.await(t, `allocator_failures_total`+labels+`,allocator_child="",allocator_operation="allocate"}`, 1)
		for childLabel, source := range map[string]counter.Source{`,allocator_child=""`: mem, `,allocator_child="parser"`: child} {
			sel, want := labels+childLabel+`,allocator_name="index"}`, source.Stats()
			for name, v := range map[string]int64{
				"memory_used_bytes":            want.LiveBytes,
				"memory_peak_bytes":            want.PeakBytes,
				"memory_peak_bound_bytes":      want.PeakBound,
				"memory_allocated_bytes_total": want.AllocatedBytes,
				"memory_freed_bytes_total":     want.FreedBytes,
				"memory_requested_bytes_total": want.RequestedBytes,
				"blocks":                       want.LiveBlocks,
				"allocations_total":            want.Allocations,
				"reallocations_total":          want.Reallocations,
				"frees_total":                  want.Frees,
			} {
				s.check(t, "allocator_"+name+sel, float64(v))
			}
			for op, v := range map[string]int64{"allocate": want.FailedAllocations, "reallocate": 0, "free": 0} {
				s.check(t, `sum(allocator_failures_total`+labels+childLabel+`,allocator_operation="`+op+`"})`, float64(v))
			}
			// What happened since the first scrape, in which all was zero; what rate()
			// says of it is extrapolated.
			if childLabel == `,allocator_child=""` {
				s.check(t, "max_over_time(allocator_allocations_total"+sel+"[1h]) - min_over_time(allocator_allocations_total"+sel+"[1h])", float64(want.Allocations))
			}
			// In every scrape live is what was allocated and not freed.
			s.check(t, "max_over_time(abs(allocator_memory_allocated_bytes_total"+sel+" - allocator_memory_freed_bytes_total"+sel+
				" - allocator_memory_used_bytes"+sel+")[10m:100ms])", 0)
			s.check(t, "min_over_time(allocator_memory_used_bytes"+sel+"[1h]) >= bool 0", 1)
			s.check(t, "resets(allocator_memory_allocated_bytes_total"+sel+"[1h]) + resets(allocator_memory_requested_bytes_total"+sel+"[1h])", 0)
			if job == "native" {
				checkNative(t, s, "allocator_allocation_size_bytes"+sel, want)
			} else {
				checkClassic(t, s, sel, want)
			}
		}
		s.check(t, "allocator_memory_limit_bytes"+labels+"}", 64<<20)
		// At rest nothing grows any more.
		s.await(t, `sum(rate(allocator_allocations_total`+labels+`}[5s]))`, 0)
	}
	// The sum over wholes is the sum of them, without their children.
	s.check(t, `sum(allocator_memory_used_bytes{allocator_child=""})`, float64(2*mem.Stats().LiveBytes))
}

// checkClassic compares what Prometheus has of the classic histogram with want.
func checkClassic(t *testing.T, s *server, sel string, want counter.Stats) {
	t.Helper()
	const name = "allocator_allocation_size_bytes"
	count := want.Allocations + want.Reallocations // none to size zero
	s.check(t, name+"_count"+sel, float64(count))
	s.check(t, name+"_sum"+sel, float64(want.AllocatedBytes))
	var cumulative int64
	for i, class := range want.Classes {
		cumulative += class.Allocated
		if i >= 4 && i <= 34 {
			le := strconv.FormatFloat(float64(uint64(1)<<i), 'g', -1, 64)
			s.check(t, fmt.Sprintf("%s_bucket%s,le=%q}", name, sel[:len(sel)-1], le), float64(cumulative))
		}
	}
	for _, q := range []float64{0.25, 0.5, 0.9, 0.99} {
		got := s.value(t, fmt.Sprintf("histogram_quantile(%v, %s_bucket%s)", q, name, sel))
		if want := quantile(want.Classes, q); math.Abs(got-want) > 1e-9*want {
			t.Errorf("quantile %v%s is %v, want %v", q, sel, got, want)
		}
	}
}

// quantile is what Prometheus' documentation of histogram_quantile says: in the bucket in
// which it lies, blocks are taken to be of all sizes alike. Classes up to 16 B are one.
func quantile(classes counter.Classes, q float64) float64 {
	var count, below int64
	for _, class := range classes {
		count += class.Allocated
	}
	rank := q * float64(count)
	start := 0.0
	var here int64
	for i, class := range classes {
		if here += class.Allocated; i < 4 {
			continue
		}
		end := float64(uint64(1) << i)
		if float64(below+here) >= rank {
			return start + (end-start)*(rank-float64(below))/float64(here)
		}
		below, here, start = below+here, 0, end
	}
	return math.Inf(1)
}

// checkNative compares the native histogram that Prometheus has with want, bucket by bucket.
func checkNative(t *testing.T, s *server, expr string, want counter.Stats) {
	t.Helper()
	count := float64(want.Allocations + want.Reallocations)
	s.check(t, "histogram_count("+expr+")", count)
	s.check(t, "histogram_sum("+expr+")", float64(want.AllocatedBytes))
	v := s.vector(t, expr)
	if len(v) != 1 {
		t.Fatalf("%s: %d values", expr, len(v))
	}
	h, _ := v[0].Histogram[1].(map[string]any)
	buckets, _ := h["buckets"].([]any)
	got := make(map[float64]float64) // counts by upper bounds
	for _, b := range buckets {
		f, ok := b.([]any)
		if !ok || len(f) != 4 {
			t.Fatalf("%s: bucket %v", expr, b)
		}
		var bounds [3]float64
		for i := range bounds {
			text, _ := f[i+1].(string)
			var err error
			if bounds[i], err = strconv.ParseFloat(text, 64); err != nil {
				t.Fatalf("%s: bucket %v: %v", expr, b, err)
			}
		}
		if bounds[0] != bounds[1]/2 {
			t.Errorf("%s: bucket %v is not of a power of two", expr, b)
		}
		got[bounds[1]] = bounds[2]
	}
	var below float64
	for i, class := range want.Classes {
		bound := float64(uint64(1) << i)
		if got[bound] != float64(class.Allocated) {
			t.Errorf("%s: %v blocks of at most %v bytes and more than half of it, want %d", expr, got[bound], bound, class.Allocated)
		}
		below += float64(class.Allocated)
		if class.Allocated != 0 { // an edge of a bucket, where nothing is interpolated
			s.check(t, fmt.Sprintf("histogram_quantile(%v, %s) <= bool %v", (below-0.5)/count, expr, bound), 1)
			s.check(t, fmt.Sprintf("histogram_quantile(%v, %s) > bool %v", (below-0.5)/count, expr, bound/2), 1)
		}
	}
}
