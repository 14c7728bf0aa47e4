// Service is an HTTP server that keeps, sorts and indexes texts outside the Go heap. Each request is a span that says what it
// allocated, in the Jaeger of OTEL_EXPORTER_OTLP_ENDPOINT. The same by route is at /metrics, and who holds memory at
// /debug/pprof/offheap, and at /debug/alloctrace/ for people; what requests leave behind is found by the tag allocator.leaked=true. The
// guide is docs/trace-requests.md.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
	"github.com/alloctrace/alloctrace/exporters/debugpage"
	"github.com/alloctrace/alloctrace/exporters/otlp"
	"github.com/alloctrace/alloctrace/exporters/pprof"
	allocprom "github.com/alloctrace/alloctrace/exporters/prometheus"
	"github.com/alloctrace/alloctrace/tracer"
	"github.com/alloctrace/alloctrace/tracer/tracehttp"
)

func main() {
	addr := flag.String("addr", "localhost:8080", "address to listen on")
	leak := flag.Bool("leak", false, "have one in 500 requests of POST /sort forget to free its text")
	flag.Parse()
	ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	if err := run(ctx, *addr, *leak); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx is done, and then until the requests under way are.
func run(ctx context.Context, addr string, leak bool) (err error) {
	spans, err := otlp.New(ctx, otlp.Options{ServiceName: "service"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, spans.Shutdown(context.WithoutCancel(ctx))) }()
	otel.SetTracerProvider(spans)
	metrics, err := otelprom.New() // to the default registry
	if err != nil {
		return err
	}
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(metrics)))
	lives := tracer.NewLifetimes(tracer.LifetimeOptions{CheckpointEvery: 10 * time.Second, OldAge: 10 * time.Second, LongLived: []string{"cache"}})
	defer lives.Close()
	mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithName("service"), alloctrace.WithHooks(lives))
	s := &service{mem: mem, cache: mem.Child("cache"), leak: leak}
	defer func() { err = errors.Join(err, s.close()) }()
	prometheus.MustRegister(allocprom.NewCollector(mem, "service", allocprom.Options{Children: true}))
	mux := http.NewServeMux()
	mux.Handle("/", tracehttp.NewMiddleware(mem)(s.handler()))
	mux.Handle("GET /metrics", promhttp.HandlerFor(prometheus.DefaultGatherer, promhttp.HandlerOpts{EnableOpenMetrics: true})) // with exemplars
	mux.Handle("GET /debug/pprof/offheap", pprof.Handler(lives.Profile()))
	mux.Handle("/debug/alloctrace/", debugpage.Handler(debugpage.Options{}, mem))
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	log.Printf("http://%v", listener.Addr())
	server := &http.Server{Handler: mux, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second}
	down := make(chan error, 1)
	context.AfterFunc(ctx, func() { down <- server.Shutdown(context.WithoutCancel(ctx)) })
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-down
}

type service struct {
	mem, cache *alloctrace.Proxy
	leak       bool
	sorts      atomic.Int64
	mu         sync.Mutex
	pages      [64]typed.String // of cache
}

func (s *service) close() error {
	for i := range s.pages {
		_ = s.pages[i].Free(s.cache)
	}
	return s.mem.Close() // which fails if others are live
}

func (s *service) handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, answer := range map[string]func(m *meter, r *http.Request, text, out *typed.Buffer) error{
		"PUT /pages/{n}": s.page, "GET /pages/{n}": s.page, "POST /sort": sortLines, "POST /index": index,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			m := &meter{inner: s.mem.WithContext(r.Context())}
			text, out := typed.NewBuffer(m), typed.NewBuffer(m)
			defer out.Free()
			if pattern != "POST /sort" || !s.leak || s.sorts.Add(1)%500 != 0 {
				defer text.Free()
			}
			_, err := text.ReadFrom(http.MaxBytesReader(w, r.Body, 1<<20))
			if err == nil {
				err = answer(m, r, text, out)
			}
			w.Header().Set("X-Allocated", strconv.FormatInt(m.bytes, 10))
			w.Header().Set("X-Trace-Id", trace.SpanContextFromContext(r.Context()).TraceID().String())
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			_, _ = out.WriteTo(w)
		})
	}
	return mux
}

// page keeps a text in the cache: another part of the program than the request's buffers, for the same request.
func (s *service) page(m *meter, r *http.Request, text, out *typed.Buffer) error {
	n, err := strconv.ParseUint(r.PathValue("n"), 10, 6) // less than 64
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method == http.MethodGet {
		_, err = out.WriteString(s.pages[n].View()) // a copy, which the client may take its time to read
		return err
	}
	cache, old := &meter{inner: s.cache.WithContext(r.Context())}, s.pages[n]
	s.pages[n], err = typed.NewString(cache, text.Bytes())
	m.bytes += cache.bytes
	return errors.Join(err, old.Free(cache))
}

func sortLines(m *meter, _ *http.Request, text, out *typed.Buffer) error {
	lines, from := typed.NewVec[[2]int](m), 0 // where each begins and ends
	defer lines.Free()
	for l := range bytes.Lines(text.Bytes()) {
		if err := lines.Append([2]int{from, from + len(l)}); err != nil {
			return err
		}
		from += len(l)
	}
	line := func(l [2]int) []byte { return text.Bytes()[l[0]:l[1]] }
	slices.SortFunc(lines.Slice(), func(a, b [2]int) int { return bytes.Compare(line(a), line(b)) })
	err := out.Grow(text.Len()) // after which no Write fails
	for l := range lines.Values() {
		_, _ = out.Write(line(l))
	}
	return err
}

func index(m *meter, r *http.Request, text, out *typed.Buffer) error {
	counts := typed.NewBytesMap[int](m)
	defer counts.Free()
	for word := range bytes.FieldsSeq(text.Bytes()) {
		n, _, err := counts.Ensure(word)
		if err != nil {
			return err
		}
		*n++
	}
	n, _ := counts.Get([]byte(r.URL.Query().Get("word")))
	_, err := fmt.Fprintf(out, "%d times among %d different words\n", n, counts.Len())
	return err
}

// A meter adds up the sizes of the blocks that a request is given, for X-Allocated: its span must say the same.
type meter struct {
	inner blockalloc.Allocator
	bytes int64
}

func (m *meter) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	b, err := m.inner.Allocate(l)
	m.bytes += int64(b.Size()) // none if it failed
	return b, err
}

func (m *meter) Reallocate(b blockalloc.Block, size uintptr) (n blockalloc.Block, err error) {
	if n, err = m.inner.Reallocate(b, size); err == nil {
		m.bytes += int64(n.Size())
	}
	return n, err
}

func (m *meter) Free(b blockalloc.Block) error { return m.inner.Free(b) }
