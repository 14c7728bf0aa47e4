package main

import (
	"bytes"
	"context"
	"errors"
	"io"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
	"github.com/alloctrace/alloctrace/tracer"
)

// A message has a text.
type message = wrapperspb.BytesValue

const service = "alloctrace.example.Echo"

// description is what protoc would make of a service with a method Upper, of one text each way, and a method Join, of many texts
// one way.
var description = grpc.ServiceDesc{
	ServiceName: service,
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Upper", Handler: func(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		q := new(message)
		if err := decode(q); err != nil {
			return nil, err
		}
		return interceptor(ctx, q, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/" + service + "/Upper"}, func(ctx context.Context, q any) (any, error) {
			return srv.(*load).upper(ctx, q.(*message))
		})
	}}},
	Streams: []grpc.StreamDesc{{StreamName: "Join", ClientStreams: true, Handler: func(srv any, stream grpc.ServerStream) error {
		return srv.(*load).join(stream)
	}}},
}

// upper answers with the text in upper case, which it makes in memory of the call's method. Its header is the trace of the call.
func (l *load) upper(ctx context.Context, q *message) (*message, error) {
	mine := tracer.FromContext(ctx).Allocator()
	b, err := mine.Allocate(blockalloc.Layout{Size: uintptr(len(q.Value)), Align: 64})
	if err != nil {
		return nil, err
	}
	if n := l.uppers.Add(1); !l.leak || n%100 != 0 {
		defer mine.Free(b)
	}
	for i, c := range q.Value {
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		b.Bytes()[i] = c
	}
	_ = grpc.SetHeader(ctx, metadata.Pairs("trace", trace.SpanContextFromContext(ctx).TraceID().String()))
	return &message{Value: bytes.Clone(b.Bytes()[:len(q.Value)])}, nil // gRPC writes it after the block is freed
}

// join answers with all texts of a stream.
func (l *load) join(stream grpc.ServerStream) error {
	all := typed.NewBuffer(tracer.FromContext(stream.Context()).Allocator())
	defer all.Free()
	for {
		q := new(message)
		if err := stream.RecvMsg(q); errors.Is(err, io.EOF) {
			return stream.SendMsg(&message{Value: all.Bytes()})
		} else if err != nil {
			return err
		}
		if _, err := all.Write(q.Value); err != nil {
			return err
		}
	}
}

// upper calls the method, and returns the trace of the call.
func upper(ctx context.Context, conn *grpc.ClientConn, value []byte) (answer []byte, trace string, err error) {
	var a message
	var header metadata.MD
	if err := conn.Invoke(ctx, "/"+service+"/Upper", &message{Value: value}, &a, grpc.Header(&header)); err != nil {
		return nil, "", err
	}
	if id := header.Get("trace"); len(id) > 0 {
		trace = id[0]
	}
	return a.Value, trace, nil
}

// join calls the method with the parts, or cancels before the answer.
func join(ctx context.Context, conn *grpc.ClientConn, cancelled bool, parts ...[]byte) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(ctx, &description.Streams[0], "/"+service+"/Join")
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		if err := stream.SendMsg(&message{Value: p}); err != nil {
			return nil, err
		}
	}
	if cancelled {
		return nil, nil
	}
	var a message
	if err := errors.Join(stream.CloseSend(), stream.RecvMsg(&a)); err != nil {
		return nil, err
	}
	return a.Value, nil
}
