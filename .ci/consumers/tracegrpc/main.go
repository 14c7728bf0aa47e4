// Tracegrpc has the calls of a gRPC server as regions.
package main

import (
	"google.golang.org/grpc"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/tracegrpc"
)

func main() {
	mem := alloctrace.Wrap(blockalloc.Default())
	grpc.NewServer(
		grpc.UnaryInterceptor(tracegrpc.UnaryServerInterceptor(mem)),
		grpc.StreamInterceptor(tracegrpc.StreamServerInterceptor(mem)),
	).Stop()
}
