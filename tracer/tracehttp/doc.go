// Package tracehttp makes each request of a net/http server a region of package tracer, so that its span says what the
// request has allocated outside the Go heap, and histograms say it by route:
//
//	handler := tracehttp.NewMiddleware(mem)(mux)
//	handler = otelhttp.NewHandler(handler, "server") // outside of it, if there is one
//
// A handler allocates with the request's context, by mem or a child of it, or by the region:
//
//	block, err := mem.WithContext(r.Context()).Allocate(layout)
//	block, err := tracer.FromContext(r.Context()).Allocator().Allocate(layout)
//
// # Spans
//
// If the request's context has a span of this process, such as otelhttp's, the region's attributes are set on it. Otherwise
// the request has a span of its own, named by method and route as in "GET /items/{id}". Both have http.route, and the span
// of its own has http.request.method.
//
// The route is the pattern of [http.ServeMux] without its method and host, as otelhttp has it. It is known to the middleware
// if the mux is its handler, or is inside handlers that do not copy the request, or is outside. Where a router sets
// Request.Pattern itself, that is the route. A request without a route has no http.route: the path never takes its place.
//
// # Metrics
//
// Histograms of bytes, with attributes http.request.method (_OTHER if it is not one of the RFCs') and http.route:
//
//	allocator.request.allocated  By  allocated in the request, in all
//	allocator.request.peak       By  the highest that allocated - freed was
//	allocator.request.escaped    By  allocated in it and live at its end; only where a hook knows blocks
//
// They are recorded in the request's context: an SDK with the exemplar filter trace_based, its default, links each bucket
// to the trace of a request that was sampled.
//
// # What belongs to a request
//
// The region begins before the handler and ends when the handler returns or panics. The panic goes on with the same value,
// http.ErrAbortHandler too. What is read from the body and written in between belongs to it, streams included.
// What a goroutine allocates with the request's context after that, also one of a hijacked connection or behind
// http.TimeoutHandler, still counts in mem, and is neither on the span nor in the histograms: give such work a
// region of its own by [tracer.Start].
//
// The http.ResponseWriter is handed on as it is, so that flushing, hijacking and deadlines work as without the
// middleware. The handler gets a copy of the request, as by [http.Request.WithContext]; Pattern and MultipartForm are copied
// back, for handlers outside and for the server, which removes temporary files.
package tracehttp
