package prometheus_test

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	allocprom "github.com/alloctrace/alloctrace/exporters/prometheus"
)

// BenchmarkCollect is what the registry takes for a scrape of ten allocators, each with
// blocks of many sizes; writing the text is promhttp's.
func BenchmarkCollect(b *testing.B) {
	r := prometheus.NewRegistry()
	for i := range 10 {
		mem := alloctrace.Wrap(new(blockalloc.Heap))
		for range 200 {
			for size := uintptr(1); size <= 1<<16; size *= 2 {
				free(b, mem, allocate(b, mem, size))
			}
		}
		r.MustRegister(allocprom.NewCollector(mem, fmt.Sprint(i), allocprom.Options{}))
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
