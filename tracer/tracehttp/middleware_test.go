package tracehttp_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/tracer"
	"github.com/alloctrace/alloctrace/tracer/tracehttp"
)

// middleware is one whose spans and records go to r.
func (r *recorder) middleware(mem blockalloc.Allocator) func(http.Handler) http.Handler {
	return tracehttp.NewMiddleware(mem, tracehttp.WithMeterProvider(r.meters()), tracehttp.WithRegion(tracer.WithTracerProvider(r)))
}

// take allocates a block of so many bytes in the request and frees it.
func take(t *testing.T, mem *alloctrace.Proxy, r *http.Request, size uintptr) {
	view := mem.WithContext(r.Context())
	b, err := view.Allocate(blockalloc.Layout{Size: size, Align: 8})
	if err == nil {
		err = view.Free(b)
	}
	if err != nil {
		t.Error(err)
	}
}

func serve(t *testing.T, h http.Handler) *httptest.Server {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// wantRequest checks a span of a request that allocated so many bytes, and its two records.
func (r *recorder) wantRequest(t *testing.T, i int, name, route, attributes string, bytes int64) {
	t.Helper()
	r.Mu.Lock()
	defer r.Mu.Unlock()
	s := r.Spans[i]
	if s.Name != name || s.Attributes["allocator.memory.allocated"].AsInt64() != bytes || s.Attributes["http.route"].AsString() != route {
		t.Errorf("span %q has %v, want %q and %d bytes", s.Name, s.Attributes, name, bytes)
	}
	for _, want := range []record{
		{"allocator.request.allocated", bytes, attributes, s.Context.SpanID()},
		{"allocator.request.peak", bytes, attributes, s.Context.SpanID()},
	} {
		if !slices.Contains(r.records, want) {
			t.Errorf("%v is not among the records %v", want, r.records)
		}
	}
}

// TestOwnSpan: without a span of the server the request has one, whose name has the route.
func TestOwnSpan(t *testing.T) {
	var r recorder
	mem := alloctest.New(t)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /items/{id}", func(_ http.ResponseWriter, q *http.Request) {
		take(t, mem.Child("items"), q, 1000)
		b, err := tracer.FromContext(q.Context()).Allocator().Allocate(blockalloc.Layout{Size: 24, Align: 8})
		if err != nil || mem.Free(b) != nil {
			t.Error("the region has no memory")
		}
	})
	s := serve(t, r.middleware(mem)(mux))
	get(t, s.URL+"/items/7")
	s.Close()
	r.wantRequestOf(t, "GET /items/{id}", 1024, 1000)
	if kind := r.Spans[0].Attributes["http.request.method"].AsString(); kind != "GET" || r.Spans[0].Ends != 1 || r.Spans[0].Parent.IsValid() {
		t.Errorf("the span is %+v", r.Spans[0])
	}
}

// wantRequestOf checks the only request.
func (r *recorder) wantRequestOf(t *testing.T, name string, allocated, peak int64) {
	t.Helper()
	method, route, _ := strings.Cut(name, " ")
	attributes := "http.request.method=" + method + ",http.route=" + route
	want := []record{
		{"allocator.request.allocated", allocated, attributes, r.Spans[0].Context.SpanID()},
		{"allocator.request.peak", peak, attributes, r.Spans[0].Context.SpanID()},
	}
	if len(r.Spans) != 1 || r.Spans[0].Name != name || !slices.Equal(r.records, want) || r.Spans[0].Attributes["allocator.memory.allocated"] != attribute.Int64Value(allocated) {
		t.Errorf("span %q with %v, records %v, want %v", r.Spans[0].Name, r.Spans[0].Attributes, r.records, want)
	}
}

// TestServersSpan: on a span of this process, sampled or not, and never on that of another.
func TestServersSpan(t *testing.T) {
	mem := alloctest.New(t)
	for name, c := range map[string]struct {
		outer func(*recorder, context.Context) context.Context
		own   bool
	}{
		"recorded": {func(r *recorder, ctx context.Context) context.Context {
			ctx, _ = r.Tracer("").Start(ctx, "server")
			return ctx
		}, false},
		"not sampled": {func(_ *recorder, ctx context.Context) context.Context {
			return trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{2}, SpanID: trace.SpanID{2}}))
		}, false},
		"remote": {func(_ *recorder, ctx context.Context) context.Context {
			return trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{2}, SpanID: trace.SpanID{2}}))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			var r recorder
			mux := http.NewServeMux()
			mux.HandleFunc("POST /items", func(_ http.ResponseWriter, q *http.Request) { take(t, mem, q, 64) })
			q := httptest.NewRequest("POST", "/items", nil)
			q = q.WithContext(c.outer(&r, q.Context()))
			r.middleware(mem)(mux).ServeHTTP(httptest.NewRecorder(), q)
			outer := trace.SpanContextFromContext(q.Context()).SpanID()
			switch {
			case c.own:
				if len(r.Spans) != 1 || r.Spans[0].Parent != outer {
					t.Fatalf("%d spans, want one below that of the other process", len(r.Spans))
				}
				r.wantRequestOf(t, "POST /items", 64, 64)
			case name == "recorded":
				if len(r.Spans) != 1 || r.Spans[0].Ends != 0 {
					t.Fatalf("%d spans; the server's has ended %d times", len(r.Spans), r.Spans[0].Ends)
				}
				r.wantRequest(t, 0, "server", "/items", "http.request.method=POST,http.route=/items", 64)
			case len(r.Spans) != 0 || len(r.records) != 2 || r.records[0].span != outer:
				t.Errorf("%d spans, records %v; want none and two", len(r.Spans), r.records)
			}
		})
	}
}

