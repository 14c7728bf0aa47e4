package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"github.com/alloctrace/alloctrace/internal/measure"
)

// BenchmarkPagecache prints what the cache costs outside the Go heap with all that is there to observe it, over the same
// cache on the Go heap, by make, with nothing: a row a measure, name value unit bound ok|over. Each run is a process of its own,
// whose CPU time, of the kernel too, and highest resident memory the kernel tells. They take turns.
func BenchmarkPagecache(b *testing.B) {
	const rounds, ops = 9, 300_000
	for b.Loop() {
		fmt.Println()
		for _, file := range []string{"direct", "buffered"} {
			var cpu, resident []float64
			for round := range rounds {
				var got, heap usage
				if round%2 == 0 {
					got, heap = run(b, ops, file == "buffered", false), run(b, ops, file == "buffered", true)
				} else {
					heap, got = run(b, ops, file == "buffered", true), run(b, ops, file == "buffered", false)
				}
				cpu = append(cpu, got.cpu/heap.cpu)
				resident = append(resident, got.resident/heap.resident)
			}
			measure.Row(os.Stdout, b, "pagecache_"+file+"_cpu_over_go", median(cpu), "x", 1.03)
			measure.Row(os.Stdout, b, "pagecache_"+file+"_rss_over_go", median(resident), "x", 1.05)
		}
	}
}

// usage is what a process has used.
type usage struct{ cpu, resident float64 }

func run(b *testing.B, ops int, buffered, heap bool) usage {
	b.Helper()
	cmd := exec.Command(os.Args[0], fmt.Sprint("-ops=", ops), fmt.Sprint("-buffered=", buffered), fmt.Sprint("-heap=", heap))
	cmd.Env = append(os.Environ(), beProgram+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	u := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return usage{float64(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()), float64(u.Maxrss)}
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
