package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/signal"
	"syscall"
	"time"

	_ "github.com/alloctrace/alloctrace/exporters/debugpage" // sets page.Serve
	"github.com/alloctrace/alloctrace/exporters/internal/page"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/hooks/blackbox"
)

func serveFlags(f *flag.FlagSet) func(args []string, out, errOut io.Writer) (int, error) {
	r := readingFlags(f, false)
	addr := f.String("addr", "127.0.0.1:0", "listen on this `ADDRESS`; port 0 is any that is free. The page answers this machine alone")
	return func(args []string, out, errOut io.Writer) (int, error) {
		if len(args) != 1 {
			return failed, errUsage
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		return r.serve(ctx, args[0], *addr, out, errOut)
	}
}

// serve serves the page of a file until ctx is done.
func (r *reading) serve(ctx context.Context, path, addr string, out, errOut io.Writer) (int, error) {
	source, status, problems, err := r.source(path, errOut)
	if err != nil {
		return failed, err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return failed, err
	}
	server := &http.Server{Handler: page.Serve(source, page.Access{}), ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	if _, err := fmt.Fprintf(out, "http://%s/\n", reachable(l.Addr())); err != nil {
		return failed, errors.Join(err, server.Close())
	}
	select {
	case err := <-ended:
		return failed, err
	case <-ctx.Done():
	}
	if err := server.Close(); err != nil {
		return failed, err
	}
	return status, problems
}

// reachable returns the host and port by which this machine reaches a listener: one of all addresses has none that a browser could name.
func reachable(addr net.Addr) string {
	if a, err := netip.ParseAddrPort(addr.String()); err == nil && a.Addr().IsUnspecified() {
		return fmt.Sprintf("localhost:%d", a.Port())
	}
	return addr.String()
}

// source returns what the page of a file shows, and what the program is to exit with for what is missing of it.
func (r *reading) source(path string, errOut io.Writer) (s page.Source, status int, problems, err error) {
	in, err := r.open(path, errOut)
	if errors.Is(err, recording.ErrFormat) {
		c, boxErr := blackbox.Open(path)
		if boxErr != nil {
			return nil, 0, nil, fmt.Errorf("%s is neither a recording nor a black box: %w; %w", path, err, boxErr)
		}
		if len(c.Damage) > 0 {
			status = damaged
		}
		return newBoxPage(path, c), status, nil, nil
	} else if err != nil {
		return nil, 0, nil, err
	}
	p := newRecordingPage(path, in)
	status, problems = statusOf(nil, &p.unknown)
	return p, status, problems, nil
}
