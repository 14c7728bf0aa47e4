package tracehttp_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/tracer/tracehttp"
)

// BenchmarkMiddleware is a request to a mux without and with the middleware, whose spans and
// histograms go nowhere.
func BenchmarkMiddleware(b *testing.B) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /items/{id}", func(http.ResponseWriter, *http.Request) {})
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/items/1", nil)
	for name, h := range map[string]http.Handler{
		"without": mux,
		"with":    tracehttp.NewMiddleware(alloctrace.Wrap(measure.NewInner()))(mux),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(w, r)
			}
		})
	}
}
