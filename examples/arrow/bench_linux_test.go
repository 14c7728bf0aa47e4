package main

import (
	"bytes"
	"context"
	"fmt"
	"go/build"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/math"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/arrowmem"
	"github.com/alloctrace/alloctrace/internal/jaegertest"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/tracer"
)

// Each measurement is a process of its own, for its peak of resident memory: the test binary, told what to do by this variable.
const beMeasured = "ARROW_TEST_BE_MEASURED"

func TestMain(m *testing.M) {
	if what := os.Getenv(beMeasured); what != "" {
		workload, allocator, _ := strings.Cut(what, " ")
		if err := measured(workload, allocator); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// peers are Arrow's own allocators, and where cgo is, that of C.
var peers = map[string]memory.Allocator{"default": memory.DefaultAllocator, "go": memory.NewGoAllocator()}

const (
	everything = "everything" // Proxy, region and Lifetimes: in the program of every block, in others of a sample as in production
	bare       = "bare"       // the same allocators, with nothing that counts or traces
	pages      = "pages"      // without a Slab, so that each buffer is a page or more
)

// measured runs a workload, and prints the nanoseconds of processor time that it took and the peak of resident memory in KiB.
func measured(workload, allocator string) error {
	out, err := os.MkdirTemp("", "arrow-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(out)
	o := options{dir: filepath.Join(build.Default.GOROOT, "src"), out: out, size: 16 << 20, min: 60}
	plain := peers[allocator]
	var mem blockalloc.Allocator = &blockalloc.Pool{MaxCached: kept}
	if workload != "query" {
		mem = blockalloc.Default() // for buffers of the same sizes again and again
	}
	switch allocator {
	case bare:
		slab, err := blockalloc.NewSlab(mem, 64<<10)
		if err != nil {
			return err
		}
		plain = arrowmem.New(slab)
	case pages:
		plain = arrowmem.New(mem)
	}
	began, err := processorTime()
	if err != nil {
		return err
	}
	switch {
	case workload == "columns":
		err = repeated(plain, column, 100)
	case workload == "small":
		err = repeated(plain, small, 5)
	case plain == nil:
		_, err = run(context.Background(), o)
	default:
		q := &query{plain: plain, options: o}
		if _, err = q.generate(context.Background(), out); err == nil {
			_, err = q.run(context.Background(), out)
		}
	}
	if err != nil {
		return err
	}
	ended, err := processorTime()
	if err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	fmt.Println(ended-began, strings.Fields(peak)[0])
	return nil
}

// processorTime returns what this process has taken, in nanoseconds.
func processorTime() (int64, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano(), err
}

// repeated does some work n times. It counts and traces all if plain is nil.
func repeated(plain memory.Allocator, work func(ctx context.Context, mem memory.Allocator, page []float64) error, n int) error {
	ctx := context.Background()
	if plain == nil {
		slab, err := blockalloc.NewSlab(blockalloc.Default(), 64<<10)
		if err != nil {
			return err
		}
		lives := tracer.NewLifetimes(tracer.LifetimeOptions{TracerProvider: noop.NewTracerProvider()})
		defer lives.Close()
		mem := alloctrace.Wrap(slab, alloctrace.WithHooks(lives))
		_, region := tracer.Start(ctx, "repeated", mem, tracer.WithTracerProvider(noop.NewTracerProvider()))
		defer region.End()
		plain = arrowmem.New(region.Allocator())
	}
	ctx = compute.WithAllocator(ctx, plain)
	page := make([]float64, 8<<10)
	for i := range page {
		page[i] = float64(i) / 3
	}
	for range n {
		if err := work(ctx, plain, page); err != nil {
			return err
		}
	}
	return nil
}

// small has 20,000 arrays of ten numbers.
func small(_ context.Context, mem memory.Allocator, page []float64) error {
	arrays := make([]arrow.Array, 20_000)
	for i := range arrays {
		b := array.NewFloat64Builder(mem)
		b.AppendValues(page[:10], nil)
		arrays[i] = b.NewArray()
		b.Release()
	}
	for _, a := range arrays {
		a.Release()
	}
	return nil
}

// column builds a column page by page, computes with it and filters it.
func column(ctx context.Context, mem memory.Allocator, page []float64) error {
	b := array.NewFloat64Builder(mem)
	defer b.Release()
	for range 64 {
		b.AppendValues(page, nil)
	}
	numbers := b.NewFloat64Array()
	defer numbers.Release()
	doubled, err := compute.Add(ctx, compute.ArithmeticOptions{}, compute.NewDatumWithoutOwning(numbers), compute.NewDatumWithoutOwning(numbers))
	if err != nil {
		return err
	}
	defer doubled.Release()
	mask, err := compute.CallFunction(ctx, "greater", nil, doubled, compute.NewDatum(100.0))
	if err != nil {
		return err
	}
	defer mask.Release()
	some, err := compute.Filter(ctx, doubled, mask, *compute.DefaultFilterOptions())
	if err != nil {
		return err
	}
	defer some.Release()
	sum := some.(*compute.ArrayDatum).MakeArray().(*array.Float64)
	defer sum.Release()
	if math.Float64.Sum(sum) <= 0 || sum.DataType() != arrow.PrimitiveTypes.Float64 {
		return fmt.Errorf("the sum is %v", math.Float64.Sum(sum))
	}
	return nil
}

// A cost is processor time and peak resident memory.
type cost struct{ time, memory float64 }

// BenchmarkTable prints what the program, a workload of columns and one of small arrays cost in our memory with everything on, in processor time and in
// the peak of resident memory, as ratios of what they cost in Arrow's own: the medians of rounds. That of Arrow's default over
// its GoAllocator, which are the same, is what chance makes.
func BenchmarkTable(b *testing.B) {
	const rounds = 5
	for b.Loop() {
		fmt.Println()
		for _, workload := range []string{"query", "columns", "small"} {
			costs := make(map[string][]cost)
			for round := range rounds {
				names := []string{everything, bare, pages}
				for name := range peers {
					names = append(names, name)
				}
				slices.Sort(names)
				if round%2 == 1 {
					slices.Reverse(names)
				}
				for _, name := range names {
					costs[name] = append(costs[name], measureOnce(b, workload, name))
				}
			}
			row := func(x, y string, boundTime, boundMemory float64) {
				time, memory := make([]float64, rounds), make([]float64, rounds)
				for i := range rounds {
					time[i], memory[i] = costs[x][i].time/costs[y][i].time, costs[x][i].memory/costs[y][i].memory
				}
				slices.Sort(time)
				slices.Sort(memory)
				name := fmt.Sprintf("arrow_%s_%s_over_%s", workload, x, y)
				measure.Row(os.Stdout, b, name+"_cpu", time[rounds/2], "x", boundTime)
				measure.Row(os.Stdout, b, name+"_rss", memory[rounds/2], "x", boundMemory)
			}
			for name := range peers {
				if name != "go" {
					row(name, "go", measure.NoBound, measure.NoBound)
				}
			}
			row(everything, "go", 1.03, 1.05)
			row(everything, "default", 1.03, 1.05)
			if _, ok := peers["c"]; ok {
				row(everything, "c", 1.03, 1.05)
			}
			row(everything, bare, measure.NoBound, measure.NoBound)
			row(pages, bare, measure.NoBound, measure.NoBound)
		}
	}
}

func measureOnce(b *testing.B, workload, allocator string) (c cost) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(jaegertest.Environ(), beMeasured+"="+workload+" "+allocator)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err == nil {
		_, err = fmt.Sscan(string(text), &c.time, &c.memory)
	}
	if err != nil {
		b.Fatalf("%s in %s: %v: %s", workload, allocator, err, stderr.String())
	}
	return c
}
