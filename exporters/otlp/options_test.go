package otlp

import (
	"context"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace/exporters/otlpfile"
)

func writeCertificate(t *testing.T, s *httptest.Server) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "ca.pem")
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantNewError checks that New fails and says each of the words.
func wantNewError(t *testing.T, o Options, words ...string) {
	t.Helper()
	p, err := New(t.Context(), o)
	if err == nil {
		p.Shutdown(t.Context())
		t.Errorf("New succeeded, want an error with %q", words)
		return
	}
	for _, w := range append(words, "otlp: New: ") {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not say %q: %v", w, err)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("the error has more than one line: %v", err)
	}
}

var badURLs = map[string]string{
	"localhost:4317":           `"http://localhost:4318"`,
	"/v1/traces":               `"http://localhost:4318"`,
	"ftp://localhost:4317":     `unknown scheme "ftp"`,
	"unix:///run/otlp.sock":    `unknown scheme "unix"`,
	"http://":                  "the host is missing",
	"http:///v1/traces":        "the host is missing",
	"http://:4318":             "the host is missing",
	"http://localhost:99999":   "no such port as 99999",
	"http://localhost:0":       "no such port as 0",
	"http://localhost:port":    "not a URL",
	"http://local host":        "not a URL",
	"http://localhost:4318?a":  "a query or fragment is never sent",
	"http://localhost:4318/#a": "a query or fragment is never sent",
}

// TestErrorsShowNoPassword: nor a user.
func TestErrorsShowNoPassword(t *testing.T) {
	for url, shown := range map[string]string{
		"http://me:pw@host":       "http://…@host",
		"http://me@host":          "http://…@host",
		"http://me:p/w?@host":     "http://…@host",
		"http://me:pw@host:99999": "http://…@host:99999",
		"me:pw@host":              "…@host",
		"ftp://me:p@w@host":       "ftp://…@host",
	} {
		for _, variable := range []string{"", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
			t.Run(variable+"="+url, func(t *testing.T) {
				var o Options
				if variable == "" {
					o.Endpoint = url
				} else {
					t.Setenv(variable, url)
				}
				p, err := New(t.Context(), o)
				if err == nil {
					p.Shutdown(t.Context())
					t.Fatal("New succeeded")
				}
				if !strings.Contains(err.Error(), strconv.Quote(shown)) || strings.Contains(err.Error(), "pw") || strings.Contains(err.Error(), ":p") {
					t.Errorf("the error is %v; want it to show %q", err, shown)
				}
				if url == "http://me:pw@host" && !strings.Contains(err.Error(), "OTEL_EXPORTER_OTLP_HEADERS") {
					t.Errorf("the error does not say where credentials go: %v", err)
				}
			})
		}
	}
}

