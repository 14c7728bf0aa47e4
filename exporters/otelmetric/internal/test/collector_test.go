package test_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"

	"github.com/alloctrace/alloctrace/exporters/otelmetric"
	"github.com/alloctrace/alloctrace/internal/jaegertest"
)

// TestCollector sends metrics by OTLP to a real collector, which passes them on by
// OTLP and to Prometheus, and compares what comes out of it with what went in. The
// collector is a Jaeger binary, which has one built in.
func TestCollector(t *testing.T) {
	next := &backend{}
	server := httptest.NewServer(next)
	t.Cleanup(server.Close)
	collector := startCollector(t, server.URL)

	mem := worked(t)
	for service, producer := range map[string]*otelmetric.Producer{"exponential": {}, "explicit": {Explicit: true}} {
		exporter, err := otlpmetrichttp.New(t.Context(), otlpmetrichttp.WithEndpointURL(collector.otlp+"/v1/metrics"))
		if err != nil {
			t.Fatal(err)
		}
		provider := sdkmetric.NewMeterProvider(
			sdkmetric.WithResource(resource.NewSchemaless(attribute.String("service.name", service))),
			sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exporter, sdkmetric.WithInterval(time.Hour), sdkmetric.WithProducer(producer))))
		reg := start(t, mem, otelmetric.WithMeterProvider(provider), otelmetric.WithProducer(producer))
		if err := provider.ForceFlush(t.Context()); err != nil {
			t.Fatal(err)
		}
		stop(t, reg)
		if err := provider.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := slices.Clone(wantWorked)
		if producer.Explicit {
			want[0] = wantExplicit
		}
		wantLines(t, service+": passed on by the collector", next.lines(service), want)
	}
	wantLines(t, "scraped from the collector", collector.scrape(t), wantScraped())
}

// wantScraped is what the collector's Prometheus exporter makes of wantWorked. It
// leaves out exponential histograms.
func wantScraped() []string {
	var want []string
	scope := fmt.Sprintf(`otel_scope_name=%q,otel_scope_schema_url="",otel_scope_version=%q`, otelmetric.ScopeName, otelmetric.Version())
	sample := func(name, operation, service, bound, value string) {
		want = append(want, fmt.Sprintf(`%s{allocator_backend="Heap",allocator_name="db",%sjob=%q,%s%s} %s`, name, operation, service, scope, bound, value))
	}
	for _, m := range []struct{ name, kind, operation, value string }{
		{"allocator_allocations_total", "counter", "", "6"},
		{"allocator_block_count", "gauge", "", "3"},
		{"allocator_failures_total", "counter", `allocator_operation="allocate",`, "2"},
		{"allocator_failures_total", "counter", `allocator_operation="free",`, "3"},
		{"allocator_failures_total", "counter", `allocator_operation="reallocate",`, "1"},
		{"allocator_frees_total", "counter", "", "2"},
		{"allocator_memory_allocated_bytes_total", "counter", "", "1.061775e+06"},
		{"allocator_memory_limit_bytes", "gauge", "", "8.388608e+06"},
		{"allocator_memory_peak_bytes", "gauge", "", "1.056775e+06"},
		{"allocator_memory_used_bytes", "gauge", "", "9097"},
		{"allocator_read_failures_total", "counter", "", "0"},
		{"allocator_reallocations_total", "counter", "", "2"},
	} {
		want = append(want, "# TYPE "+m.name+" "+m.kind)
		sample(m.name, m.operation, "explicit", "", m.value)
		sample(m.name, m.operation, "exponential", "", m.value)
	}
	const histogram = "allocator_allocation_size_bytes"
	want = append(want, "# TYPE "+histogram+" histogram")
	for size := 16.; size <= 64<<30; size *= 2 {
		n := 3
		for _, block := range []float64{4096, 4097, 5000, 1 << 20} {
			if block <= size {
				n++
			}
		}
		sample(histogram+"_bucket", "", "explicit", fmt.Sprintf(`,le="%v"`, size), fmt.Sprint(n))
	}
	sample(histogram+"_bucket", "", "explicit", `,le="+Inf"`, "7")
	sample(histogram+"_sum", "", "explicit", "", "1.061775e+06")
	sample(histogram+"_count", "", "explicit", "", "7")
	slices.Sort(want)
	return slices.Compact(want)
}

// A backend takes OTLP/HTTP requests and keeps their metrics as lines by service.
type backend struct {
	mu       sync.Mutex
	services map[string][]string
}

