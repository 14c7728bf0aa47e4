package tracegrpc

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/requests"
	"github.com/alloctrace/alloctrace/internal/text"
	"github.com/alloctrace/alloctrace/tracer"
)

// ScopeName is the instrumentation scope of this package's metrics. Its spans have that of package tracer.
const ScopeName = "github.com/alloctrace/alloctrace/exporters/tracegrpc"

// UnaryServerInterceptor returns an interceptor of calls with one request and one answer, which are regions
// of mem: see the package. Several goroutines may call it at once, as gRPC does. A call costs a region and
// two or three records of a histogram. UnaryServerInterceptor panics if mem is nil.
func UnaryServerInterceptor(mem blockalloc.Allocator, opts ...Option) grpc.UnaryServerInterceptor {
	i := newInterceptor("UnaryServerInterceptor", mem, opts)
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		ctx, r, attributes := i.start(ctx, info.FullMethod, true)
		defer r.End() // itself, for a panic to be recorded
		defer i.record(ctx, r, attributes)
		return handler(ctx, req)
	}
}

// StreamServerInterceptor is [UnaryServerInterceptor] for streams of either side or both. The handler has the region in the
// stream's context. It costs one allocation more, of the stream with that context.
func StreamServerInterceptor(mem blockalloc.Allocator, opts ...Option) grpc.StreamServerInterceptor {
	i := newInterceptor("StreamServerInterceptor", mem, opts)
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, r, attributes := i.start(ss.Context(), info.FullMethod, srv != nil)
		defer r.End()
		defer i.record(ctx, r, attributes)
		return handler(srv, &stream{ss, ctx})
	}
}

// A stream is a ServerStream with another context.
type stream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *stream) Context() context.Context { return s.ctx }

type interceptor struct {
	mem        *alloctrace.Proxy
	byMethod   *sync.Map // of children of mem by their names, nil if there are none
	options    []tracer.Option
	histograms *requests.Histograms
}

func newInterceptor(name string, mem blockalloc.Allocator, opts []Option) *interceptor {
	if mem == nil {
		panic("tracegrpc: " + name + "(nil): pass an allocator, such as a Proxy of alloctrace.Wrap(blockalloc.Default())")
	}
	var c config
	for _, o := range opts {
		o.apply(&c)
	}
	proxy, ok := mem.(*alloctrace.Proxy)
	if !ok {
		if c.children {
			panic(fmt.Sprintf("tracegrpc: %s(%T): WithChildren: pass a Proxy, whose children can be seen, such as alloctrace.Wrap(blockalloc.Default())", name, mem))
		}
		proxy = alloctrace.Wrap(mem) // once, and not in each call
	}
	i := &interceptor{mem: proxy, options: c.region, histograms: requests.NewHistograms(ScopeName, c.meters)}
	if c.children {
		i.byMethod = new(sync.Map)
	}
	return i
}

// allocator returns what the calls of a method are regions of.
func (i *interceptor) allocator(method string) *alloctrace.Proxy {
	if i.byMethod == nil {
		return i.mem
	}
	child, ok := i.byMethod.Load(method)
	if !ok { // of several calls at once one makes the child
		child, _ = i.byMethod.LoadOrStore(method, sync.OnceValue(func() *alloctrace.Proxy { return i.mem.Child(text.Name(method)) }))
	}
	return child.(func() *alloctrace.Proxy)()
}

// start begins the region of a call. A method that is not known is what a client says it is, true or not.
func (i *interceptor) start(ctx context.Context, fullMethod string, known bool) (context.Context, *tracer.Region, []attribute.KeyValue) {
	name := "unknown method"
	var attributes []attribute.KeyValue
	if known {
		name = strings.TrimPrefix(fullMethod, "/")
		service, method, _ := strings.Cut(name, "/")
		attributes = []attribute.KeyValue{attribute.String("rpc.service", text.Name(service)), attribute.String("rpc.method", text.Name(method))}
	}
	var r *tracer.Region
	mem := i.allocator(name)
	if s := trace.SpanContextFromContext(ctx); s.IsValid() && !s.IsRemote() {
		ctx, r = tracer.InSpan(ctx, mem, i.options...)
	} else {
		ctx, r = tracer.Start(ctx, name, mem, i.options...)
	}
	return ctx, r, attributes
}

// record records a call just before its region ends.
func (i *interceptor) record(ctx context.Context, r *tracer.Region, attributes []attribute.KeyValue) {
	r.SetAttributes(attributes...) // those of blocks that outlive the call, too
	i.histograms.Record(ctx, r.Summary(), requests.NewLabels(attributes...))
}
