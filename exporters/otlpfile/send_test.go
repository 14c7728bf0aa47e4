package otlpfile

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

func TestEndpointFromEnv(t *testing.T) {
	const traces, general = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
	for _, x := range []struct {
		env       map[string]string
		post, err string
	}{
		{env: map[string]string{}},
		{env: map[string]string{general: "http://host:4318"}, post: "http://host:4318/v1/traces"},
		{env: map[string]string{general: "https://host/a%2Fb/"}, post: "https://host/a%2Fb/v1/traces"},
		{env: map[string]string{general: "http://me:secret@host"}, post: "http://me:secret@host/v1/traces"},
		{env: map[string]string{general: "http://[::1]:4318"}, post: "http://[::1]:4318/v1/traces"},
		{env: map[string]string{traces: "http://host/x//y", general: "nonsense"}, post: "http://host/x//y"},
		{env: map[string]string{general: "http://host", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, post: "http://host/v1/traces"},
		{env: map[string]string{general: "localhost:4318"}, err: general + `="localhost:4318"`},
		{env: map[string]string{general: "nonsense"}, err: general + `="nonsense"`},
		{env: map[string]string{general: "http://:4318"}, err: general + `="http://:4318"`},
		{env: map[string]string{general: "http://%zz"}, err: general + `="http://%zz"`},
		{env: map[string]string{traces: "ftp://host"}, err: traces + `="ftp://host"`},
		{env: map[string]string{general: "http://host:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, err: "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"},
		{env: map[string]string{traces: "http://host:4317", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, err: "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc"},
	} {
		for _, name := range []string{traces, general, "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"} {
			t.Setenv(name, x.env[name])
		}
		shown, post, err := endpointFromEnv()
		if strings.Contains(shown, "secret") {
			t.Errorf("%v: %q shows the password", x.env, shown)
		}
		if post != x.post || (err == nil) != (x.err == "") {
			t.Errorf("%v: posts to %q (%v), want %q", x.env, post, err, x.post)
		}
		if err != nil && (!strings.Contains(err.Error(), x.err) || !strings.Contains(err.Error(), "4318")) {
			t.Errorf("%v: %v; want %s and what would be right", x.env, err, x.err)
		}
	}
}

// TestSend: only a 2xx of OTLP that takes all spans counts, and redirects are not followed.
func TestSend(t *testing.T) {
	for _, x := range []struct {
		name           string
		status         int
		location, body string
		err            string
	}{
		{name: "empty answer", status: 200},
		{name: "answer of OTLP", status: 202, body: `{"partialSuccess":{}}`},
		{name: "a remark", status: 200, body: `{"partialSuccess":{"rejectedSpans":"0","errorMessage":"slow down"}}`},
		{name: "rejected", status: 200, body: `{"partialSuccess":{"rejectedSpans":"1","errorMessage":"too old"}}`, err: "too old"},
		{name: "rejected, a number", status: 200, body: `{"partialSuccess":{"rejectedSpans":1,"errorMessage":"too old"}}`, err: "too old"},
		{name: "login page", status: 200, body: "<!doctype html>", err: "not that of OTLP"},
		{name: "redirect", status: 307, location: "/elsewhere", err: "307"},
		{name: "not found", status: 404, body: "404 page not found", err: "404"},
	} {
		t.Run(x.name, func(t *testing.T) {
			var got, elsewhere atomic.Int32
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if r.URL.Path != "/v1/traces" {
					elsewhere.Add(1)
				}
				if n := got.Add(1); r.Method != "POST" || r.Header.Get("Content-Type") != "application/json" || string(body) != strings.Repeat("x", int(n))+"\n" {
					t.Errorf("request %d is %s %v %q (%v)", n, r.Method, r.Header, body, err)
				}
				if x.location != "" {
					w.Header().Set("Location", x.location)
				}
				w.WriteHeader(x.status)
				io.WriteString(w, x.body)
			}))
			defer s.Close()
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", s.URL)
			for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"} {
				t.Setenv(name, "")
			}
			path := filepath.Join(t.TempDir(), "trace.json")
			if err := os.WriteFile(path, []byte("x\nxx\nxxx\nhalf a line"), 0o644); err != nil {
				t.Fatal(err)
			}
			endpoint, err := Send(t.Context(), path)
			if x.err == "" {
				if err != nil || endpoint != s.URL || got.Load() != 3 {
					t.Errorf("sent %d lines to %q: %v", got.Load(), endpoint, err)
				}
				return
			}
			if err == nil || endpoint != "" || !strings.Contains(err.Error(), x.err) || !strings.Contains(err.Error(), strconv.Quote(path)) || !strings.Contains(err.Error(), "3 of the 3 lines did not reach "+s.URL) {
				t.Errorf("sent to %q: %v, want an error with %q", endpoint, err, x.err)
			}
			if got.Load() != 1 || elsewhere.Load() != 0 {
				t.Errorf("%d requests, %d of them elsewhere", got.Load(), elsewhere.Load())
			}
		})
	}
}

// TestSendNowhere: without a collector nothing is read or sent; a file that is not there is said to be so.
func TestSendNowhere(t *testing.T) {
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"} {
		t.Setenv(name, "")
	}
	missing := filepath.Join(t.TempDir(), "missing.json")
	if endpoint, err := Send(t.Context(), missing); endpoint != "" || err != nil {
		t.Errorf("without a collector: sent to %q: %v", endpoint, err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	endpoint, err := Send(t.Context(), missing)
	if endpoint != "" || !errors.Is(err, fs.ErrNotExist) || strings.Count(err.Error(), "missing.json") != 1 {
		t.Errorf("a missing file: sent to %q: %v", endpoint, err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318")
	if endpoint, err = Send(t.Context(), missing); endpoint != "" || err == nil || !strings.Contains(err.Error(), `"localhost:4318"`) {
		t.Errorf("no URL: sent to %q: %v", endpoint, err)
	}
}

// TestNewProvider: a span is in the file under the service's name once it has ended, and a collector gets it as it is there.
func TestNewProvider(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.json")
	p, err := NewProvider("indexer", path)
	if err != nil {
		t.Fatal(err)
	}
	_, span := p.Tracer("test").Start(t.Context(), "work")
	span.End()
	data := readFile(t, path)
	if lines, n := countSpans(t, data); lines != 1 || n != 1 || !bytes.Contains(data, []byte(`{"key":"service.name","value":{"stringValue":"indexer"}}`)) {
		t.Errorf("%d lines with %d spans: %s", lines, n, data)
	}
	if err := p.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}

	var posted []byte
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { posted, _ = io.ReadAll(r.Body) }))
	defer s.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", s.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json")
	if endpoint, err := Send(t.Context(), path); endpoint != s.URL || err != nil || !bytes.Equal(posted, data) {
		t.Errorf("sent to %q (%v): %s", endpoint, err, posted)
	}

	if _, err := NewProvider("indexer", t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder: %v", err)
	}
}