// TestRoutes: names and attributes have what the program knows, and nothing that a client can make up.
func TestRoutes(t *testing.T) {
	for _, c := range []struct{ pattern, method, path, name, attributes string }{
		{"/", "GET", "/secret/7", "GET /", "http.request.method=GET,http.route=/"},
		{"GET /a/{b...}", "HEAD", "/a/1/2", "HEAD /a/{b...}", "http.request.method=HEAD,http.route=/a/{b...}"},
		{"example.com/a", "GET", "/a", "GET /a", "http.request.method=GET,http.route=/a"},
		{"PUT /a", "GET", "/nowhere", "GET", "http.request.method=GET"},
		{"/a", "FROBNICATE", "/a", "HTTP /a", "http.request.method=_OTHER,http.route=/a"},
		{"/\xff", "GET", "/%ff", "GET /\uFFFD", "http.request.method=GET,http.route=/\uFFFD"},
	} {
		var r recorder
		mux := http.NewServeMux()
		mux.HandleFunc(c.pattern, func(http.ResponseWriter, *http.Request) {})
		q := httptest.NewRequest(c.method, "http://example.com"+c.path, nil)
		r.middleware(alloctest.New(t))(mux).ServeHTTP(httptest.NewRecorder(), q)
		if len(r.Spans) != 1 || len(r.records) != 2 || r.Spans[0].Name != c.name || r.records[0].attributes != c.attributes {
			t.Errorf("%s %s by %q: span %q, records %v; want %q, %q", c.method, c.path, c.pattern, r.Spans[0].Name, r.records, c.name, c.attributes)
		}
	}
}

// TestInsideMux: the route is known also if the mux is outside of the middleware.
func TestInsideMux(t *testing.T) {
	var r recorder
	mem := alloctest.New(t)
	mux := http.NewServeMux()
	mux.Handle("DELETE /items/{id}", r.middleware(mem)(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		take(t, mem, q, 8)
		if name := tracer.FromContext(q.Context()).Name(); name != "DELETE /items/{id}" {
			t.Errorf("the region is %q", name)
		}
	})))
	mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("DELETE", "/items/1", nil))
	r.wantRequestOf(t, "DELETE /items/{id}", 8, 8)
}

// TestPanics: a panic goes on as it is, with the handler on the stack that the server logs, and the request is on record.
func TestPanics(t *testing.T) {
	mem := alloctest.New(t)
	for name, value := range map[string]any{"a value": "oh", "an error": io.ErrUnexpectedEOF, "abort": http.ErrAbortHandler} {
		t.Run(name, func(t *testing.T) {
			var r recorder
			var logged bytes.Buffer
			mux := http.NewServeMux()
			mux.HandleFunc("/panic", func(_ http.ResponseWriter, q *http.Request) {
				take(t, mem, q, 16)
				panicking(value)
			})
			var got any
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				defer func() {
					got = recover()
					panic(got)
				}()
				r.middleware(mem)(mux).ServeHTTP(w, q)
			}))
			s.Config.ErrorLog = log.New(&logged, "", 0)
			s.Start()
			if resp, err := http.Get(s.URL + "/panic"); err == nil {
				resp.Body.Close()
				t.Error("the connection lives on")
			}
			s.Close()
			if got != value || len(r.Spans) != 1 || !slices.Equal(r.Spans[0].Panics, []any{value}) || r.Spans[0].Ends != 1 {
				t.Errorf("the panic is %v; the spans are %+v", got, r.Spans)
			}
			r.wantRequestOf(t, "GET /panic", 16, 16)
			if value != http.ErrAbortHandler && !strings.Contains(logged.String(), "tracehttp_test.panicking(") {
				t.Errorf("the server logs\n%s", &logged)
			}
		})
	}
}

//go:noinline
func panicking(value any) { panic(value) }

