package test_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"sync"
	"testing"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/tracegrpc"
	"github.com/alloctrace/alloctrace/tracer"
)

const (
	unary   = "grpc.testing.TestService/UnaryCall"
	duplex  = "grpc.testing.TestService/FullDuplexCall"
	inUnary = "rpc.method=UnaryCall,rpc.service=grpc.testing.TestService"
	inDuple = "rpc.method=FullDuplexCall,rpc.service=grpc.testing.TestService"
)

// A service allocates as many bytes as a message says.
type service struct {
	pb.UnimplementedTestServiceServer
	mem *alloctrace.Proxy
}

func (s *service) take(ctx context.Context, size int32) error {
	if size < 0 {
		panic(fmt.Sprint("a size of ", size))
	}
	view := s.mem.Child("messages").WithContext(ctx)
	b, err := view.Allocate(blockalloc.Layout{Size: uintptr(size), Align: 8})
	if err != nil {
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	return view.Free(b)
}

func (s *service) UnaryCall(ctx context.Context, q *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	return &pb.SimpleResponse{}, s.take(ctx, q.ResponseSize)
}

func (s *service) FullDuplexCall(stream pb.TestService_FullDuplexCallServer) error {
	for {
		q, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = s.take(stream.Context(), q.ResponseParameters[0].Size)
		}
		if err == nil {
			err = stream.Send(&pb.StreamingOutputCallResponse{})
		}
		if err != nil {
			return err
		}
	}
}

// start runs a server on the loopback until stop is called, and returns a client of it.
func start(t *testing.T, mem *alloctrace.Proxy, opts ...grpc.ServerOption) (client pb.TestServiceClient, stop func()) {
	return serve(t, func(s *grpc.Server) {
		if mem != nil {
			pb.RegisterTestServiceServer(s, &service{mem: mem})
		}
	}, opts...)
}

// serve does so with the services that register adds.
func serve(t *testing.T, register func(*grpc.Server), opts ...grpc.ServerOption) (client pb.TestServiceClient, stop func()) {
	t.Helper()
	s := listen(t, register, opts...)
	return s.dial(t), s.stop
}

// A server is one on the loopback, with its clients.
type server struct {
	target  string
	clients []*grpc.ClientConn
	stop    func() // closes the connections, and waits for what ends after the answer, spans too
}

