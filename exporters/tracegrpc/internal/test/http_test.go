package test_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/fields"
	"github.com/alloctrace/alloctrace/internal/prometheustest"
	"github.com/alloctrace/alloctrace/internal/requests"
	"github.com/alloctrace/alloctrace/tracer"
	"github.com/alloctrace/alloctrace/tracer/tracehttp"
)

var _ = flag.Bool("update", false, "write the golden files of testdata anew")

// blocks has a route whose requests allocate as many bytes as the path says.
func blocks(t *testing.T, mem *alloctrace.Proxy) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /blocks/{size}", func(_ http.ResponseWriter, r *http.Request) {
		var l blockalloc.Layout
		if _, err := fmt.Sscan(r.PathValue("size"), &l.Size); err != nil {
			t.Error(err)
		}
		l.Align = 8
		view := mem.WithContext(r.Context())
		b, err := view.Allocate(l)
		if err == nil {
			err = view.Free(b)
		}
		if err != nil {
			t.Error(err)
		}
	})
	return mux
}

func (s *sdk) middleware(mem blockalloc.Allocator, next http.Handler) http.Handler {
	return tracehttp.NewMiddleware(mem, tracehttp.WithMeterProvider(s.meter), tracehttp.WithRegion(tracer.WithTracerProvider(s.tracer)))(next)
}

// get returns what is at a URL.
func get(t *testing.T, url, accept string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s of %s: %v", resp.Status, url, err)
	}
	return string(body)
}

// TestOtelhttp: a request is one span, otelhttp's, which has the region's attributes and the route. One that its
// sampler leaves out is counted as the others are.
func TestOtelhttp(t *testing.T) {
	for name, sampler := range map[string]sdktrace.Sampler{"sampled": sdktrace.AlwaysSample(), "not sampled": sdktrace.NeverSample()} {
		t.Run(name, func(t *testing.T) {
			s, mem := newSDK(t), alloctest.New(t)
			s.tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(s.spans), sdktrace.WithSampler(sampler))
			server := httptest.NewServer(otelhttp.NewHandler(s.middleware(mem, blocks(t, mem)), "server", otelhttp.WithTracerProvider(s.tracer)))
			defer server.Close()
			get(t, server.URL+"/blocks/3000", "")
			server.Close()
			spans := s.spans.Ended()
			if name == "not sampled" {
				if len(spans) != 0 {
					t.Errorf("the spans are %v", spans)
				}
			} else if len(spans) != 1 || allocatedOf(spans[0]) != 3000 || attributeOf(spans[0], "http.route") != "/blocks/{size}" ||
				!strings.Contains(spans[0].InstrumentationScope().Name, "otelhttp") {
				t.Errorf("the spans are %v", spans)
			}
			want := map[string]total{"http.request.method=GET,http.route=/blocks/{size}": {1, 3000}}
			if got := s.totals(t, "allocator.request.allocated"); !maps.Equal(got, want) {
				t.Errorf("recorded is %v, want %v", got, want)
			}
		})
	}
}

// exemplars runs a server whose requests are scraped from /metrics, and has it serve one for each size. It returns the
// server's URL and the ids of the traces by size.
func exemplars(t *testing.T, sizes ...int64) (string, map[int64]string) {
	t.Helper()
	s, mem := newSDK(t), alloctest.New(t)
	registry := prometheus.NewRegistry()
	exporter, err := otelprom.New(otelprom.WithRegisterer(registry))
	if err != nil {
		t.Fatal(err)
	}
	s.meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter))
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	mux.Handle("/", s.middleware(mem, blocks(t, mem)))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	for _, size := range sizes {
		get(t, fmt.Sprintf("%s/blocks/%d", server.URL, size), "")
	}
	traces := make(map[int64]string)
	prometheustest.Eventually(t, "spans of all requests", func() error { // the answer is there before the span's end
		for _, span := range s.spans.Ended() {
			traces[allocatedOf(span)] = span.SpanContext().TraceID().String()
		}
		if len(traces) != len(sizes) {
			return fmt.Errorf("there are %d", len(traces))
		}
		return nil
	})
	return server.URL, traces
}

