package tracehttp_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/tracer"
	"github.com/alloctrace/alloctrace/tracer/tracehttp"
)

// A blockKeeper keeps the attributes of the spans of blocks.
type blockKeeper struct {
	noop.TracerProvider
	blocks *[]map[string]string
}
type blockTracer struct {
	noop.Tracer
	blocks *[]map[string]string
}

func (k blockKeeper) Tracer(string, ...trace.TracerOption) trace.Tracer {
	return blockTracer{blocks: k.blocks}
}

// A sampledSpan says that it is recorded.
type sampledSpan struct {
	trace.Span
}

func (sampledSpan) IsRecording() bool { return true }

func (k blockTracer) Start(ctx context.Context, name string, o ...trace.SpanStartOption) (context.Context, trace.Span) {
	if name == "block" {
		m := map[string]string{}
		c := trace.NewSpanStartConfig(o...)
		for _, a := range c.Attributes() {
			m[string(a.Key)] = fmt.Sprint(a.Value.AsInterface())
		}
		*k.blocks = append(*k.blocks, m)
	}
	ctx, s := k.Tracer.Start(ctx, name, o...)
	s = sampledSpan{s}
	return trace.ContextWithSpan(ctx, s), s
}

// TestLeakHasItsRoute: a block that outlives a request has the route, which was not known when it was allocated.
func TestLeakHasItsRoute(t *testing.T) {
	var blocks []map[string]string
	tp := blockKeeper{blocks: &blocks}
	l := tracer.NewLifetimes(tracer.LifetimeOptions{Rate: 1, TracerProvider: tp})
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(l))
	mux := http.NewServeMux()
	var leak blockalloc.Block
	mux.HandleFunc("POST /sort/{n}", func(w http.ResponseWriter, r *http.Request) {
		leak, _ = mem.AllocateContext(r.Context(), blockalloc.BlockLayout(4096))
	})
	tracehttp.NewMiddleware(mem, tracehttp.WithRegion(tracer.WithTracerProvider(tp)))(mux).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/sort/7", nil))
	l.Close()
	if len(blocks) != 1 || blocks[0]["http.route"] != "/sort/{n}" {
		t.Errorf("%v, want the route", blocks)
	}
	_ = mem.Free(leak)
}
