package jaegertest

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Environ is os.Environ without the settings of OpenTelemetry.
func Environ() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "OTEL_") })
}

// SetEndpoint makes an endpoint, which may be "", the only setting of
// OpenTelemetry that the test has.
func SetEndpoint(tb testing.TB, endpoint string) {
	tb.Helper()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "OTEL_") {
			tb.Setenv(name, "")
		}
	}
	tb.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
}

// Collect takes OTLP/JSON until the test ends. It returns the URL, and what
// returns the spans that were sent there.
func Collect(tb testing.TB) (url string, spans func() []Span) {
	var mu sync.Mutex
	var all []Span
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			tb.Error(err)
		}
		traces, err := Decode(body)
		if err != nil {
			tb.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, slices.Concat(traces...)...)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}")
	}))
	tb.Cleanup(collector.Close)
	return collector.URL, func() []Span {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

// ReadFile returns the spans of a file that has an OTLP/JSON request on each
// line, in that order.
func ReadFile(tb testing.TB, path string) (spans []Span) {
	tb.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		traces, err := Decode(line)
		if err != nil {
			tb.Fatalf("%v in %s", err, line)
		}
		spans = append(spans, slices.Concat(traces...)...)
	}
	return spans
}