func (b *backend) lines(service string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	slices.Sort(b.services[service])
	return b.services[service]
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var request collectorpb.ExportMetricsServiceRequest
	body, err := io.ReadAll(r.Body)
	if err = cmp.Or(err, proto.Unmarshal(body, &request)); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.services == nil {
		b.services = make(map[string][]string)
	}
	for _, rm := range request.ResourceMetrics {
		service := rm.Resource.Attributes[0].Value.GetStringValue()
		for _, sm := range rm.ScopeMetrics {
			for _, m := range sm.Metrics {
				b.services[service] = append(b.services[service], decode(sm.Scope, m)...)
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// decode returns the lines of m as collect does.
func decode(scope *commonpb.InstrumentationScope, m *metricspb.Metric) (lines []string) {
	cumulative := metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE
	add := func(kind string, attributes []*commonpb.KeyValue, value string) {
		var list []attribute.KeyValue
		for _, kv := range attributes {
			list = append(list, attribute.String(kv.Key, kv.Value.GetStringValue()))
		}
		set := attribute.NewSet(list...)
		if scope.Name != otelmetric.ScopeName || scope.Version != otelmetric.Version() || m.Description == "" {
			value += fmt.Sprintf(" of the scope %v, described as %q", scope, m.Description)
		}
		lines = append(lines, line(m.Name, m.Unit, kind, set.Encoded(attribute.DefaultEncoder()), value))
	}
	switch d := m.Data.(type) {
	case *metricspb.Metric_Sum:
		for _, p := range d.Sum.DataPoints {
			if d.Sum.AggregationTemporality == cumulative {
				add(sumKind(d.Sum.IsMonotonic), p.Attributes, fmt.Sprint(p.GetAsInt()))
			}
		}
	case *metricspb.Metric_Gauge:
		for _, p := range d.Gauge.DataPoints {
			add("Gauge", p.Attributes, fmt.Sprint(p.GetAsInt()))
		}
	case *metricspb.Metric_ExponentialHistogram:
		for _, p := range d.ExponentialHistogram.DataPoints {
			if d.ExponentialHistogram.AggregationTemporality == cumulative {
				add("ExponentialHistogram", p.Attributes, exponentialText(p.Count, p.GetSum(), p.Scale, p.Positive.Offset, p.Positive.BucketCounts))
			}
		}
	case *metricspb.Metric_Histogram:
		for _, p := range d.Histogram.DataPoints {
			if d.Histogram.AggregationTemporality == cumulative {
				add("Histogram", p.Attributes, explicitText(p.Count, p.GetSum(), p.ExplicitBounds, p.BucketCounts))
			}
		}
	}
	return lines
}

// A collector is a running process.
type collector struct{ otlp, prometheus string }

// startCollector runs one on free loopback ports until the test ends. What it takes
// it passes on to next before it answers.
func startCollector(t *testing.T, next string) *collector {
	t.Helper()
	jaegertest.Start(t).Kill() // skips the test where there is no Jaeger, or builds one
	path, err := jaegertest.Binary(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	for attempt := 1; ; attempt++ {
		c, err := runCollector(t, path, next)
		if err == nil {
			return c
		}
		if attempt == 3 || !strings.Contains(err.Error(), "address already in use") {
			t.Fatal(err)
		}
	}
}

func runCollector(t *testing.T, path, next string) (*collector, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // its Prometheus exporter does not tell which port it has
	if err != nil {
		return nil, err
	}
	free := l.Addr().String()
	l.Close()
	config := filepath.Join(t.TempDir(), "collector.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, collectorYAML, free, next), 0o666); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	cmd := exec.CommandContext(ctx, path, "--config", "file:"+config)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "OTEL_") }), "OTEL_TRACES_SAMPLER=always_off")
	log, err := cmd.StderrPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	var text bytes.Buffer
	var ended sync.WaitGroup
	ready := make(chan string, 1)
	ended.Go(func() {
		defer close(ready)
		var endpoint string
		for lines := bufio.NewScanner(io.TeeReader(log, &text)); lines.Scan(); {
			var e struct{ Msg, Endpoint string }
			if json.Unmarshal(lines.Bytes(), &e) != nil {
				continue // some lines are plain text
			}
			endpoint = cmp.Or(endpoint, e.Endpoint)
			if strings.HasPrefix(e.Msg, "Everything is ready") {
				ready <- endpoint
			}
		}
		cmd.Wait()
	})
	t.Cleanup(func() {
		cancel()
		ended.Wait()
		if t.Failed() {
			t.Logf("the collector's log:\n%s", &text)
		}
	})
	endpoint := <-ready
	if endpoint == "" {
		ended.Wait()
		return nil, fmt.Errorf("the collector %s ended: %v\n%s", path, cmd.ProcessState, &text)
	}
	return &collector{"http://" + endpoint, "http://" + free}, nil
}

const collectorYAML = `service:
  pipelines:
    metrics:
      receivers: [otlp]
      exporters: [prometheus, otlphttp]
  telemetry:
    metrics:
      level: none
    logs:
      encoding: json
receivers:
  otlp:
    protocols:
      http:
        endpoint: 127.0.0.1:0
exporters:
  prometheus:
    endpoint: %s
  otlphttp:
    endpoint: %s
    compression: none
    sending_queue:
      enabled: false
    retry_on_failure:
      enabled: false
`

// scrape returns, sorted, what the collector's Prometheus exporter has, without HELP.
func (c *collector) scrape(t *testing.T) []string {
	t.Helper()
	resp, err := http.Get(c.prometheus + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", resp.Status, err)
	}
	lines := strings.Split(strings.TrimSpace(string(body)), "\n")
	lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "# HELP ") })
	slices.Sort(lines)
	return lines
}
