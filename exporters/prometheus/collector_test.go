package prometheus_test

import (
	"errors"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	allocprom "github.com/alloctrace/alloctrace/exporters/prometheus"
)

var update = flag.Bool("update", false, "write the golden files anew")

// families returns what r gathers, by the names of the metrics.
func families(t testing.TB, r prometheus.Gatherer) map[string]*dto.MetricFamily {
	t.Helper()
	list, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	byName := make(map[string]*dto.MetricFamily)
	for _, f := range list {
		byName[f.GetName()] = f
	}
	return byName
}

// gather returns the values of the gauges and counters of r, by name and by the labels'
// values, separated by spaces.
func gather(t testing.TB, r prometheus.Gatherer) map[string]float64 {
	t.Helper()
	values := make(map[string]float64)
	for name, f := range families(t, r) {
		for _, m := range f.Metric {
			key := []string{name}
			for _, l := range m.Label {
				if l.GetValue() != "" {
					key = append(key, l.GetValue())
				}
			}
			values[strings.Join(key, " ")] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return values
}

func text(t testing.TB, r prometheus.Gatherer) string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("the handler answers %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func allocate(t testing.TB, a blockalloc.Allocator, size uintptr) blockalloc.Block {
	t.Helper()
	b, err := a.Allocate(blockalloc.Layout{Size: size, Align: 8})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func free(t testing.TB, a blockalloc.Allocator, blocks ...blockalloc.Block) {
	t.Helper()
	for _, b := range blocks {
		if err := a.Free(b); err != nil {
			t.Error(err)
		}
	}
}

// carved is a Heap that says that it has spans.
type carved struct{ blockalloc.Heap }

func (*carved) Spans(yield func(blockalloc.Span) bool) {
	_ = yield(blockalloc.Span{Addr: 1 << 20, Size: 64 << 10, Free: 48 << 10}) && yield(blockalloc.Span{Addr: 2 << 20, Size: 64 << 10, Free: 64 << 10})
}

// registered returns a registry with a Collector of all that can be shown: of a proxy
// that allocates at most 1 MiB, and of its child, in which something has happened.
func registered(t testing.TB) (*prometheus.Registry, *alloctrace.Proxy) {
	t.Helper()
	limit := blockalloc.NewLimit(new(carved), 1<<20)
	mem := alloctest.New(t, alloctest.WithAllocator(limit))
	child := mem.Child("parser")
	for _, size := range []uintptr{1, 16, 17, 4096, 4097} {
		a := blockalloc.Allocator(mem)
		if size == 17 {
			a = child
		}
		b := allocate(t, a, size)
		t.Cleanup(func() { free(t, a, b) })
	}
	b, err := mem.Reallocate(allocate(t, mem, 100), 200)
	if err != nil {
		t.Fatal(err)
	}
	free(t, mem, b)
	if _, err := mem.Allocate(blockalloc.BlockLayout(2 << 20)); !errors.Is(err, blockalloc.ErrLimit) {
		t.Fatal(err)
	}
	r := prometheus.NewPedanticRegistry()
	if _, err := allocprom.Register(r, mem, "index", allocprom.Options{Children: true, Reserved: func() int64 { return 3 << 20 }}); err != nil {
		t.Fatal(err)
	}
	return r, mem
}

func TestText(t *testing.T) {
	const golden = "testdata/metrics.txt"
	r, _ := registered(t)
	got := text(t, r)
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.ReplaceAll(string(want), "\r\n", "\n"); got != want {
		t.Errorf("the text is not that of %s; with -update it is written anew:\n%s", golden, got)
	}
}

// What the package comment says is exported, is, and nothing else.
func TestTable(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, row := range regexp.MustCompile(`(?m)^//\t(allocator_\w+) +(\w+)`).FindAllStringSubmatch(string(doc), -1) {
		want = append(want, row[1]+" "+row[2])
	}
	r, _ := registered(t)
	for name, f := range families(t, r) {
		got = append(got, name+" "+strings.ToLower(f.GetType().String()))
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("exported are\n%s\nand the package comment says\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

type sourceFunc func() counter.Stats

func (f sourceFunc) Stats() counter.Stats { return f() }

func TestOneSnapshotAScrape(t *testing.T) {
	calls := 0
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(allocprom.NewCollector(sourceFunc(func() counter.Stats { calls++; return counter.Stats{} }), "index", allocprom.Options{Children: true}))
	families(t, r)
	families(t, r)
	if calls != 2 {
		t.Errorf("two scrapes have taken %d snapshots", calls)
	}
}

func TestChildren(t *testing.T) {
	mem := alloctest.New(t)
	a, again, other, unnamed := mem.Child("a"), mem.Child("a"), mem.Child("b\xff"), mem.Child("")
	below, deeper := a.Child("x"), unnamed.Child("y")
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(allocprom.NewCollector(mem, "index", allocprom.Options{Children: true}), allocprom.NewCollector(mem, "same", allocprom.Options{}))

	for i, p := range []*alloctrace.Proxy{mem, a, again, other, unnamed, below, deeper} {
		b := allocate(t, p, 8<<i)
		defer free(t, p, b)
	}
	free(t, again, allocate(t, again, 1024))
	got := gather(t, r)
	for key, want := range map[string]float64{
		"allocator_memory_used_bytes index":          8<<7 - 8,
		"allocator_memory_used_bytes same":           8<<7 - 8,
		"allocator_memory_used_bytes a index":        16 + 32 + 256,
		"allocator_memory_used_bytes a/x index":      256,
		"allocator_memory_used_bytes b\uFFFD index":  64,
		"allocator_memory_used_bytes y index":        512,
		"allocator_blocks a index":                   3,
		"allocator_frees_total a index":              1,
		"allocator_memory_freed_bytes_total a index": 1024,
	} {
		if v, ok := got[key]; !ok || v != want {
			t.Errorf("%s is %v, want %v", key, v, want)
		}
	}
	for key := range got {
		if strings.HasPrefix(key, "allocator_blocks ") {
			delete(got, key)
		}
	}
	if n := len(gather(t, r)) - len(got); n != 6 {
		t.Errorf("there are %d series of live blocks, want 6: 2 wholes, and the children a, a/x, b and y", n)
	}
	// The peaks of both of the name a: 16+256 and 32+1024, which did not coincide.
	peak, bound := got["allocator_memory_peak_bytes a index"], got["allocator_memory_peak_bound_bytes a index"]
	if peak != 16+256+32+1024 || bound < 16+256 || peak-bound > 32+1024 {
		t.Errorf("the peak of both is %v, give or take %v", peak, bound)
	}
}

// TestEndedChildren: the series of a name never steps back, though children of that name come and end.
func TestEndedChildren(t *testing.T) {
	mem := alloctest.New(t)
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(allocprom.NewCollector(mem, "index", allocprom.Options{Children: true}))
	for i := range 10 {
		c := mem.Child("connection")
		free(t, c, allocate(t, c, 64))
		for _, closed := range []bool{false, true} {
			if closed {
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
			}
			got := gather(t, r)
			if n := got["allocator_frees_total connection index"]; n != float64(i+1) {
				t.Errorf("after %d connections, of which the last is closed: %t, there were %v frees", i+1, closed, n)
			}
			if n := got["allocator_memory_peak_bytes connection index"]; n != 64 {
				t.Errorf("the peak of connections one after the other is %v, want 64", n)
			}
		}
	}
}

func TestNames(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	var none counter.Counter
	first, err := allocprom.Register(r, &none, "index", allocprom.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = allocprom.Register(r, new(counter.Counter), "index", allocprom.Options{Children: true})
	if are := (prometheus.AlreadyRegisteredError{}); !errors.As(err, &are) || are.ExistingCollector != first || !strings.Contains(err.Error(), `"index"`) {
		t.Errorf("a second one of a name: %v", err)
	}
	if _, err := allocprom.Register(r, &none, "other", allocprom.Options{}); err != nil {
		t.Errorf("another name: %v", err)
	}
	if !r.Unregister(first) {
		t.Error("the first was not registered")
	}
	if _, ok := gather(t, r)["allocator_blocks index"]; ok {
		t.Error("what is unregistered is shown")
	}
	if _, err := allocprom.Register(r, &none, "index", allocprom.Options{}); err != nil {
		t.Errorf("after the first is gone: %v", err)
	}
	panics(t, "NewCollector", func() { allocprom.NewCollector(nil, "index", allocprom.Options{}) })
	panics(t, "NewCollector", func() { allocprom.NewCollector(&none, "", allocprom.Options{}) })
}

// panics checks that a call of a function of this package panics, and says whose it is.
func panics(t *testing.T, function string, call func()) {
	t.Helper()
	defer func() {
		if s := fmt.Sprint(recover()); !strings.HasPrefix(s, "prometheus: "+function) {
			t.Errorf("%s panics with %s", function, s)
		}
	}()
	call()
}

// During a storm nothing that is scraped is negative, counters never step back, and live
// is what was allocated less what was freed.
func TestStorm(t *testing.T) {
	pool := new(blockalloc.Pool)
	mem := alloctest.New(t, alloctest.WithAllocator(pool), alloctest.WithStacks(alloctest.Off))
	// Not exact, unlike mem, so that it counts in shards, with a child that has part of it.
	proxy := alloctrace.Wrap(mem)
	child := proxy.Child("child")
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(allocprom.NewCollector(proxy, "index", allocprom.Options{Children: true}), allocprom.NewCollector(mem, "exact", allocprom.Options{}))

	var stop atomic.Bool
	var wg sync.WaitGroup
	for i, a := range []*alloctrace.Proxy{proxy, child, child} {
		wg.Go(func() {
			for n := uintptr(0); !stop.Load(); n++ {
				b, err := a.Allocate(blockalloc.Layout{Size: 1 + n*uintptr(i+7)%5000, Align: 8})
				if err == nil && n%3 == 0 {
					b, err = a.Reallocate(b, 1+n%7000)
				}
				if err == nil {
					err = a.Free(b)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Go(func() { // another scraper
		for range 20 {
			if _, err := r.Gather(); err != nil {
				t.Error(err)
			}
		}
	})
	before := make(map[string]float64)
	for range 100 {
		got := gather(t, r)
		for key, v := range got {
			if v < 0 {
				t.Errorf("%s is %v", key, v)
			}
			if strings.Contains(key, "_total") && v < before[key] {
				t.Errorf("%s has stepped back from %v to %v", key, before[key], v)
			}
		}
		for _, labels := range []string{" index", " child index", " exact"} {
			used := got["allocator_memory_used_bytes"+labels]
			if live := got["allocator_memory_allocated_bytes_total"+labels] - got["allocator_memory_freed_bytes_total"+labels]; used != max(0, live) {
				t.Errorf("%v used, and %v allocated and not freed,%s", used, live, labels)
			}
			if requested, granted := got["allocator_memory_requested_bytes_total"+labels], got["allocator_memory_allocated_bytes_total"+labels]; requested > granted {
				t.Errorf("%v bytes requested, and %v allocated,%s", requested, granted, labels)
			}
			if peak := got["allocator_memory_peak_bytes"+labels]; peak < used {
				t.Errorf("%v used, and a peak of %v,%s", used, peak, labels)
			}
		}
		if whole, part := got["allocator_allocations_total index"], got["allocator_allocations_total child index"]; part > whole {
			t.Errorf("%v allocations, and %v of the child", whole, part)
		}
		before = got
	}
	stop.Store(true)
	wg.Wait()
	if got, want := gather(t, r)["allocator_memory_requested_bytes_total index"], proxy.Stats(); want.RequestedBytes == want.AllocatedBytes || got != float64(want.RequestedBytes) {
		t.Errorf("%v bytes were requested, want those of %+v, of which some are slack", got, want)
	}
}