func listen(t *testing.T, register func(*grpc.Server), opts ...grpc.ServerOption) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(opts...)
	register(g)
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	s := &server{target: l.Addr().String()}
	s.stop = sync.OnceFunc(func() {
		for _, c := range s.clients {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		g.GracefulStop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(s.stop)
	return s
}

// dial returns another client.
func (s *server) dial(t *testing.T, opts ...grpc.DialOption) pb.TestServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(s.target, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	s.clients = append(s.clients, conn)
	return pb.NewTestServiceClient(conn)
}

// interceptors are those of mem, whose spans and records go to s.
func (s *sdk) interceptors(mem blockalloc.Allocator) []grpc.ServerOption {
	opts := []tracegrpc.Option{tracegrpc.WithMeterProvider(s.meter), tracegrpc.WithRegion(tracer.WithTracerProvider(s.tracer))}
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(tracegrpc.UnaryServerInterceptor(mem, opts...)),
		grpc.ChainStreamInterceptor(tracegrpc.StreamServerInterceptor(mem, opts...)),
	}
}

// talk sends so many messages of that size in one stream.
func talk(ctx context.Context, client pb.TestServiceClient, messages int, size int32) error {
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	for range messages {
		if err := stream.Send(&pb.StreamingOutputCallRequest{ResponseParameters: []*pb.ResponseParameters{{Size: size}}}); err != nil {
			return err
		}
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("after the last message: %w", err)
	}
	return nil
}

// TestCalls: a call is one region, on otelgrpc's span if there is one, whatever the order of options.
func TestCalls(t *testing.T) {
	for _, with := range []string{"alone", "otelgrpc first", "otelgrpc last"} {
		t.Run(with, func(t *testing.T) {
			s, mem := newSDK(t), alloctest.New(t)
			opts := s.interceptors(mem)
			otel := grpc.StatsHandler(otelgrpc.NewServerHandler(otelgrpc.WithTracerProvider(s.tracer), otelgrpc.WithMeterProvider(s.meter)))
			switch with {
			case "otelgrpc first":
				opts = append([]grpc.ServerOption{otel}, opts...)
			case "otelgrpc last":
				opts = append(opts, otel)
			}
			client, stop := start(t, mem, opts...)
			if _, err := client.UnaryCall(t.Context(), &pb.SimpleRequest{ResponseSize: 1000}); err != nil {
				t.Fatal(err)
			}
			if err := talk(t.Context(), client, 3, 200); err != nil {
				t.Fatal(err)
			}
			stop()
			got := make(map[string]any)
			for _, span := range s.spans.Ended() {
				got[span.Name()] = attributeOf(span, "allocator.memory.allocated")
				if ours := span.InstrumentationScope().Name == tracer.ScopeName; ours != (with == "alone") {
					t.Errorf("the span %s is of %s", span.Name(), span.InstrumentationScope().Name)
				}
				if method := attributeOf(span, "rpc.method"); method != "UnaryCall" && with == "alone" && span.Name() == unary {
					t.Errorf("the span %s has rpc.method %v", span.Name(), method)
				}
			}
			if want := map[string]any{unary: int64(1000), duplex: int64(600)}; !maps.Equal(got, want) || len(s.spans.Ended()) != 2 {
				t.Errorf("spans of %v, want %v", got, want)
			}
			for histogram, want := range map[string]map[string]total{
				"allocator.request.allocated": {inUnary: {1, 1000}, inDuple: {1, 600}},
				"allocator.request.peak":      {inUnary: {1, 1000}, inDuple: {1, 200}},
				"allocator.request.escaped":   {},
			} {
				if got := s.totals(t, histogram); !maps.Equal(got, want) {
					t.Errorf("%s has %v, want %v", histogram, got, want)
				}
			}
		})
	}
}

// TestStatsHandler: why the package is none of these. gRPC ends otelgrpc's span before that of a handler after it.
func TestStatsHandler(t *testing.T) {
	s, mem := newSDK(t), alloctest.New(t)
	late := new(recordingAtEnd)
	client, stop := start(t, mem, grpc.StatsHandler(otelgrpc.NewServerHandler(otelgrpc.WithTracerProvider(s.tracer))), grpc.StatsHandler(late))
	if _, err := client.UnaryCall(t.Context(), &pb.SimpleRequest{}); err != nil {
		t.Fatal(err)
	}
	stop()
	if late.began != 1 || late.recording != 0 || late.ended != 1 {
		t.Errorf("%+v: use a stats.Handler, which is simpler, if the span is there at the end", late)
	}
}

// TestRemoteParent: the span of another process, which a propagator has put into the context, is the parent of the call's own.
func TestRemoteParent(t *testing.T) {
	s, mem := newSDK(t), alloctest.New(t)
	parent := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{2}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
	client, stop := start(t, mem, append(s.interceptors(mem), grpc.StatsHandler(&recordingAtEnd{remote: parent}))...)
	if _, err := client.UnaryCall(t.Context(), &pb.SimpleRequest{ResponseSize: 5}); err != nil {
		t.Fatal(err)
	}
	stop()
	if spans := s.spans.Ended(); len(spans) != 1 || spans[0].Parent().SpanID() != parent.SpanID() || allocatedOf(spans[0]) != 5 {
		t.Errorf("the spans are %v", spans)
	}
}

// TestUnknownMethods: a client cannot make up attributes or names of spans.
func TestUnknownMethods(t *testing.T) {
	s, mem := newSDK(t), alloctest.New(t)
	client, stop := start(t, nil, append(s.interceptors(mem), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		return (&service{mem: mem}).take(stream.Context(), 30)
	}))...)
	stream, err := client.FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	stop()
	spans := s.spans.Ended()
	if len(spans) != 1 || spans[0].Name() != "unknown method" || attributeOf(spans[0], "rpc.method") != nil || attributeOf(spans[0], "allocator.memory.allocated") != int64(30) {
		t.Errorf("the spans are %v", spans)
	}
	if got, want := s.totals(t, "allocator.request.allocated"), (map[string]total{"": {1, 30}}); !maps.Equal(got, want) {
		t.Errorf("recorded is %v, want %v", got, want)
	}
}

