package jaegertest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace/internal/process"
)

// deadline bounds every wait: for Jaeger to start and for spans to show up.
// Both take milliseconds, but on a busy machine who knows.
const deadline = time.Minute

// A Jaeger is a running process. Its methods that query it call tb.Fatal on
// failure, so they belong on the test's own goroutine.
type Jaeger struct {
	tb     testing.TB
	log    *logReader
	addrs  addresses
	cmd    *exec.Cmd
	exited chan struct{}
	kill   sync.Once
	client http.Client
}

type options struct {
	ui     string
	config []string
}

// An Option changes what [Start] starts.
type Option func(*options)

// WithUI serves a built jaeger-ui, the folder that has its index.html, at
// [Jaeger.QueryURL]. Jaeger as a Go module comes with a placeholder only.
func WithUI(dir string) Option { return func(o *options) { o.ui = dir } }

// WithConfig merges YAML over the configuration that [Start] uses. Its receiver
// is otlp, with the protocols grpc and http.
func WithConfig(yaml string) Option { return func(o *options) { o.config = append(o.config, yaml) } }

// Start runs a Jaeger on free loopback ports, waits until it takes spans and
// kills it when the test and its cleanups that were registered later have
// ended. Any number may run at once. When the test has failed, the end of
// Jaeger's log is shown. See the package comment for where the binary comes
// from. A start takes seconds: the test is skipped unless ALLOCTRACE_REQUIRE_ALL is 1.
func Start(tb testing.TB, opts ...Option) *Jaeger {
	tb.Helper()
	if os.Getenv("ALLOCTRACE_REQUIRE_ALL") != "1" {
		tb.Skip("needs a real Jaeger: set ALLOCTRACE_REQUIRE_ALL=1, which builds one where there is none")
	}
	return startAnyway(tb, opts...)
}

// startAnyway is Start that skips no test if there is a binary already.
func startAnyway(tb testing.TB, opts ...Option) *Jaeger {
	tb.Helper()
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	return run(tb, true, append([]string{configYAML(o)}, o.config...))
}

// StartCollector runs the same binary as an OpenTelemetry collector: with the
// configurations given alone, each merged over the one before. They must have
// a receiver otlp with the protocols grpc and http. The Jaeger has no storage
// that can be queried.
func StartCollector(tb testing.TB, yaml ...string) *Jaeger {
	tb.Helper()
	return run(tb, false, append(yaml, telemetryYAML))
}

func run(tb testing.TB, query bool, configs []string) *Jaeger {
	tb.Helper()
	if !process.CanStart(tb) {
		tb.Skip("Jaeger would be a process")
	}
	path, err := find()
	if errors.Is(err, errNoBinary) {
		if os.Getenv("ALLOCTRACE_REQUIRE_ALL") != "1" {
			tb.Skipf("jaegertest: %v", err)
		}
		path, err = Build(tb.Context(), tb.Output())
	}
	if err != nil {
		tb.Fatalf("jaegertest.Start: %v", err)
	}
	j, err := start(tb, path, query, configs)
	if err != nil {
		tb.Fatalf("jaegertest.Start: %v", err)
	}
	return j
}

func start(tb testing.TB, path string, query bool, configs []string) (*Jaeger, error) {
	var args []string
	dir := tb.TempDir()
	for i, text := range configs {
		config := filepath.Join(dir, fmt.Sprintf("jaeger%d.yaml", i))
		if err := os.WriteFile(config, []byte(text), 0o666); err != nil {
			return nil, err
		}
		args = append(args, "--config", "file:"+config)
	}
	j := &Jaeger{tb: tb, log: newLogReader(query), exited: make(chan struct{}), client: http.Client{Transport: &http.Transport{}}}
	j.cmd = exec.Command(path, args...)
	j.cmd.Stdout, j.cmd.Stderr = j.log, j.log
	j.cmd.Env = environment()
	j.cmd.WaitDelay = 10 * time.Second
	if err := j.cmd.Start(); err != nil {
		return nil, err
	}
	tb.Cleanup(func() {
		j.Kill()
		j.client.CloseIdleConnections()
		if tb.Failed() {
			tb.Logf("the end of Jaeger's log:\n%s", tail(j.log.String(), 40))
		}
	})
	go func() { j.cmd.Wait(); close(j.exited) }()

	ctx, cancel := context.WithTimeout(tb.Context(), deadline)
	defer cancel()
	select {
	case j.addrs = <-j.log.ready:
		return j, nil
	case <-j.exited:
		return nil, fmt.Errorf("%s ended (%v) before it was ready:\n%s", path, j.cmd.ProcessState, tail(j.log.String(), 20))
	case <-ctx.Done():
		return nil, fmt.Errorf("%s was not ready in time (%w):\n%s", path, ctx.Err(), tail(j.log.String(), 20))
	}
}

// GRPCEndpoint returns the URL to send OTLP/gRPC to.
func (j *Jaeger) GRPCEndpoint() string { return "http://" + j.addrs.grpc }

// HTTPEndpoint returns the base URL to send OTLP/HTTP to, without /v1/traces.
func (j *Jaeger) HTTPEndpoint() string { return "http://" + j.addrs.http }

// QueryURL returns the base URL of the query API and the UI.
func (j *Jaeger) QueryURL() string { return "http://" + j.addrs.query }

// Kill ends the process at once, as a crash would, and waits until it is gone.
// Its ports then refuse connections. Later calls do nothing.
func (j *Jaeger) Kill() {
	j.kill.Do(func() { j.cmd.Process.Kill() })
	<-j.exited
}

// environment keeps the OpenTelemetry settings of the test from Jaeger, which
// would trace itself into its own storage.
func environment() []string { return append(Environ(), "OTEL_TRACES_SAMPLER=always_off") }
