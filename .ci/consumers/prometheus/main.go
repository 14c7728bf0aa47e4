// Prometheus serves the counters at /metrics.
package main

import (
	"net/http/httptest"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	allocprom "github.com/alloctrace/alloctrace/exporters/prometheus"
)

func main() {
	reg := prometheus.NewRegistry()
	reg.MustRegister(allocprom.NewCollector(alloctrace.Wrap(blockalloc.Default()), "cache", allocprom.Options{}))
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 || !strings.Contains(w.Body.String(), "allocator_memory_used_bytes") {
		panic(w.Body.String())
	}
}