// TestWriterIsUntouched: the handler has the server's own ResponseWriter, and can stream and hijack.
func TestWriterIsUntouched(t *testing.T) {
	var r recorder
	mem := alloctest.New(t)
	var outer http.ResponseWriter
	flushed := make(chan bool)
	mux := http.NewServeMux()
	mux.HandleFunc("/stream", func(w http.ResponseWriter, q *http.Request) {
		if w != outer {
			t.Errorf("the handler has a %T, not the %T of the server", w, outer)
		}
		for i := range 3 {
			take(t, mem, q, 100)
			fmt.Fprintf(w, "%d\n", i)
			w.(http.Flusher).Flush()
			<-flushed // the client has it
		}
	})
	hijacked := make(chan error, 1)
	mux.HandleFunc("/hijack", func(w http.ResponseWriter, q *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		take(t, mem, q, 50)
		go func() {
			<-flushed // the handler has returned
			take(t, mem, q, 4000)
			_, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbye")
			hijacked <- errors.Join(err, conn.Close())
		}()
	})
	traced := r.middleware(mem)(mux)
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		outer = w
		traced.ServeHTTP(w, q)
		if q.URL.Path == "/hijack" {
			flushed <- true
		}
	}))
	resp, err := http.Get(s.URL + "/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for i := range 3 {
		if !lines.Scan() || lines.Text() != fmt.Sprint(i) {
			t.Fatalf("line %d is %q", i, lines.Text())
		}
		flushed <- true
	}
	if got := get(t, s.URL+"/hijack"); got != "bye" {
		t.Errorf("the hijacked connection says %q", got)
	}
	if err := <-hijacked; err != nil {
		t.Error(err)
	}
	s.Close()
	attributes := "http.request.method=GET,http.route="
	if !slices.Contains(r.records, record{"allocator.request.peak", 100, attributes + "/stream", r.Spans[0].Context.SpanID()}) ||
		!slices.Contains(r.records, record{"allocator.request.allocated", 300, attributes + "/stream", r.Spans[0].Context.SpanID()}) {
		t.Errorf("the stream is not one region of 300 bytes: %v", r.records)
	}
	r.wantRequest(t, 1, "GET /hijack", "/hijack", attributes+"/hijack", 50)
	if n := mem.Stats().AllocatedBytes; n != 4350 {
		t.Errorf("mem has %d bytes, want also those of after the handler", n)
	}
}

// TestCopiedBack: handlers outside see the route, and the server removes the files of a form.
func TestCopiedBack(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Setenv("TMP", dir) // of Windows
	var r recorder
	var pattern string
	mux := http.NewServeMux()
	mux.HandleFunc("POST /upload", func(_ http.ResponseWriter, q *http.Request) {
		if err := q.ParseMultipartForm(0); err != nil {
			t.Error(err)
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
			t.Errorf("the form is in %d files (%v), want 1", len(files), err)
		}
	})
	traced := r.middleware(alloctest.New(t))(mux)
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		traced.ServeHTTP(w, q)
		pattern = q.Pattern
	}))
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("file", "name")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.Write(make([]byte, 11<<20)); err != nil { // more than is kept in memory in any case
		t.Fatal(err)
	}
	if err := form.Close(); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post(s.URL+"/upload", form.FormDataContentType(), &body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	s.Close()
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("%d files are left (%v)", len(files), err)
	}
	if pattern != "POST /upload" {
		t.Errorf("outside the pattern is %q", pattern)
	}
}

// TestRequestsAtOnce: each request has its own bytes, and mem their sum.
func TestRequestsAtOnce(t *testing.T) {
	const clients, each = 8, 50
	var r recorder
	mem := alloctest.New(t)
	mux := http.NewServeMux()
	mux.HandleFunc("/{size}", func(_ http.ResponseWriter, q *http.Request) {
		var size uintptr
		if _, err := fmt.Sscan(q.PathValue("size"), &size); err != nil {
			t.Error(err)
		}
		tracer.FromContext(q.Context()) // as a handler may at any time
		for range 10 {
			take(t, mem, q, size)
		}
	})
	h := r.middleware(mem)(mux)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			for j := range each {
				h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", fmt.Sprintf("/%d", 100*i+j+1), nil))
			}
		})
	}
	wg.Wait()
	seen := make(map[int64]int)
	var sum int64
	for _, s := range r.Spans {
		n := s.Attributes["allocator.memory.allocated"].AsInt64()
		seen[n]++
		sum += n
	}
	for i := range clients {
		for j := range each {
			if n := int64(10 * (100*i + j + 1)); seen[n] != 1 {
				t.Errorf("%d requests of %d bytes, want 1", seen[n], n)
			}
		}
	}
	if got := mem.Stats().AllocatedBytes; got != sum {
		t.Errorf("the requests have %d bytes, mem %d", sum, got)
	}
}

// TestAnyAllocator: one that is no Proxy has one all the same, for all requests, and nil is refused at once.
func TestAnyAllocator(t *testing.T) {
	var r recorder
	var inAll int64
	h := r.middleware(new(blockalloc.Heap))(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		mem := tracer.FromContext(q.Context()).Allocator()
		take(t, mem, q, 10)
		inAll = mem.Stats().AllocatedBytes
	}))
	for i := range 2 {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		r.wantRequest(t, i, "GET", "", "http.request.method=GET", 10)
	}
	if inAll != 20 {
		t.Errorf("two requests of 10 bytes have %d in all", inAll)
	}
	for want, f := range map[string]func(){
		"tracehttp: NewMiddleware(nil): pass an allocator, such as a Proxy of alloctrace.Wrap(blockalloc.Default())": func() { tracehttp.NewMiddleware(nil) },
		"tracehttp: the middleware of NewMiddleware is given nil: pass a handler, such as an http.ServeMux":          func() { tracehttp.NewMiddleware(blockalloc.Null{})(nil) },
	} {
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
