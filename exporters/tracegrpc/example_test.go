package tracegrpc_test

import (
	"google.golang.org/grpc"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/tracegrpc"
)

func Example() {
	mem := alloctrace.Wrap(blockalloc.Default())
	server := grpc.NewServer(
		grpc.ChainUnaryInterceptor(tracegrpc.UnaryServerInterceptor(mem)),
		grpc.ChainStreamInterceptor(tracegrpc.StreamServerInterceptor(mem)),
	)
	defer server.Stop()
	// Register services, and Serve.
}
