package test_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/experimental"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/backstop"
	"github.com/alloctrace/alloctrace/blockalloc/grpcmem"
	"github.com/alloctrace/alloctrace/exporters/tracegrpc"
	"github.com/alloctrace/alloctrace/tracer"
)

var _ mem.BufferPool = (*grpcmem.Pool)(nil)

// TestThreshold: gRPC never puts the buffers that a Pool takes from the Go heap, and puts those of the allocator.
func TestThreshold(t *testing.T) {
	counted := alloctest.New(t)
	pool := grpcmem.New(counted, grpcmem.Options{})
	for _, length := range []int{1 << 10, 1<<10 + 1} {
		before := counted.Stats().Allocations
		b := mem.NewBuffer(pool.Get(length), pool)
		if ours := counted.Stats().Allocations > before; ours == mem.IsBelowBufferPoolingThreshold(length) {
			t.Errorf("a buffer of %d bytes is the allocator's: %v", length, ours)
		}
		b.Free()
	}
	alloctest.AssertLive(t, counted, 0, 0)
}

// pools are those of a server and its clients, whose counts are children of one Proxy.
type pools struct {
	mem            *alloctrace.Proxy
	server, client *grpcmem.Pool
	drops          atomic.Int64 // that were reported with the gRPC function that took the buffer
}

func newPools(t *testing.T, mem *alloctrace.Proxy) *pools {
	p := &pools{mem: mem}
	o := grpcmem.Options{
		OnError: func(err error) { t.Error(err) },
		OnDrop: func(d backstop.Drop) {
			if f := d.Frames(); len(f) > 0 && strings.HasPrefix(f[0].Function, "google.golang.org/grpc/") {
				p.drops.Add(1)
			} else {
				t.Errorf("%v: gRPC has not taken that buffer", d)
			}
		},
	}
	p.server, p.client = grpcmem.New(mem.Child("server"), o), grpcmem.New(mem.Child("client"), o)
	return p
}

// shutdown wants no buffer to be in use any more, and returns how many were dropped.
func (p *pools) shutdown(t *testing.T) (dropped int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := errors.Join(p.server.Shutdown(ctx), p.client.Shutdown(ctx)); err != nil {
		t.Error(err)
	}
	server, client := p.server.Stats(), p.client.Stats()
	t.Logf("server %+v, client %+v", server, client)
	if foreign := server.Foreign + client.Foreign; foreign != 0 {
		t.Errorf("gRPC put %d buffers that it did not get here", foreign)
	}
	if dropped = server.DroppedBlocks + client.DroppedBlocks; p.drops.Load() != dropped {
		t.Errorf("%d buffers were dropped, and %d reported", dropped, p.drops.Load())
	}
	return dropped
}

// echo answers each message with its payload.
type echo struct {
	pb.UnimplementedTestServiceServer
}

func (echo) UnaryCall(_ context.Context, q *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	return &pb.SimpleResponse{Payload: q.Payload}, nil
}

func (echo) FullDuplexCall(stream pb.TestService_FullDuplexCallServer) error {
	for {
		q, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = stream.Send(&pb.StreamingOutputCallResponse{Payload: q.Payload})
		}
		if err != nil {
			return err
		}
	}
}

// payload is of size bytes that no other client sends, and that do not compress to less than half.
func payload(client, size int) []byte {
	b := make([]byte, size)
	x := uint32(client)*2654435761 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

// TestEcho: what comes back is what was sent, of all sizes, compressed or not, by calls and streams of which some are cancelled,
// from several clients at once. In the end no memory is live: what gRPC has dropped was freed and reported.
func TestEcho(t *testing.T) {
	const clients, rounds = 4, 10
	sizes := []int{0, 1, 1024, 1025, 4 << 10, 16 << 10, 16<<10 + 1, 70_000, 256 << 10, 1 << 20}
	p := newPools(t, alloctest.New(t))
	s := listen(t, func(g *grpc.Server) { pb.RegisterTestServiceServer(g, echo{}) }, experimental.BufferPool(p.server))
	var conns []pb.TestServiceClient
	for range 2 {
		conns = append(conns, s.dial(t, experimental.WithBufferPool(p.client)))
	}
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			conn := conns[client%len(conns)]
			for round := range rounds {
				size := sizes[(client*7+round)%len(sizes)]
				body := payload(client, size)
				var opts []grpc.CallOption
				if round%3 == 0 {
					opts = append(opts, grpc.UseCompressor(gzip.Name))
				}
				r, err := conn.UnaryCall(t.Context(), &pb.SimpleRequest{Payload: &pb.Payload{Body: body}}, opts...)
				if err != nil || !bytes.Equal(r.GetPayload().GetBody(), body) {
					t.Errorf("a call with %d bytes returns %d, %v", size, len(r.GetPayload().GetBody()), err)
				}
				if err := stream(t.Context(), conn, body, round%4 == 1, opts...); err != nil {
					t.Errorf("a stream with %d bytes: %v", size, err)
				}
			}
		})
	}
	wg.Wait()
	s.stop()
	t.Logf("%d of %d buffers were dropped", p.shutdown(t), p.mem.Stats().Allocations)
	for name, s := range p.mem.ChildStats() {
		if s.Allocations == 0 || s.LiveBytes != 0 {
			t.Errorf("the %s has %d buffers, and %d bytes live", name, s.Allocations, s.LiveBytes)
		}
	}
	alloctest.AssertLive(t, p.mem, 0, 0)
}