// TestPanics: a panic of the handler goes on with its value, and the span has it.
func TestPanics(t *testing.T) {
	s, mem := newSDK(t), alloctest.New(t)
	var got []any
	recovered := func(err *error) {
		if v := recover(); v != nil {
			got = append(got, v)
			*err = status.Error(codes.Internal, "panic")
		}
	}
	opts := append([]grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, q any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (_ any, err error) {
			defer recovered(&err)
			return h(ctx, q)
		}),
		grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) (err error) {
			defer recovered(&err)
			return h(srv, stream)
		}),
	}, s.interceptors(mem)...)
	client, stop := start(t, mem, opts...)
	if _, err := client.UnaryCall(t.Context(), &pb.SimpleRequest{ResponseSize: -1}); status.Code(err) != codes.Internal {
		t.Errorf("the call returns %v", err)
	}
	if err := talk(t.Context(), client, 1, -2); status.Code(err) != codes.Internal {
		t.Errorf("the stream returns %v", err)
	}
	stop()
	if len(got) != 2 || got[0] != "a size of -1" || got[1] != "a size of -2" {
		t.Errorf("the panics are %v", got)
	}
	for _, span := range s.spans.Ended() {
		if len(span.Events()) != 1 || span.Events()[0].Name != "exception" {
			t.Errorf("the span %s has the events %v", span.Name(), span.Events())
		}
	}
	if n := len(s.spans.Ended()); n != 2 || len(s.totals(t, "allocator.request.allocated")) != 2 {
		t.Errorf("%d spans and the records %v", n, s.totals(t, "allocator.request.allocated"))
	}
}

// TestCallsAtOnce: each call and each stream has its own bytes, and mem their sum.
func TestCallsAtOnce(t *testing.T) {
	const clients, each = 8, 20
	s, mem := newSDK(t), alloctest.New(t)
	client, stop := start(t, mem, s.interceptors(mem)...)
	var wg sync.WaitGroup
	for i := range int32(clients) {
		wg.Go(func() {
			for j := range int32(each) {
				size := each*i + j + 1
				if _, err := client.UnaryCall(t.Context(), &pb.SimpleRequest{ResponseSize: size}); err != nil {
					t.Error(err)
				}
				if err := talk(t.Context(), client, 4, size); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	stop()
	want, got := make(map[string]int), make(map[string]int)
	for size := 1; size <= clients*each; size++ {
		want[fmt.Sprint(unary, " ", size)]++
		want[fmt.Sprint(duplex, " ", 4*size)]++
	}
	var sum int64
	for _, span := range s.spans.Ended() {
		got[fmt.Sprint(span.Name(), " ", attributeOf(span, "allocator.memory.allocated"))]++
		sum += allocatedOf(span)
	}
	if !maps.Equal(got, want) {
		t.Errorf("spans are %v, want %v", got, want)
	}
	if n := mem.Stats().AllocatedBytes; n != sum {
		t.Errorf("the calls have %d bytes, mem %d", sum, n)
	}
}

func allocatedOf(span sdktrace.ReadOnlySpan) int64 {
	n, _ := attributeOf(span, "allocator.memory.allocated").(int64)
	return n
}

// TestNil: nil is refused at once. An allocator that is no Proxy is none the worse.
func TestNil(t *testing.T) {
	tracegrpc.UnaryServerInterceptor(blockalloc.Null{})
	for name, f := range map[string]func(){
		"UnaryServerInterceptor":  func() { tracegrpc.UnaryServerInterceptor(nil) },
		"StreamServerInterceptor": func() { tracegrpc.StreamServerInterceptor(nil) },
	} {
		want := "tracegrpc: " + name + "(nil): pass an allocator, such as a Proxy of alloctrace.Wrap(blockalloc.Default())"
		func() {
			defer func() {
				if got := recover(); got != want {
					t.Errorf("panic %v, want %q", got, want)
				}
			}()
			f()
		}()
	}
}
