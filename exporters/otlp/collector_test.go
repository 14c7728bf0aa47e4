package otlp

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/alloctrace/alloctrace/hooks"
)

// A collector is an OTLP server in this process. reply, which may be nil,
// decides the answer to each request: an error is a refusal.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer

	URL  string
	stop func()

	mu       sync.Mutex
	reply    func(ctx context.Context, request int, spans int) (*collectorpb.ExportTraceServiceResponse, error)
	requests int
	spans    []*tracepb.Span
	scopes   []*tracepb.ScopeSpans
	resource map[string]string
	header   http.Header // of the newest request
	path     string
	uri      string // path as it was sent
}

func (c *collector) Export(ctx context.Context, r *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	var spans []*tracepb.Span
	c.mu.Lock()
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		c.header = http.Header{}
		for k, vs := range md {
			for _, v := range vs {
				c.header.Add(k, v)
			}
		}
	}
	for _, rs := range r.ResourceSpans {
		c.resource = map[string]string{}
		for _, kv := range rs.GetResource().GetAttributes() {
			c.resource[kv.Key] = kv.GetValue().GetStringValue()
		}
		c.scopes = append(c.scopes, rs.ScopeSpans...)
		for _, ss := range rs.ScopeSpans {
			spans = append(spans, ss.Spans...)
		}
	}
	c.requests++
	n, reply := c.requests, c.reply
	c.mu.Unlock()

	resp := &collectorpb.ExportTraceServiceResponse{}
	if reply != nil {
		var err error
		if resp, err = reply(ctx, n, len(spans)); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	c.spans = append(c.spans, spans...)
	c.mu.Unlock()
	return resp, nil
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.header, c.path, c.uri = r.Header.Clone(), r.URL.Path, r.RequestURI
	c.mu.Unlock()
	var in io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		in = z
	}
	body, err := io.ReadAll(in)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var req collectorpb.ExportTraceServiceRequest
	unmarshal, marshal := proto.Unmarshal, proto.Marshal
	kind := r.Header.Get("Content-Type")
	if kind == "application/json" {
		// protojson has base64 for ids, which any id in hex is too.
		unmarshal, marshal = protojson.Unmarshal, protojson.Marshal
	}
	if err := unmarshal(body, &req); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	resp, err := c.Export(r.Context(), &req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out, err := marshal(resp)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Write(out)
}

func (c *collector) received() []*tracepb.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*tracepb.Span(nil), c.spans...)
}

// startCollector serves one protocol on a free loopback port until the test
// ends or stop is called.
func startCollector(t *testing.T, p Protocol) *collector {
	t.Helper()
	c := &collector{}
	if p == HTTP {
		s := httptest.NewServer(c)
		c.URL = s.URL
		c.stop = sync.OnceFunc(func() { s.CloseClientConnections(); s.Close() })
	} else {
		startGRPC(t, c)
	}
	t.Cleanup(c.stop)
	return c
}

func startGRPC(t *testing.T, c *collector, opts ...grpc.ServerOption) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveGRPC(t, c, l, opts...)
}

func serveGRPC(t *testing.T, c *collector, l net.Listener, opts ...grpc.ServerOption) {
	s := grpc.NewServer(opts...)
	collectorpb.RegisterTraceServiceServer(s, c)
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	c.URL = "http://" + l.Addr().String()
	c.stop = sync.OnceFunc(func() { s.Stop(); <-done })
	t.Cleanup(c.stop)
}

var discardLog = log.New(io.Discard, "", 0)

// silentEndpoint accepts connections and never answers.
func silentEndpoint(t *testing.T) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var conns []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		for _, c := range conns {
			c.Close()
		}
	})
	return "http://" + l.Addr().String()
}

// deadEndpoint refuses connections.
func deadEndpoint(t *testing.T) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func eachProtocol(t *testing.T, f func(t *testing.T, p Protocol)) {
	for _, p := range []Protocol{GRPC, HTTP} {
		t.Run(p.String(), func(t *testing.T) { f(t, p) })
	}
}

func newTestProvider(t *testing.T, o Options) *Provider {
	t.Helper()
	p, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		p.Shutdown(ctx)
	})
	return p
}

// emit starts and ends n spans.
func emit(tp trace.TracerProvider, n int) {
	tr := tp.Tracer("test")
	for range n {
		_, s := tr.Start(context.Background(), "span")
		s.End()
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func wantStats(t *testing.T, p *Provider, want Stats) {
	t.Helper()
	usage := hooks.Usage{Events: want.Accepted + want.Dropped, Sampled: want.Exported, Dropped: want.Failed + want.Dropped}
	if got := p.Usage(); got != usage {
		t.Errorf("usage %+v, want %+v", got, usage)
	}
	if got := p.Stats(); got != want {
		t.Errorf("stats are %+v, want %+v", got, want)
	}
}

// wantGoroutines fails when more goroutines than before still run after a
// generous time to end.
func wantGoroutines(t *testing.T, before int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines run, %d ran before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func ids(spans []*tracepb.Span) map[string]bool {
	m := map[string]bool{}
	for _, s := range spans {
		m[hex.EncodeToString(s.SpanId)] = true
	}
	return m
}

func attributes(kvs []*commonpb.KeyValue) map[string]*commonpb.AnyValue {
	m := map[string]*commonpb.AnyValue{}
	for _, kv := range kvs {
		m[kv.Key] = kv.Value
	}
	return m
}

// emitLarge is emit with 16 kB in each span.
func emitLarge(tp trace.TracerProvider, n int) {
	tr := tp.Tracer("test")
	text := strings.Repeat("0123456789", 1600)
	for range n {
		_, s := tr.Start(context.Background(), "large", trace.WithAttributes(attribute.String("text", text)))
		s.End()
	}
}
