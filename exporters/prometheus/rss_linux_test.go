package prometheus_test

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	allocprom "github.com/alloctrace/alloctrace/exporters/prometheus"
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

// wantRSS checks what is shown of a process with a cache.
func wantRSS(t *testing.T, got map[string]float64) {
	t.Helper()
	names := slices.Sorted(maps.Keys(got))
	if want := []string{
		"allocator_memory_resident_bytes cache", "allocator_rss_bytes files", "allocator_rss_bytes go_heap",
		"allocator_rss_bytes go_other", "allocator_rss_bytes tracked", "allocator_rss_bytes unattributed", "allocator_rss_read_failures_total",
	}; !slices.Equal(names, want) {
		t.Errorf("there are\n%s\nwant\n%s", strings.Join(names, "\n"), strings.Join(want, "\n"))
	}
	for name, want := range map[string]float64{
		"allocator_memory_resident_bytes cache": 32 << 20, "allocator_rss_bytes tracked": 32 << 20,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	for _, name := range []string{"allocator_rss_bytes files", "allocator_rss_bytes go_heap"} {
		if got[name] < 1<<20 {
			t.Errorf("%s is %v", name, got[name])
		}
	}
}

// registeredRSS returns a registry with a collector of a cache.
func registeredRSS(t *testing.T) prometheus.Gatherer {
	c, err := allocprom.NewRSSCollector(cache(t))
	if err != nil {
		t.Fatal(err)
	}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	return r
}

func TestRSS(t *testing.T) { wantRSS(t, gather(t, registeredRSS(t))) }

func TestPromtoolRSS(t *testing.T) { promtool(t, registeredRSS(t)) }

// TestRSSOnce registers what cannot be told apart.
func TestRSSOnce(t *testing.T) {
	mem := cache(t)
	panics(t, "NewRSSCollector", func() { _, _ = allocprom.NewRSSCollector(mem, nil) })
	bad := [2]*alloctrace.Proxy{}
	for i, name := range []string{"a\xff", "a\xfe"} {
		bad[i] = alloctrace.Wrap(blockalloc.Null{}, alloctrace.WithName(name))
	}
	if _, err := allocprom.NewRSSCollector(bad[0], bad[1]); err == nil {
		t.Error("names that are the same once they are text are taken")
	}
	c, err := allocprom.NewRSSCollector(bad[0])
	if err != nil {
		t.Fatal(err)
	}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	if got := gather(t, r); got["allocator_memory_resident_bytes a\uFFFD"] != 0 || len(got) != 7 {
		t.Errorf("with a name that is no text: %v", got)
	}
	if _, err := allocprom.NewRSSCollector(mem, mem); err == nil || !strings.Contains(err.Error(), `source 1 has the name "cache"`) {
		t.Error(err)
	}
}

// TestPrometheusRSS has a real Prometheus scrape.
func TestPrometheusRSS(t *testing.T) {
	s := serve(t, registeredRSS(t))
	s.await(t, `allocator_rss_bytes{job="native",part="tracked"}`, 32<<20)
	s.check(t, `allocator_memory_resident_bytes{job="native",allocator_name="cache"}`, 32<<20)
	s.check(t, `sum(allocator_rss_bytes{job="native"}) > bool 40e6`, 1)
}

// renamed has another name each time it is asked.
type renamed struct {
	sourceFunc
	names *[]string
}

func (r renamed) Name() string {
	name := (*r.names)[0]
	*r.names = (*r.names)[1:]
	return name
}

// TestRSSFailing has a source that cannot be read, and two that take a common name later on.
func TestRSSFailing(t *testing.T) {
	none := func() counter.Stats { return counter.Stats{} }
	c, err := allocprom.NewRSSCollector(sourceFunc(func() counter.Stats { panic("no stats") }), cache(t))
	if err != nil {
		t.Fatal(err)
	}
	both, err := allocprom.NewRSSCollector(renamed{none, &[]string{"a", "same"}}, renamed{none, &[]string{"b", "same"}})
	if err != nil {
		t.Fatal(err)
	}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	got := gather(t, r)
	if got["allocator_memory_resident_bytes cache"] != 32<<20 || got["allocator_rss_read_failures_total"] != 1 {
		t.Errorf("with a source that cannot be read there is %v", got)
	}
	r = prometheus.NewPedanticRegistry()
	r.MustRegister(both)
	if got := gather(t, r); len(got) != 7 || got["allocator_rss_read_failures_total"] != 0 {
		t.Errorf("with two of a name there is %v", got)
	}
}
