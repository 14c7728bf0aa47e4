//go:build unix

package memlimit

import (
	"os"
	"runtime/debug"
	"slices"
	"syscall"
	"testing"

	"github.com/alloctrace/alloctrace/internal/measure"
)

// BenchmarkTable prints what a program with 64 MiB beside 4 MiB of live Go heap costs for each GiB of garbage: with the 64 MiB
// on the heap, off-heap, and off-heap with a Pacer. A row a measure: name value unit bound ok|over.
func BenchmarkTable(b *testing.B) {
	atGOGC100(b)
	w := workload{large: 64 * mib, live: 4 * mib, garbage: 1024 * mib}
	for b.Loop() {
		const rounds = 10
		order := slices.Clone(placements)
		collections, cpu := make(map[placement]float64), make(map[placement][]float64)
		for range rounds {
			slices.Reverse(order)
			for _, at := range order {
				debug.FreeOSMemory() // none is to pay for giving back what the one before needed
				n := w.run(b, at, func(work func()) {
					before := cpuSeconds(b)
					work()
					cpu[at] = append(cpu[at], cpuSeconds(b)-before)
				})
				collections[at] += float64(n) / rounds
			}
		}
		median := func(of func(round int) float64) float64 {
			var values []float64
			for i := range rounds {
				values = append(values, of(i))
			}
			slices.Sort(values)
			return values[rounds/2]
		}
		for _, at := range placements {
			measure.Row(os.Stdout, b, "pace_collections_"+string(at), collections[at], "/GiB", measure.NoBound)
			measure.Row(os.Stdout, b, "pace_cpu_"+string(at), median(func(i int) float64 { return cpu[at][i] * 1000 }), "ms/GiB", measure.NoBound)
		}
		measure.Row(os.Stdout, b, "pace_collections", collections[paced]/collections[onHeap], "x heap", 1.15)
		measure.Row(os.Stdout, b, "pace_cpu", median(func(i int) float64 { return cpu[paced][i] / cpu[onHeap][i] }), "x heap", 1.25)
		measure.Row(os.Stdout, b, "pace_cpu_unpaced", median(func(i int) float64 { return cpu[unpaced][i] / cpu[onHeap][i] }), "x heap", measure.NoBound)
	}
}

// cpuSeconds is the processor time of this process so far.
func cpuSeconds(tb testing.TB) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// BenchmarkPace is what the Pacer does after a collection, where the percentage changes each time.
func BenchmarkPace(b *testing.B) {
	atGOGC100(b)
	n, source := offHeap()
	p := newTestPacer(b, PacerOptions{}, source)
	b.ReportAllocs()
	for b.Loop() {
		n.Store(n.Load() ^ 64*mib)
		p.mu.Lock()
		p.collector.read()
		p.set()
		p.mu.Unlock()
	}
}
