package test_test

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/otelmetric"
)

func newReader(producer *otelmetric.Producer) (*sdkmetric.ManualReader, *sdkmetric.MeterProvider) {
	reader := sdkmetric.NewManualReader(sdkmetric.WithProducer(producer))
	return reader, sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
}

func start(t testing.TB, mem counter.Source, opts ...otelmetric.Option) *otelmetric.Registration {
	t.Helper()
	reg, err := otelmetric.Register(mem, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, reg) })
	return reg
}

func stop(t testing.TB, reg *otelmetric.Registration) {
	t.Helper()
	if err := reg.Close(); err != nil {
		t.Error(err)
	}
}

func allocate(t testing.TB, mem blockalloc.Allocator, size uintptr) blockalloc.Block {
	t.Helper()
	b, err := mem.Allocate(blockalloc.Layout{Size: size, Align: 1})
	if err != nil {
		t.Error(err)
	}
	return b
}

func free(t testing.TB, mem blockalloc.Allocator, blocks ...blockalloc.Block) {
	t.Helper()
	for _, b := range blocks {
		if err := mem.Free(b); err != nil {
			t.Error(err)
		}
	}
}

// worked returns a Proxy db on a Heap within 8 MiB through which went what wantWorked
// says, and that has three blocks live until the test ends.
func worked(t *testing.T) *alloctrace.Proxy {
	mem := alloctest.New(t, alloctest.WithAllocator(blockalloc.NewLimit(blockalloc.NewLimit(new(blockalloc.Heap), 8<<20), 16<<20)),
		alloctest.WithProxy(alloctrace.WithName("db")))
	var blocks []blockalloc.Block
	for _, size := range []uintptr{1, 2, 3, 4096, 4097, 1 << 20} {
		blocks = append(blocks, allocate(t, mem, size))
	}
	free(t, mem, blocks[2], blocks[5])
	grown, err := mem.Reallocate(blocks[4], 5000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mem.Reallocate(blocks[1], 0); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := mem.Allocate(blockalloc.Layout{Size: 1, Align: 3}); !errors.Is(err, blockalloc.ErrBadLayout) {
			t.Fatal(err)
		}
	}
	if _, err := mem.Reallocate(grown, 9<<20); !errors.Is(err, blockalloc.ErrLimit) {
		t.Fatal(err)
	}
	var other blockalloc.Heap
	foreign := allocate(t, &other, 64)
	for range 3 {
		if err := mem.Free(foreign); !errors.Is(err, blockalloc.ErrNotOwned) {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { free(t, mem, blocks[0], blocks[3], grown) })
	return mem
}

var wantWorked = []string{
	"allocator.allocation.size By ExponentialHistogram {allocator.backend=Heap,allocator.name=db} count=7 sum=1061775 scale=0 1:1 2:1 4:1 4096:1 8192:2 1048576:1",
	"allocator.allocations {allocation} Counter {allocator.backend=Heap,allocator.name=db} 6",
	"allocator.block.count {block} UpDownCounter {allocator.backend=Heap,allocator.name=db} 3",
	"allocator.failures {failure} Counter {allocator.backend=Heap,allocator.name=db,allocator.operation=allocate} 2",
	"allocator.failures {failure} Counter {allocator.backend=Heap,allocator.name=db,allocator.operation=free} 3",
	"allocator.failures {failure} Counter {allocator.backend=Heap,allocator.name=db,allocator.operation=reallocate} 1",
	"allocator.frees {free} Counter {allocator.backend=Heap,allocator.name=db} 2",
	"allocator.memory.allocated By Counter {allocator.backend=Heap,allocator.name=db} 1061775",
	"allocator.memory.limit By UpDownCounter {allocator.backend=Heap,allocator.name=db} 8388608",
	"allocator.memory.peak By Gauge {allocator.backend=Heap,allocator.name=db} 1056775",
	"allocator.memory.used By UpDownCounter {allocator.backend=Heap,allocator.name=db} 9097",
	"allocator.read_failures {failure} Counter {allocator.backend=Heap,allocator.name=db} 0",
	"allocator.reallocations {reallocation} Counter {allocator.backend=Heap,allocator.name=db} 2",
}

var wantExplicit = "allocator.allocation.size By Histogram {allocator.backend=Heap,allocator.name=db} count=7 sum=1061775 33 bounds 16:3 4096:1 8192:2 1048576:1"

func TestMetrics(t *testing.T) {
	mem := worked(t)
	for _, producer := range []*otelmetric.Producer{{}, {Explicit: true}} {
		reader, provider := newReader(producer)
		reg := start(t, mem, otelmetric.WithMeterProvider(provider), nil, otelmetric.WithProducer(producer))
		want := slices.Clone(wantWorked)
		if producer.Explicit {
			want[0] = wantExplicit
		}
		wantLines(t, "collected", collect(t, reader), want)
		stop(t, reg)
		wantLines(t, "after Close", collect(t, reader), nil)
	}
}

// TestTable compares the package comment's table with the metrics there are.
func TestTable(t *testing.T) {
	pool := new(blockalloc.Pool)
	slab, err := blockalloc.NewSlab(blockalloc.NewLimit(pool, 1<<30), 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	mem := alloctest.New(t, alloctest.WithAllocator(slab))
	t.Cleanup(func() {
		if err := errors.Join(slab.Close(), pool.Close()); err != nil {
			t.Error(err)
		}
	})
	free(t, mem, allocate(t, mem, 100))
	producer := new(otelmetric.Producer)
	reader, provider := newReader(producer)
	start(t, mem, otelmetric.WithName("a"), otelmetric.WithMeterProvider(provider), otelmetric.WithProducer(producer))
	var got []string
	reserved := fmt.Sprintf("allocator.memory.reserved By UpDownCounter {allocator.backend=Pool,allocator.name=a} %d", pool.Stats().Reserved)
	lines := collect(t, reader)
	if !slices.Contains(lines, reserved) || pool.Stats().Reserved == 0 {
		t.Errorf("no %q in\n%s", reserved, strings.Join(lines, "\n"))
	}
	carved, in := pool.Stats(), slab.Stats()
	pinned := fmt.Sprintf("allocator.memory.pinned By UpDownCounter {allocator.backend=Pool,allocator.name=a} %d", carved.Carved-carved.LiveBytes+in.BlockBytes-in.LiveSlotBytes)
	if !slices.Contains(lines, pinned) {
		t.Errorf("no %q in\n%s", pinned, strings.Join(lines, "\n"))
	}
	for _, l := range lines {
		f := strings.Fields(l)
		got = append(got, fmt.Sprint(f[0], " ", strings.TrimPrefix(f[2], "Exponential"), " ", f[1]))
	}
	doc, err := os.ReadFile("../../doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range regexp.MustCompile(`(?m)^//\t(allocator\.\S+) +(\S+) +(\S+) +\S`).FindAllStringSubmatch(string(doc), -1) {
		want = append(want, strings.Join(m[1:], " "))
	}
	slices.Sort(got)
	slices.Sort(want)
	wantLines(t, "metrics", slices.Compact(got), want)
}

// TestSeveral starts three sources, two of which have the same attributes and are
// added up, and stops one after the other.
func TestSeveral(t *testing.T) {
	producer := new(otelmetric.Producer)
	reader, provider := newReader(producer)
	var regs []*otelmetric.Registration
	for i, name := range []string{"a", "b", "b"} {
		mem := alloctest.New(t, alloctest.WithProxy(alloctrace.WithName(name)))
		b := allocate(t, mem, 1<<(10+i))
		t.Cleanup(func() { free(t, mem, b) })
		regs = append(regs, start(t, mem, otelmetric.WithMeterProvider(provider), otelmetric.WithProducer(producer), otelmetric.WithBackend("")))
	}
	for stopped, want := range [][]string{{
		"allocator.allocation.size By ExponentialHistogram {allocator.name=a} count=1 sum=1024 scale=0 1024:1",
		"allocator.allocation.size By ExponentialHistogram {allocator.name=b} count=2 sum=6144 scale=0 2048:1 4096:1",
		"allocator.memory.used By UpDownCounter {allocator.name=a} 1024",
		"allocator.memory.used By UpDownCounter {allocator.name=b} 6144",
	}, {
		"allocator.allocation.size By ExponentialHistogram {allocator.name=b} count=2 sum=6144 scale=0 2048:1 4096:1",
		"allocator.memory.used By UpDownCounter {allocator.name=b} 6144",
	}, {
		"allocator.allocation.size By ExponentialHistogram {allocator.name=b} count=1 sum=4096 scale=0 4096:1",
		"allocator.memory.used By UpDownCounter {allocator.name=b} 4096",
	}, nil} {
		if stopped > 0 {
			stop(t, regs[stopped-1])
		}
		var got []string
		for _, l := range collect(t, reader) {
			if strings.HasPrefix(l, "allocator.allocation.size") || strings.HasPrefix(l, "allocator.memory.used") {
				got = append(got, l)
			}
		}
		wantLines(t, fmt.Sprintf("with %d stopped", stopped), got, want)
	}
}

// TestSizes: a block is in the bucket whose bounds are around its size, of which the
// upper one is included.
func TestSizes(t *testing.T) {
	for k := range bits.UintSize - 1 {
		for _, size := range []uintptr{1<<k - 1, 1 << k, 1<<k + 1} {
			if size == 0 {
				continue
			}
			var c counter.Counter
			c.Allocate(size, size)
			for _, producer := range []*otelmetric.Producer{{}, {Explicit: true}} {
				start(t, &c, otelmetric.WithName("c"), otelmetric.WithMeterProvider(noop.NewMeterProvider()), otelmetric.WithProducer(producer))
				scopes, err := producer.Produce(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				var at int
				var low, high, sum float64
				switch h := scopes[0].Metrics[0].Data.(type) {
				case metricdata.ExponentialHistogram[int64]:
					p := h.DataPoints[0]
					at = slices.Index(p.PositiveBucket.Counts, 1)
					index := int(p.PositiveBucket.Offset) + at
					low, high, sum = pow2(index), pow2(index+1), float64(p.Sum)
				case metricdata.Histogram[int64]:
					p := h.DataPoints[0]
					at = slices.Index(p.BucketCounts, 1)
					edges := slices.Concat([]float64{0}, p.Bounds, []float64{pow2(64)})
					low, high, sum = edges[at], edges[at+1], float64(p.Sum)
				}
				if at < 0 || !(low < float64(size) && float64(size) <= high) && size < 1<<(bits.UintSize-11) || sum != float64(size) {
					t.Errorf("explicit=%v: %d bytes are in the bucket from %v to %v, and the sum is %v", producer.Explicit, size, low, high, sum)
				}
			}
		}
	}
}

func pow2(n int) float64 {
	if n < 0 {
		return 1 / pow2(-n)
	}
	return float64(uint64(1)<<min(n, 63)) * float64(uint64(1)<<max(0, n-63))
}

// asked counts how often a snapshot is taken.
type asked struct {
	counter.Source
	n atomic.Int64
}

func (a *asked) Stats() counter.Stats {
	a.n.Add(1)
	return a.Source.Stats()
}

func TestSnapshots(t *testing.T) {
	source := &asked{Source: counter.Stats{}}
	producer := new(otelmetric.Producer)
	reader, provider := newReader(producer)
	reg := start(t, source, otelmetric.WithName("a"), otelmetric.WithMeterProvider(provider))
	collect(t, reader)
	if n := source.n.Swap(0); n != 1 {
		t.Errorf("a collection took %d snapshots, want 1", n)
	}
	stop(t, reg)
	reg = start(t, source, otelmetric.WithName("a"), otelmetric.WithMeterProvider(provider), otelmetric.WithProducer(producer))
	collect(t, reader)
	if n := source.n.Swap(0); n != 2 {
		t.Errorf("with a Producer a collection took %d snapshots, want 2", n)
	}
	stop(t, reg)
	stop(t, reg)
	collect(t, reader)
	if n := source.n.Load(); n != 0 {
		t.Errorf("after Close a collection took %d snapshots, want none", n)
	}
}

// TestStorm collects by two readers while blocks are allocated and freed and sources
// come and go. Whatever is collected must agree with itself, as all blocks have 4096
// bytes, and a source that was stopped must not be asked.
func TestStorm(t *testing.T) {
	mem := alloctest.New(t, alloctest.WithProxy(alloctrace.WithName("storm")), alloctest.WithAllocator(new(blockalloc.Heap)))
	producer := new(otelmetric.Producer)
	readers := [2]*sdkmetric.ManualReader{
		sdkmetric.NewManualReader(sdkmetric.WithProducer(producer)),
		sdkmetric.NewManualReader(sdkmetric.WithProducer(producer)),
	}
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(readers[0]), sdkmetric.WithReader(readers[1]))
	opts := []otelmetric.Option{otelmetric.WithMeterProvider(provider), otelmetric.WithProducer(producer)}
	start(t, mem, opts...)

	var work, watch sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		work.Go(func() {
			for range 2000 {
				a, b := allocate(t, mem, 4096), allocate(t, mem, 4096)
				free(t, mem, a, b)
			}
		})
	}
	work.Go(func() {
		for range 200 {
			source := &asked{Source: mem}
			reg, err := otelmetric.Register(source, append(opts, otelmetric.WithName("passing"))...)
			if err != nil {
				t.Error(err)
				return
			}
			stop(t, reg)
			n := source.n.Load()
			collect(t, readers[0])
			if source.n.Load() != n {
				t.Error("a source was asked after Close had returned")
			}
		}
	})
	for _, reader := range readers {
		watch.Go(func() {
			for last, ended := int64(0), false; !ended; { // and once more when all is done
				select {
				case <-done:
					ended = true
				default:
				}
				values := make(map[string]int64)
				for _, l := range collect(t, reader) {
					if f := strings.Fields(l); strings.Contains(f[3], "name=storm") && f[2] != "ExponentialHistogram" {
						n, err := strconv.ParseInt(f[4], 10, 64)
						if err != nil {
							t.Error(err)
						}
						values[f[0]] = n
					}
				}
				if values["allocator.memory.used"] != 4096*values["allocator.block.count"] ||
					values["allocator.memory.allocated"] != 4096*values["allocator.allocations"] ||
					values["allocator.memory.used"] < 0 || values["allocator.memory.used"] > 8*4096 ||
					values["allocator.allocations"] < last {
					t.Errorf("collected %v after %d allocations", values, last)
				}
				if last = values["allocator.allocations"]; ended && last == 0 {
					t.Error("nothing was collected")
				}
			}
		})
	}
	work.Wait()
	close(done)
	watch.Wait()
	for _, reader := range readers {
		if lines := collect(t, reader); !slices.Contains(lines, "allocator.allocations {allocation} Counter {allocator.backend=Heap,allocator.name=storm} 16000") ||
			!slices.Contains(lines, "allocator.memory.used By UpDownCounter {allocator.backend=Heap,allocator.name=storm} 0") {
			t.Errorf("at rest\n%s", strings.Join(lines, "\n"))
		}
	}
}

// setGlobal is done once, for the global provider is passed on once.
var setGlobal = sync.OnceValue(func() *sdkmetric.ManualReader {
	reader := sdkmetric.NewManualReader()
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	return reader
})

// TestGlobalProvider registers before the global provider is set. A nil provider is the global one.
func TestGlobalProvider(t *testing.T) {
	reg := start(t, worked(t), otelmetric.WithMeterProvider(nil), otelmetric.WithProducer(nil))
	reader := setGlobal()
	wantLines(t, "of the global provider", collect(t, reader), wantWorked[1:])
	stop(t, reg)
	wantLines(t, "after Close", collect(t, reader), nil)
}

// A refusing provider's meter refuses callbacks, or gauges.
type refusing struct {
	noop.MeterProvider
	gauge, callback error
}

func (r refusing) Meter(string, ...metric.MeterOption) metric.Meter {
	return refusingMeter{refusing: r}
}

type refusingMeter struct {
	noop.Meter
	refusing refusing
}

func (m refusingMeter) Int64ObservableGauge(string, ...metric.Int64ObservableGaugeOption) (metric.Int64ObservableGauge, error) {
	return noop.Int64ObservableGauge{}, m.refusing.gauge
}

func (m refusingMeter) RegisterCallback(metric.Callback, ...metric.Observable) (metric.Registration, error) {
	return noop.Registration{}, m.refusing.callback
}

func TestErrors(t *testing.T) {
	no := errors.New("no")
	producer := new(otelmetric.Producer)
	for _, x := range []struct {
		source counter.Source
		opts   []otelmetric.Option
		want   string
		is     error
	}{
		{new(counter.Counter), nil, "otelmetric: Register: a *counter.Counter has no name: name it by alloctrace.WithName or otelmetric.WithName", nil},
		{alloctest.New(t), nil, "otelmetric: Register: a *alloctrace.Proxy has no name: name it by alloctrace.WithName or otelmetric.WithName", nil},
		{counter.Stats{}, []otelmetric.Option{otelmetric.WithName("a"), otelmetric.WithMeterProvider(refusing{gauge: no})}, "otelmetric: Register: the MeterProvider refuses: no", no},
		{counter.Stats{}, []otelmetric.Option{otelmetric.WithName("a"), otelmetric.WithMeterProvider(refusing{callback: no})}, "otelmetric: Register: the MeterProvider refuses: no", no},
	} {
		reg, err := otelmetric.Register(x.source, append(x.opts, otelmetric.WithProducer(producer))...)
		if reg != nil || err == nil || err.Error() != x.want || x.is != nil && !errors.Is(err, x.is) {
			t.Errorf("Register = %v, %v; want %s", reg, err, x.want)
		}
	}
	wantPanic(t, "otelmetric: Register(nil): pass a Proxy or another counter.Source",
		func() { _, _ = otelmetric.Register(nil, otelmetric.WithProducer(producer)) })
	if scopes, err := producer.Produce(t.Context()); scopes != nil || err != nil {
		t.Errorf("after failures a Producer makes %v, %v", scopes, err)
	}
}

// wantPanic checks that call panics with the text want.
func wantPanic(t *testing.T, want string, call func()) {
	t.Helper()
	defer func() {
		if r := recover(); r != want {
			t.Errorf("it panics with %v, want %s", r, want)
		}
	}()
	call()
}

// BenchmarkCollect collects the metrics of ten allocators.
func BenchmarkCollect(b *testing.B) {
	producer := new(otelmetric.Producer)
	reader, provider := newReader(producer)
	for i := range 10 {
		mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithName(fmt.Sprint("allocator", i)))
		for size := uintptr(1); size <= 1<<20; size *= 2 {
			for range 200 { // beyond what a Counter counts at home
				free(b, mem, allocate(b, mem, size))
			}
		}
		start(b, mem, otelmetric.WithMeterProvider(provider), otelmetric.WithProducer(producer))
	}
	var rm metricdata.ResourceMetrics
	b.ReportAllocs()
	for b.Loop() {
		if err := reader.Collect(b.Context(), &rm); err != nil {
			b.Fatal(err)
		}
	}
}
