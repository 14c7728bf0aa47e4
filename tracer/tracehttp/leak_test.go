package tracehttp_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/spantest"
	"github.com/alloctrace/alloctrace/tracer"
	"github.com/alloctrace/alloctrace/tracer/tracehttp"
)

// TestLeakHasItsRoute: a block that outlives a request has the route, which was not known when it was allocated.
func TestLeakHasItsRoute(t *testing.T) {
	tp := new(spantest.Recorder)
	l := tracer.NewLifetimes(tracer.LifetimeOptions{Rate: 1, TracerProvider: tp})
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(l))
	mux := http.NewServeMux()
	var leak blockalloc.Block
	mux.HandleFunc("POST /sort/{n}", func(w http.ResponseWriter, r *http.Request) {
		leak, _ = mem.AllocateContext(r.Context(), blockalloc.BlockLayout(4096))
	})
	tracehttp.NewMiddleware(mem, tracehttp.WithRegion(tracer.WithTracerProvider(tp)))(mux).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/sort/7", nil))
	l.Close()
	if blocks := tp.Named("block"); len(blocks) != 1 || blocks[0].Attributes["http.route"].AsString() != "/sort/{n}" {
		t.Errorf("%v, want the route", blocks)
	}
	_ = mem.Free(leak)
}
