package prometheus_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	allocprom "github.com/alloctrace/alloctrace/exporters/prometheus"
)

func ExampleNewCollector() {
	mem := alloctrace.Wrap(blockalloc.NewLimit(blockalloc.Default(), 1<<30))
	reg := prometheus.NewRegistry()
	reg.MustRegister(allocprom.NewCollector(mem, "index", allocprom.Options{}))
	http.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))

	block, err := mem.Allocate(blockalloc.BlockLayout(64 << 10))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer mem.Free(block)

	w := httptest.NewRecorder()
	http.DefaultServeMux.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "allocator_memory_used") || strings.HasPrefix(line, "allocator_memory_limit") {
			fmt.Print(line)
		}
	}
	// Output:
	// allocator_memory_limit_bytes{allocator_child="",allocator_name="index"} 1.073741824e+09
	// allocator_memory_used_bytes{allocator_child="",allocator_name="index"} 65536
}
