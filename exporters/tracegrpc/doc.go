// Package tracegrpc makes each call of a gRPC server a region of package tracer, so that its span says what the call has
// allocated outside the Go heap, and histograms say it by method:
//
//	grpc.NewServer(
//		grpc.StatsHandler(otelgrpc.NewServerHandler()), // if there is one, before or after
//		grpc.ChainUnaryInterceptor(tracegrpc.UnaryServerInterceptor(mem)),
//		grpc.ChainStreamInterceptor(tracegrpc.StreamServerInterceptor(mem)),
//	)
//
// A handler allocates with the context of the call or of the stream, by mem or a child of it, or by the region:
//
//	block, err := mem.WithContext(ctx).Allocate(layout)
//	block, err := tracer.FromContext(ctx).Allocator().Allocate(layout)
//
// # Spans
//
// If the call's context has a span of this process, as otelgrpc's, the region's attributes are set on it. Otherwise
// the call has a span of its own, named "package.Service/Method", with rpc.service and rpc.method. An error that the
// handler returns is left to otelgrpc.
//
// The package has interceptors, and no stats.Handler as otelgrpc does. gRPC calls several stats.Handlers in the same order at
// the end of a call as at its beginning. So the one that begins after otelgrpc, when there is a span, would end
// after it too, when it is too late for attributes. Interceptors run while otelgrpc's span is there, in whatever order the
// options are, and a panic of the handler passes them. What gRPC itself does before and after the handler, as
// encoding, has no context to allocate with, so that nothing is missed.
//
// # Metrics
//
// Histograms of bytes, with attributes rpc.service and rpc.method. They are those of tracer/tracehttp:
//
//	allocator.request.allocated  By  allocated in the call, in all
//	allocator.request.peak       By  the highest that allocated - freed was
//	allocator.request.escaped    By  allocated in it and live at its end; only where a hook knows blocks
//
// They are recorded in the call's context: an SDK with the exemplar filter trace_based, its default, links each bucket
// to the trace of a call that was sampled. Calls to a [grpc.UnknownServiceHandler] have neither attribute, nor the method in
// the name of their span, because any client can make up methods.
//
// # Live bytes by method
//
// Histograms have calls that have ended. With [WithChildren] the Proxy has a child for each method, whose counts have
// what is live now. gRPC's own buffers are in neither: it asks for them without a context, and for what it receives
// in the goroutine of a connection, which serves many calls at once. Package blockalloc/grpcmem counts them by server and client.
//
// # What belongs to a call
//
// The region begins before the handler and ends when the handler returns or panics, with streams too: all
// messages of a stream are one region. What a goroutine allocates with the context after that still counts in mem, and is neither
// on the span nor in the histograms.
package tracegrpc