func TestBadOptions(t *testing.T) {
	for url, want := range badURLs {
		wantNewError(t, Options{Endpoint: url}, `Options.Endpoint="`+url+`"`, want)
	}
	wantNewError(t, Options{Protocol: GRPC, Endpoint: "http://localhost:4317/v1/traces"}, "gRPC takes no path", "/v1/traces")
	wantNewError(t, Options{Protocol: -1}, "Options.Protocol=-1", "otlp.GRPC or otlp.HTTP")
	wantNewError(t, Options{Protocol: 7}, "Options.Protocol=7", "otlp.GRPC or otlp.HTTP")
	wantNewError(t, Options{QueueSize: -5}, "Options.QueueSize=-5", "from 1 to")
	wantNewError(t, Options{QueueSize: 1 << 30}, "Options.QueueSize=1073741824", "from 1 to")
	wantNewError(t, Options{Timeout: -time.Second}, "Options.Timeout=-1s", "longer than zero")

	path := filepath.Join(t.TempDir(), "trace.json")
	wantNewError(t, Options{File: path, Endpoint: "http://localhost:4317"}, "Options.File=", "Options.Endpoint=", "exclude each other")
	wantNewError(t, Options{Rotation: otlpfile.Rotation{MaxFileBytes: 1}}, "Options.Rotation={MaxFileBytes:1 ", "set File")
	wantNewError(t, Options{File: path, Rotation: otlpfile.Rotation{MaxFileBytes: -1}}, "Options.File=", "above zero")
	wantNewError(t, Options{Protocol: HTTP, File: path}, "Options.File=", "Options.Protocol=http", "exclude each other")
	if _, err := os.Stat(path); err == nil {
		t.Error("a New that failed left a file behind")
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New(ctx, Options{File: path}); err == nil {
		t.Error("New ran with a context that had ended")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a New whose context had ended left a file behind")
	}
}

func TestBadEnvironment(t *testing.T) {
	for _, v := range []string{"ENDPOINT", "TRACES_ENDPOINT"} {
		for url, want := range badURLs {
			t.Run(v+"="+url, func(t *testing.T) {
				t.Setenv("OTEL_EXPORTER_OTLP_"+v, url)
				wantNewError(t, Options{}, "OTEL_EXPORTER_OTLP_"+v+`="`+url+`"`, want)
			})
		}
	}
	for _, x := range []struct{ name, value, want string }{
		{"OTEL_EXPORTER_OTLP_PROTOCOL", "thrift", "grpc, http/protobuf or http/json"},
		{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http", "grpc, http/protobuf or http/json"},
		{"OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "milliseconds"},
		{"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "-1", "milliseconds"},
		{"OTEL_RESOURCE_ATTRIBUTES", "team", "key=value"},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Setenv(x.name, x.value)
			wantNewError(t, Options{}, x.name+`="`+x.value+`"`, x.want)
		})
	}
}

func TestTarget(t *testing.T) {
	const env = "OTEL_EXPORTER_OTLP_"
	for _, x := range []struct {
		name string
		env  map[string]string
		opts Options
		want target
	}{
		{name: "nothing", want: target{protocol: HTTP, url: "http://localhost:4318/v1/traces", timeout: DefaultTimeout}},
		{name: "grpc", opts: Options{Protocol: GRPC}, want: target{protocol: GRPC, url: "http://localhost:4317", timeout: DefaultTimeout}},
		{name: "env grpc", env: map[string]string{"PROTOCOL": "grpc"}, want: target{protocol: GRPC, url: "http://localhost:4317", timeout: DefaultTimeout}},
		{name: "traces protocol wins", env: map[string]string{"PROTOCOL": "grpc", "TRACES_PROTOCOL": "http/json"},
			want: target{protocol: HTTP, json: true, url: "http://localhost:4318/v1/traces", timeout: DefaultTimeout}},
		{name: "option wins", env: map[string]string{"PROTOCOL": "http/protobuf"}, opts: Options{Protocol: GRPC},
			want: target{protocol: GRPC, url: "http://localhost:4317", timeout: DefaultTimeout}},
		{name: "port 4317", opts: Options{Endpoint: "http://h:4317"}, want: target{protocol: GRPC, url: "http://h:4317", timeout: DefaultTimeout}},
		{name: "port 4317 by env", env: map[string]string{"ENDPOINT": "http://h:4317/"}, want: target{protocol: GRPC, url: "http://h:4317", timeout: DefaultTimeout}},
		{name: "port 4317 with HTTP", env: map[string]string{"PROTOCOL": "http/protobuf"}, opts: Options{Endpoint: "http://h:4317"},
			want: target{protocol: HTTP, url: "http://h:4317/v1/traces", timeout: DefaultTimeout}},
		{name: "other port", opts: Options{Endpoint: "https://h:9999/"}, want: target{protocol: HTTP, url: "https://h:9999/v1/traces", timeout: DefaultTimeout}},
		{name: "own path", opts: Options{Endpoint: "https://h/otlp/in"}, want: target{protocol: HTTP, url: "https://h/otlp/in", timeout: DefaultTimeout}},
		{name: "IPv6", opts: Options{Endpoint: "http://[::1]:4318"}, want: target{protocol: HTTP, url: "http://[::1]:4318/v1/traces", timeout: DefaultTimeout}},
		{name: "base", env: map[string]string{"ENDPOINT": "https://h/otlp/"}, want: target{protocol: HTTP, url: "https://h/otlp/v1/traces", timeout: DefaultTimeout}},
		{name: "as it stands", env: map[string]string{"TRACES_ENDPOINT": "https://h/in", "ENDPOINT": "http://other"},
			want: target{protocol: HTTP, url: "https://h/in", timeout: DefaultTimeout}},
		{name: "as it stands, no path", env: map[string]string{"TRACES_ENDPOINT": "https://h"}, want: target{protocol: HTTP, url: "https://h/", timeout: DefaultTimeout}},
		{name: "option over env", env: map[string]string{"TRACES_ENDPOINT": "https://h/in"}, opts: Options{Endpoint: "http://mine"},
			want: target{protocol: HTTP, url: "http://mine/v1/traces", timeout: DefaultTimeout}},
		{name: "blank is unset", env: map[string]string{"TRACES_ENDPOINT": " ", "ENDPOINT": "http://h", "TIMEOUT": ""},
			want: target{protocol: HTTP, url: "http://h/v1/traces", timeout: DefaultTimeout}},
		{name: "timeout", env: map[string]string{"TIMEOUT": "1500"}, want: target{protocol: HTTP, url: "http://localhost:4318/v1/traces", timeout: 1500 * time.Millisecond}},
		{name: "traces timeout", env: map[string]string{"TIMEOUT": "1500", "TRACES_TIMEOUT": "7"},
			want: target{protocol: HTTP, url: "http://localhost:4318/v1/traces", timeout: 7 * time.Millisecond}},
		{name: "timeout option", env: map[string]string{"TIMEOUT": "1500"}, opts: Options{Timeout: time.Hour},
			want: target{protocol: HTTP, url: "http://localhost:4318/v1/traces", timeout: time.Hour}},
	} {
		t.Run(x.name, func(t *testing.T) {
			for k, v := range x.env {
				t.Setenv(env+k, v)
			}
			if err := x.opts.complete(); err != nil {
				t.Fatal(err)
			}
			got, err := resolveTarget(&x.opts, batching{})
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, x.want) {
				t.Errorf("got %+v, want %+v", got, x.want)
			}
		})
	}
}

func TestGRPCAddress(t *testing.T) {
	for raw, want := range map[string]string{
		"http://h":                  "h:80",
		"https://h":                 "h:443",
		"http://h:":                 "h:80",
		"HTTPS://h:/":               "h:443",
		"http://h:4317/":            "h:4317",
		"http://[::1]:4317":         "[::1]:4317",
		"http://[::1]":              "[::1]:80",
		"https://[fe80::1%25eth0]/": "[fe80::1%25eth0]:443",
	} {
		u, err := parseEndpoint(raw)
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		if got := grpcAddress(u); got != want {
			t.Errorf("%s is %s, want %s", raw, got, want)
		}
		newTestProvider(t, Options{Endpoint: raw, Protocol: GRPC})
		newTestProvider(t, Options{Endpoint: raw, Protocol: HTTP})
	}
}

// Variables that go together.
func TestEnvironment(t *testing.T) {
	eachProtocol(t, func(t *testing.T, proto Protocol) {
		c := startCollector(t, proto)
		t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.URL)
		t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", map[Protocol]string{GRPC: "grpc", HTTP: "http/protobuf"}[proto])
		t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-token=a%20b")
		t.Setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
		t.Setenv("OTEL_SERVICE_NAME", "from-env")
		t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "team=storage,service.name=loses")
		p := newTestProvider(t, Options{})
		emit(p, 3)
		if err := p.Shutdown(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		if got := len(c.received()); got != 3 {
			t.Errorf("the collector has %d spans, want 3", got)
		}
		if c.resource["service.name"] != "from-env" || c.resource["team"] != "storage" {
			t.Errorf("resource is %v, want service.name from-env and team storage", c.resource)
		}
		if got := c.header.Get("X-Token"); got != "a b" {
			t.Errorf("header x-token is %q, want %q", got, "a b")
		}
		if proto == HTTP && (c.path != "/v1/traces" || c.header.Get("Content-Encoding") != "gzip") {
			t.Errorf("path is %q and encoding %q, want /v1/traces and gzip", c.path, c.header.Get("Content-Encoding"))
		}
	})
}

func TestServiceNameOverridesEnvironment(t *testing.T) {
	t.Setenv("OTEL_SERVICE_NAME", "from-env")
	path := filepath.Join(t.TempDir(), "trace.json")
	p := newTestProvider(t, Options{File: path, ServiceName: "from-code"})
	emit(p, 1)
	if err := p.Shutdown(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, resource := readFile(t, path); resource["service.name"] != "from-code" {
		t.Errorf("service.name is %q, want from-code", resource["service.name"])
	}
}

func TestCertificateFromEnvironment(t *testing.T) {
	c := &collector{}
	s := httptest.NewTLSServer(c)
	defer s.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", writeCertificate(t, s))
	p := newTestProvider(t, Options{Endpoint: s.URL})
	emit(p, 3)
	if err := p.Shutdown(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if got := len(c.received()); got != 3 {
		t.Errorf("the collector has %d spans, want 3", got)
	}
}

func TestProtocolString(t *testing.T) {
	if got := GRPC.String() + HTTP.String() + Protocol(9).String(); got != "grpchttpProtocol(9)" {
		t.Errorf("the names are %q", got)
	}
}