// TestExemplars: a scrape has, at each bucket, the trace of a request of that size.
func TestExemplars(t *testing.T) {
	url, traces := exemplars(t, 1000, 30_000, 5_000_000)
	text := get(t, url+"/metrics", "application/openmetrics-text; version=1.0.0")
	for size, le := range map[int64]string{1000: "1024.0", 30_000: "65536.0", 5_000_000: "1.6777216e+07"} {
		for _, name := range []string{"allocated", "peak"} {
			line := regexp.MustCompile(`(?m)^allocator_request_` + name + `_bytes_bucket\{.*http_route="/blocks/\{size\}".*le="` + regexp.QuoteMeta(le) + `".*$`).FindString(text)
			if !strings.Contains(line, `trace_id="`+traces[size]+`"`) || !strings.Contains(line, fmt.Sprint("} ", float64(size))) {
				t.Errorf("the bucket of %d bytes is %q, want an exemplar of trace %s in\n%s", size, line, traces[size], text)
			}
		}
	}
}

// TestPrometheus: a real Prometheus keeps the exemplars, and answers which traces had how many bytes.
func TestPrometheus(t *testing.T) {
	prometheustest.LookPath(t, "prometheus")
	from, traces := exemplars(t, 1000, 30_000, 5_000_000)
	server := prometheustest.Start(t, map[string]string{"service": from + "/metrics"}, "exemplar-storage")
	query := server + "/api/v1/query_exemplars?query=allocator_request_allocated_bytes_bucket&start=0&end=4000000000"
	prometheustest.Eventually(t, "exemplars in Prometheus", func() error {
		var answer struct {
			Data []struct {
				SeriesLabels map[string]string
				Exemplars    []struct {
					Labels map[string]string
					Value  string
				}
			}
		}
		if err := json.Unmarshal([]byte(get(t, query, "")), &answer); err != nil {
			return err
		}
		got := make(map[int64]string)
		for _, series := range answer.Data {
			for _, e := range series.Exemplars {
				var size float64
				if _, err := fmt.Sscan(e.Value, &size); err != nil {
					return err
				}
				if series.SeriesLabels["http_route"] == "/blocks/{size}" && series.SeriesLabels["http_request_method"] == http.MethodGet {
					got[int64(size)] = e.Labels["trace_id"]
				}
			}
		}
		if !maps.Equal(got, traces) {
			return fmt.Errorf("they are %v, want %v", got, traces)
		}
		return nil
	})
	// As Grafana asks: how much do requests of this route have at most, by the histogram.
	quantile := server + "/api/v1/query?query=" + url.QueryEscape(`histogram_quantile(1, allocator_request_allocated_bytes_bucket{http_route="/blocks/{size}"})`)
	if got := get(t, quantile, ""); !strings.Contains(got, `"16777216"`) {
		t.Errorf("the largest requests by Prometheus: %s", got)
	}
}

// TestFields: the metrics of both middlewares with their units, and the attributes.
func TestFields(t *testing.T) {
	s, mem := newSDK(t), alloctest.New(t)
	s.middleware(mem, blocks(t, mem)).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/blocks/8", nil))
	client, stop := start(t, mem, s.interceptors(mem)...)
	if err := talk(t.Context(), client, 1, 8); err != nil {
		t.Fatal(err)
	}
	stop()
	known := tracer.Summary{Escaped: tracer.Escaped{Known: true}}
	requests.NewHistograms("test", s.meter).Record(t.Context(), known, requests.NewLabels())
	var rm metricdata.ResourceMetrics
	if err := s.reader.Collect(t.Context(), &rm); err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, scope := range rm.ScopeMetrics {
		for _, m := range scope.Metrics {
			h, ok := m.Data.(metricdata.Histogram[int64])
			if !ok {
				t.Fatalf("%s is a %T", m.Name, m.Data)
			}
			list = append(list, m.Name+" Histogram "+m.Unit)
			for _, p := range h.DataPoints {
				for _, a := range p.Attributes.ToSlice() {
					list = append(list, string(a.Key)+" attribute")
				}
			}
		}
	}
	fields.Compare(t, "testdata/fields.txt", list)
}
