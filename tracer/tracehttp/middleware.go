package tracehttp

import (
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/requests"
	"github.com/alloctrace/alloctrace/internal/text"
	"github.com/alloctrace/alloctrace/tracer"
)

// ScopeName is the instrumentation scope of this package's metrics. Its spans have that of package tracer.
const ScopeName = "github.com/alloctrace/alloctrace/tracer/tracehttp"

// NewMiddleware returns a middleware whose requests are regions of mem: see the package. It may wrap
// several handlers, and these may serve several requests at once.
//
// A request costs a region, a copy of the request as by [http.Request.WithContext], and two or three records of a histogram.
// NewMiddleware panics if mem is nil, and the middleware if its handler is.
func NewMiddleware(mem blockalloc.Allocator, opts ...Option) func(http.Handler) http.Handler {
	if mem == nil {
		panic("tracehttp: NewMiddleware(nil): pass an allocator, such as a Proxy of alloctrace.Wrap(blockalloc.Default())")
	}
	if _, ok := mem.(*alloctrace.Proxy); !ok {
		mem = alloctrace.Wrap(mem) // once, and not in each request
	}
	var c config
	for _, o := range opts {
		o.apply(&c)
	}
	histograms := requests.NewHistograms(ScopeName, c.meters)
	return func(next http.Handler) http.Handler {
		if next == nil {
			panic("tracehttp: the middleware of NewMiddleware is given nil: pass a handler, such as an http.ServeMux")
		}
		return &handler{next, mem, c.region, histograms, new(kinds)}
	}
}

type handler struct {
	next       http.Handler
	mem        blockalloc.Allocator
	options    []tracer.Option
	histograms *requests.Histograms
	kinds      *kinds
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := request{handler: h, outer: r}
	ctx := r.Context()
	if s := trace.SpanContextFromContext(ctx); s.IsValid() && !s.IsRemote() {
		ctx, q.region = tracer.InSpan(ctx, h.mem, h.options...)
	} else {
		q.ownSpan = true
		ctx, q.region = tracer.Start(ctx, spanName(r.Method, routeOf(r.Pattern)), h.mem, h.options...) // of a mux outside
	}
	q.inner = r.WithContext(ctx)
	defer q.region.End() // itself, for a panic to be recorded
	defer q.finish()
	h.next.ServeHTTP(w, q.inner)
}

// A request is one that is being served.
type request struct {
	*handler
	outer, inner *http.Request // as it came, and as the next handler has it
	region       *tracer.Region
	ownSpan      bool
}

// finish does what can be done when the mux has chosen a route, just before the region ends.
func (q *request) finish() {
	q.outer.Pattern, q.outer.MultipartForm = q.inner.Pattern, q.inner.MultipartForm
	k := q.kinds.of(q.inner.Method, q.inner.Pattern)
	ctx := q.inner.Context()
	if q.ownSpan {
		trace.SpanFromContext(ctx).SetName(k.spanName)
		q.region.SetAttributes(k.Attributes...)
	} else {
		q.region.SetAttributes(k.Attributes[1:]...)
	}
	q.histograms.Record(ctx, q.region.Summary(), k.Labels)
}

// otherMethod is what a method is called that is none of the known ones, which are few: anybody can send any word.
const otherMethod = "_OTHER"

func knownMethod(method string) string {
	switch method {
	case http.MethodConnect, http.MethodDelete, http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPatch,
		http.MethodPost, http.MethodPut, http.MethodTrace:
		return method
	}
	return otherMethod
}

// spanName is named by OpenTelemetry's conventions, for example "GET /items/{id}".
func spanName(method, route string) string {
	if method = knownMethod(method); method == otherMethod {
		method = "HTTP"
	}
	if route == "" {
		return method
	}
	return method + " " + route
}

// routeOf returns a pattern of [http.ServeMux] from its path on, "" if it has none.
func routeOf(pattern string) string {
	if i := strings.IndexByte(pattern, '/'); i >= 0 {
		return text.Name(pattern[i:])
	}
	return ""
}