// stream sends three messages and reads what comes back, or cancels when the first has come.
func stream(ctx context.Context, conn pb.TestServiceClient, body []byte, cancelled bool, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := conn.FullDuplexCall(ctx, opts...)
	if err != nil {
		return err
	}
	const messages = 3
	sent := make(chan error, 1)
	go func() {
		var err error
		for i := 0; i < messages && err == nil; i++ {
			err = s.Send(&pb.StreamingOutputCallRequest{Payload: &pb.Payload{Body: body}})
		}
		sent <- errors.Join(err, s.CloseSend())
	}()
	for range messages {
		r, err := s.Recv()
		if err != nil {
			return err
		}
		if !bytes.Equal(r.GetPayload().GetBody(), body) {
			return fmt.Errorf("%d bytes come back", len(r.GetPayload().GetBody()))
		}
		if cancelled {
			cancel()
			<-sent
			return nil
		}
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("after the last message: %w", err)
	}
	return <-sent
}

// A leakingPool does not put the first buffer back.
type leakingPool struct {
	*grpcmem.Pool
	kept atomic.Pointer[[]byte]
}

func (p *leakingPool) Put(b *[]byte) {
	if !p.kept.CompareAndSwap(nil, b) {
		p.Pool.Put(b)
	}
}

// TestPlantedLeak: a buffer that somebody holds for ever is live in the end, and neither dropped nor lost.
func TestPlantedLeak(t *testing.T) {
	counted := alloctrace.Wrap(blockalloc.Default())
	pool := &leakingPool{Pool: grpcmem.New(counted.Child("server"), grpcmem.Options{OnError: func(err error) { t.Error(err) }})}
	client, stop := serve(t, func(g *grpc.Server) { pb.RegisterTestServiceServer(g, echo{}) }, experimental.BufferPool(pool))
	for range 5 {
		if _, err := client.UnaryCall(t.Context(), &pb.SimpleRequest{Payload: &pb.Payload{Body: make([]byte, 4000)}}); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	for counted.Stats().LiveBlocks > 1 { // gRPC's last goroutines may have to end
		if err := backstop.Collect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := counted.ChildStats()["server"]; got.LiveBlocks != 1 || got.LiveBytes < 4000 {
		t.Errorf("%d blocks of %d bytes are live, want the one that was kept", got.LiveBlocks, got.LiveBytes)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := pool.Shutdown(ended); !errors.Is(err, blockalloc.ErrLive) {
		t.Errorf("Shutdown: %v", err)
	}
	pool.Pool.Put(pool.kept.Load())
	if err := errors.Join(pool.Shutdown(t.Context()), counted.Close()); err != nil {
		t.Error(err)
	}
}

// unread is a service that ends each stream when so many messages have arrived, of which it has read one.
type unread struct {
	pb.UnimplementedTestServiceServer
	mem      *alloctrace.Proxy
	messages int64
	arrived  int64 // of the streams before
}

func (u *unread) FullDuplexCall(stream pb.TestService_FullDuplexCallServer) error {
	u.arrived += u.messages
	for u.mem.Stats().Allocations < u.arrived && stream.Context().Err() == nil {
		runtime.Gosched()
	}
	if _, err := stream.Recv(); err != nil {
		return err
	}
	return status.Error(codes.Aborted, "enough")
}

// TestDroppedByGRPC: gRPC drops the buffers of messages that were not read when their stream ended. They are
// freed, counted as dropped, and no leak.
func TestDroppedByGRPC(t *testing.T) {
	const streams, messages, size = 20, 6, 4 << 10 // a stream's window has 64 KiB
	p := newPools(t, alloctest.New(t))
	client, stop := serve(t, func(s *grpc.Server) {
		pb.RegisterTestServiceServer(s, &unread{mem: p.mem, messages: messages})
	}, experimental.BufferPool(p.server))
	for range streams {
		stream, err := client.FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range messages {
			if err := stream.Send(&pb.StreamingOutputCallRequest{Payload: &pb.Payload{Body: make([]byte, size)}}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := stream.Recv(); status.Code(err) != codes.Aborted {
			t.Fatalf("the stream ended with %v", err)
		}
	}
	stop()
	if dropped := p.shutdown(t); dropped == 0 || dropped > streams*(messages-1) {
		t.Errorf("%d buffers were dropped, want some, %d at most", dropped, streams*(messages-1))
	}
	alloctest.AssertLive(t, p.mem, 0, 0)
}

// keeping is a service whose handlers allocate for each message, and keep what a call with the size 13 has asked for.
type keeping struct {
	service
	kept []blockalloc.Block
}

func (k *keeping) UnaryCall(ctx context.Context, q *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	mine := tracer.FromContext(ctx).Allocator()
	b, err := mine.Allocate(blockalloc.Layout{Size: uintptr(q.ResponseSize), Align: 8})
	if err != nil {
		return nil, status.Error(codes.ResourceExhausted, err.Error())
	}
	if q.ResponseSize == 13 {
		k.kept = append(k.kept, b)
		return &pb.SimpleResponse{}, nil
	}
	return &pb.SimpleResponse{}, mine.Free(b)
}

// TestChildren: with WithChildren the Proxy has a child for each method, with what is live there.
func TestChildren(t *testing.T) {
	s, counted := newSDK(t), alloctrace.Wrap(&blockalloc.Heap{}, alloctrace.WithName("server"))
	options := []tracegrpc.Option{tracegrpc.WithChildren(), tracegrpc.WithMeterProvider(s.meter), tracegrpc.WithRegion(tracer.WithTracerProvider(s.tracer))}
	k := &keeping{service: service{mem: counted}}
	running := listen(t, func(s *grpc.Server) { pb.RegisterTestServiceServer(s, k) },
		grpc.ChainUnaryInterceptor(tracegrpc.UnaryServerInterceptor(counted, options...)),
		grpc.ChainStreamInterceptor(tracegrpc.StreamServerInterceptor(counted, options...)),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			mine := tracer.FromContext(stream.Context()).Allocator()
			b, err := mine.Allocate(blockalloc.BlockLayout(64))
			return errors.Join(err, mine.Free(b))
		}))
	client := running.dial(t)
	for _, size := range []int32{100, 13, 200} {
		if _, err := client.UnaryCall(t.Context(), &pb.SimpleRequest{ResponseSize: size}); err != nil {
			t.Fatal(err)
		}
	}
	if err := talk(t.Context(), client, 3, 50); err != nil { // which allocates by a child of its own, in the region
		t.Fatal(err)
	}
	if err := running.clients[0].Invoke(t.Context(), "/made/Up", &pb.Empty{}, &pb.Empty{}); err == nil {
		t.Error("a call that is answered without a message succeeds")
	}
	running.stop()
	stats := counted.ChildStats()
	if got := stats[unary]; got.AllocatedBytes != 313 || got.LiveBytes != 13 || got.Allocations != 3 {
		t.Errorf("the child of %s has %+v", unary, got)
	}
	if got, ok := stats[duplex]; !ok || got.Allocations != 0 || stats["messages"].AllocatedBytes != 150 {
		t.Errorf("the child of %s has %+v, and that of the handler %+v", duplex, got, stats["messages"])
	}
	if got, ok := stats["unknown method"]; !ok || got.AllocatedBytes != 64 || len(stats) != 4 {
		t.Errorf("the child of methods that are not known has %+v, and there are %d children", got, len(stats))
	}
	for histogram, want := range map[string]total{inUnary: {3, 313}, inDuple: {1, 150}} {
		if got := s.totals(t, "allocator.request.allocated")[histogram]; got != want {
			t.Errorf("recorded of %s is %v, want %v", histogram, got, want)
		}
	}
	for _, b := range k.kept {
		if err := counted.Children()[0].Free(b); err != nil {
			t.Error(err)
		}
	}
	if err := counted.Close(); err != nil {
		t.Error(err)
	}
	defer func() {
		if got, want := recover(), "tracegrpc: UnaryServerInterceptor(blockalloc.Null): WithChildren: pass a Proxy, whose children can be seen, such as alloctrace.Wrap(blockalloc.Default())"; got != want {
			t.Errorf("panic %v, want %q", got, want)
		}
	}()
	tracegrpc.UnaryServerInterceptor(blockalloc.Null{}, options...)
}
