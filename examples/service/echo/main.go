// Echo is a gRPC server with clients, under load in one process. What the handlers allocate, and gRPC's own buffers, are outside
// the Go heap. In the end it prints who allocated how much, and what is live: nothing, unless -leak plants leaks.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"go.opentelemetry.io/otel"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/grpcmem"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/otlp"
	"github.com/alloctrace/alloctrace/exporters/tracegrpc"
	"github.com/alloctrace/alloctrace/tracer"
)

func main() {
	var l load
	flag.IntVar(&l.clients, "clients", 8, "clients at once")
	flag.IntVar(&l.rounds, "rounds", 200, "calls of each method that a client makes")
	flag.BoolVar(&l.leak, "leak", false, "have one in 100 calls of Upper forget to free its text")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, &l, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// run serves the load, and prints the counters. The error says what is still live.
func run(ctx context.Context, l *load, out io.Writer) (err error) {
	spans, err := otlp.New(ctx, otlp.Options{ServiceName: "echo"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, spans.Shutdown(context.WithoutCancel(ctx))) }()
	otel.SetTracerProvider(spans)
	slab, err := blockalloc.NewSlab(blockalloc.Default(), 64<<10)
	if err != nil {
		return err
	}
	lives := tracer.NewLifetimes(tracer.LifetimeOptions{Rate: 1, OldAge: time.Nanosecond})
	defer lives.Close()
	calls := alloctrace.Wrap(slab, alloctrace.WithName("calls"), alloctrace.WithHooks(lives)) // a child for each method
	buffers := alloctrace.Wrap(slab, alloctrace.WithName("buffers"))                          // of gRPC
	server, client := grpcmem.New(buffers.Child("server"), grpcmem.Options{}), grpcmem.New(buffers.Child("client"), grpcmem.Options{})

	err = l.serve(ctx, out, experimental.WithBufferPool(client),
		experimental.BufferPool(server),
		grpc.ChainUnaryInterceptor(tracegrpc.UnaryServerInterceptor(calls, tracegrpc.WithChildren())),
		grpc.ChainStreamInterceptor(tracegrpc.StreamServerInterceptor(calls, tracegrpc.WithChildren())))
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err = errors.Join(err, server.Shutdown(ending), client.Shutdown(ending)) // frees what gRPC has dropped
	lives.Checkpoint()                                                       // makes a span of each leak
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name string, s counter.Stats) {
		fmt.Fprintf(table, "%s\t%d blocks\t%s\tlive %s in %d\n", name, s.Allocations, counter.FormatBytes(s.AllocatedBytes), counter.FormatBytes(s.LiveBytes), s.LiveBlocks)
	}
	byMethod, bySide := calls.ChildStats(), buffers.ChildStats()
	row("Upper", byMethod[service+"/Upper"])
	row("Join", byMethod[service+"/Join"])
	row("gRPC's server", bySide["server"])
	row("gRPC's client", bySide["client"])
	_ = table.Flush()
	fmt.Fprintf(out, "gRPC dropped %d buffers, which were freed\n", server.Stats().DroppedBlocks+client.Stats().DroppedBlocks)
	return errors.Join(err, buffers.Close(), calls.Close())
}

// A load is what the clients do.
type load struct {
	clients, rounds int
	leak            bool
	uppers          atomic.Int64
}

// serve has a server answer the load, and stops it.
func (l *load) serve(ctx context.Context, out io.Writer, dial grpc.DialOption, opts ...grpc.ServerOption) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := grpc.NewServer(opts...)
	s.RegisterService(&description, l)
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	conn, err := grpc.NewClient(listener.Addr().String(), dial, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, l.clients)
	traces := make([]string, l.clients)
	for i := range l.clients {
		wg.Go(func() { traces[i], errs[i] = l.client(ctx, conn, i) })
	}
	wg.Wait()
	err = errors.Join(append(errs, conn.Close())...)
	s.GracefulStop()
	if l.clients > 0 {
		fmt.Fprintf(out, "a trace: %s\n", traces[0])
	}
	return errors.Join(err, <-served)
}

// client makes the calls of a client, and returns the id of the last one's trace.
func (l *load) client(ctx context.Context, conn *grpc.ClientConn, n int) (trace string, err error) {
	for round := range l.rounds {
		text := bytes.Repeat(fmt.Appendf(nil, "client %d, round %d\n", n, round), 1+100*round%5000) // up to 100 KB
		var got []byte
		if got, trace, err = upper(ctx, conn, text); err != nil {
			return "", err
		}
		if !bytes.Equal(got, bytes.ToUpper(text)) {
			return "", fmt.Errorf("client %d, round %d: Upper returns %d other bytes", n, round, len(got))
		}
		cancelled := round%10 == 9
		if got, err = join(ctx, conn, cancelled, text, text, text); err != nil {
			return "", err
		}
		if want := bytes.Repeat(text, 3); !cancelled && !bytes.Equal(got, want) {
			return "", fmt.Errorf("client %d, round %d: Join returns %d other bytes", n, round, len(got))
		}
	}
	return trace, nil
}
