package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/alloctrace/alloctrace/internal/jaegertest"
)

// Some tests run the program as a process of its own: the test binary, told by this variable to be the program.
const beProgram = "SERVICE_TEST_BE_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(beProgram) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// requireAll says that this run must leave nothing out, as CI's.
var requireAll = os.Getenv("ALLOCTRACE_REQUIRE_ALL") == "1"

// An answer is what the service says of a request.
type answer struct {
	status    int
	body      string
	traceID   string
	allocated int64
}

// send has a service at a URL answer a request.
func send(t *testing.T, method, url, body string) (a answer) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return a
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	a = answer{status: resp.StatusCode, body: string(text), traceID: resp.Header.Get("X-Trace-Id")}
	if n := resp.Header.Get("X-Allocated"); n != "" {
		if a.allocated, err = strconv.ParseInt(n, 10, 64); err != nil {
			t.Error(err)
		}
	}
	return a
}

// A program is the service as a process of its own.
type program struct {
	url    string
	stderr *output
	end    func() error // has it shut down
}

type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// startProgram runs the program with the arguments, whose spans go to a collector. Settings of OpenTelemetry around
// the test are left out.
func startProgram(t *testing.T, collector string, args ...string) *program {
	t.Helper()
	p := &program{stderr: new(output)}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute) // a hang fails, and does not hang the tests
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], append([]string{"-addr=127.0.0.1:0"}, args...)...)
	cmd.Env = append(jaegertest.Environ(), beProgram+"=1", "OTEL_EXPORTER_OTLP_PROTOCOL=http/json", "OTEL_EXPORTER_OTLP_ENDPOINT="+collector)
	cmd.Stdout, cmd.Stderr = p.stderr, p.stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	p.end = sync.OnceValue(func() error {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		return <-exited
	})
	t.Cleanup(func() { _ = p.end() })
	listening := regexp.MustCompile(`http://127\.0\.0\.1:\d+`)
	for ; p.url == "" && ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		p.url = listening.FindString(p.stderr.String())
	}
	return p
}

// TestProgram: the program does what it says, its spans have the bytes of its answers, and it shuts down clean.
func TestProgram(t *testing.T) {
	collector, sent := jaegertest.Collect(t)
	p := startProgram(t, collector)
	requests := make(map[string]answer) // by trace
	for _, c := range []struct{ method, path, body, want, name string }{
		{"PUT", "/pages/7", "what a cache keeps", "", "PUT /pages/{n}"},
		{"GET", "/pages/7", "", "what a cache keeps", "GET /pages/{n}"},
		{"PUT", "/pages/7", "shorter", "", "PUT /pages/{n}"},
		{"GET", "/pages/7", "", "shorter", "GET /pages/{n}"},
		{"GET", "/pages/8", "", "", "GET /pages/{n}"},
		{"POST", "/sort", "b\nc\na\n", "a\nb\nc\n", "POST /sort"},
		{"POST", "/index?word=a", "a rose is a rose", "2 times among 3 different words\n", "POST /index"},
		{"POST", "/index?word=x", strings.Repeat("y ", 200_000), "0 times among 1 different words\n", "POST /index"},
		{"GET", "/pages/64", "", "strconv.ParseUint: parsing \"64\": value out of range\n", "GET /pages/{n}"},
		{"POST", "/sort", strings.Repeat("x", 2<<20), "http: request body too large\n", "POST /sort"},
	} {
		a := send(t, c.method, p.url+c.path, c.body)
		if a.body != c.want || (a.status == http.StatusOK) != !strings.Contains(c.want, ": ") {
			t.Errorf("%s %s: %d %q, want %q", c.method, c.path, a.status, a.body, c.want)
		}
		a.body = c.name
		requests[a.traceID] = a
	}
	metrics := send(t, "GET", p.url+"/metrics", "").body
	for _, want := range []string{
		`(?m)^allocator_request_allocated_bytes_count\{.*http_route="/pages/\{n\}".*\} 4$`, // of GET
		`(?m)^allocator_memory_used_bytes\{allocator_child="cache",allocator_name="service"\} [1-9]\d*$`,
	} {
		if !regexp.MustCompile(want).MatchString(metrics) {
			t.Errorf("/metrics lacks %s:\n%s", want, metrics)
		}
	}
	if _, err := profile.ParseData([]byte(send(t, "GET", p.url+"/debug/pprof/offheap", "").body)); err != nil {
		t.Errorf("/debug/pprof/offheap: %v", err)
	}
	if body := send(t, "GET", p.url+"/debug/alloctrace/api/page", "").body; !strings.Contains(body, `"leaks":""`) {
		t.Errorf("the page has no leaks to show: %s", body)
	}
	stream, err := http.Get(p.url + "/debug/alloctrace/api/stream") // which the server ends
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	if err := p.end(); err != nil {
		t.Errorf("%v: %s", err, p.stderr)
	}
	spans := make(map[string]jaegertest.Span) // by trace
	for _, s := range sent() {
		if s.ParentID == "" && !strings.HasPrefix(s.Name, "block") { // the life of a block that was sampled
			spans[s.TraceID] = s
		}
	}
	for id, a := range requests {
		if s := spans[id]; s.Name != a.body || s.Attributes["allocator.memory.allocated"] != a.allocated || s.Resource["service.name"] != "service" {
			t.Errorf("the span of %s is %+v, want %d bytes", a.body, s, a.allocated)
		}
	}
	if len(requests) != 10 || len(spans) != 10 {
		t.Errorf("%d requests and %d spans, want 10; those of /metrics and /debug/pprof have none", len(requests), len(spans))
	}
}

// TestJaeger finds a request in a real Jaeger by the id that its answer has.
func TestJaeger(t *testing.T) {
	j := jaegertest.Start(t)
	p := startProgram(t, j.HTTPEndpoint())
	a := send(t, "POST", p.url+"/sort", strings.Repeat("line\n", 1000))
	if err := p.end(); err != nil {
		t.Errorf("%v: %s", err, p.stderr)
	}
	got := j.Trace(a.traceID, 1)
	if len(got) != 1 || got[0].Name != "POST /sort" || got[0].Attributes["http.route"] != "/sort" || fmt.Sprint(got[0].Attributes["allocator.memory.allocated"]) != fmt.Sprint(a.allocated) {
		t.Errorf("Jaeger has %+v, want %d bytes", got, a.allocated)
	}
}
