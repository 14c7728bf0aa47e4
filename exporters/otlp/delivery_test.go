package otlp

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	protobufType = "application/x-protobuf"
	jsonType     = "application/json"
	loginPage    = "<!doctype html><title>Sign in</title><form>…</form>"
)

// partial is the response that rejects n spans.
func partial(n int64, message string) string {
	b, err := proto.Marshal(&collectorpb.ExportTraceServiceResponse{
		PartialSuccess: &collectorpb.ExportTracePartialSuccess{RejectedSpans: n, ErrorMessage: message}})
	if err != nil {
		panic(err)
	}
	return string(b)
}

func zipped(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, s)
	z.Close()
	return b.String()
}

// Of 10 spans as many are exported as the server says by an OTLP response.
func TestDeliveryIsAnOTLPResponse(t *testing.T) {
	for _, x := range []struct {
		name     string
		json     bool // asked for
		status   int
		header   string // name: value
		body     string
		exported int64
		want     string // in the error
	}{
		{name: "empty response", status: 200, header: protobufType, exported: 10},
		{name: "parameter", status: 200, header: protobufType + "; charset=binary", exported: 10},
		{name: "capitals", status: 200, header: "Application/X-Protobuf", exported: 10},
		{name: "no body, no type", status: 200, exported: 10},
		{name: "no content", status: 204, exported: 10},
		{name: "accepted", status: 202, header: protobufType, exported: 10},
		{name: "3 rejected", status: 200, header: protobufType, body: partial(3, "too old"), exported: 7, want: "too old"},
		{name: "3 rejected, parameter", status: 200, header: protobufType + ";v=1", body: partial(3, "too old"), exported: 7, want: "too old"},
		{name: "all rejected", status: 200, header: protobufType, body: partial(10, ""), want: "rejected"},
		{name: "more rejected than sent", status: 200, header: protobufType, body: partial(1000, ""), want: "rejected"},
		{name: "a remark", status: 200, header: protobufType, body: partial(0, "slow down"), exported: 10},
		{name: "JSON", json: true, status: 200, header: jsonType, body: "{}", exported: 10},
		{name: "JSON, parameter", json: true, status: 200, header: jsonType + "; charset=utf-8", body: `{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}}`, exported: 7, want: "too old"},
		{name: "JSON, number", json: true, status: 200, header: jsonType, body: `{"partialSuccess":{"rejectedSpans":3}}`, exported: 7},
		{name: "JSON, of a later version", json: true, status: 200, header: jsonType, body: `{"new":[]}`, exported: 10},
		{name: "JSON, no body, no type", json: true, status: 200, exported: 10},

		{name: "login page", status: 200, header: "text/html; charset=utf-8", body: loginPage, want: "text/html"},
		{name: "empty page", status: 200, header: "text/html", want: "text/html"},
		{name: "plain text", status: 200, header: "text/plain", body: "OK", want: "text/plain"},
		{name: "no type", status: 200, body: loginPage, want: "content type"},
		{name: "no type, 201", status: 201, header: "-", body: loginPage, want: "content type"},
		{name: "page that says protobuf", status: 200, header: protobufType, body: loginPage, want: "response of OTLP"},
		{name: "JSON to protobuf", status: 200, header: jsonType, body: "{}", want: jsonType},
		{name: "other JSON to protobuf", status: 200, header: jsonType, body: `{"error":"who are you?"}`, want: jsonType},
		{name: "protobuf to JSON", json: true, status: 200, header: protobufType, body: partial(3, ""), want: protobufType},
		{name: "page to JSON", json: true, status: 200, header: "text/html", body: loginPage, want: "text/html"},
		{name: "page that says JSON", json: true, status: 200, header: jsonType, body: loginPage, want: "response of OTLP"},
		{name: "JSON list", json: true, status: 200, header: jsonType, body: "[]", want: "response of OTLP"},
		{name: "half of JSON", json: true, status: 200, header: jsonType, body: `{"partialSuccess":{`, want: "response of OTLP"},
		{name: "endless", status: 200, header: protobufType, body: strings.Repeat("\x0a\x00", maxAnswer), want: "larger than"},
		{name: "endless page", status: 500, header: "text/html", body: strings.Repeat("x", maxAnswer+1), want: "larger than"},
		{name: "not modified", status: 304, want: "304"},
		{name: "multiple choices", status: 300, header: "text/html", body: loginPage, want: "300"},
		{name: "unauthorized", status: 401, header: "text/html", body: loginPage, want: "401"},
		{name: "not found", status: 404, header: "text/plain", body: "404 page not found\n", want: "404 page not found"},
		{name: "status message", status: 400, header: protobufType, body: "\x08\x03\x12\x0ano thanks!", want: "no thanks!"},
		{name: "status that is none", status: 400, header: protobufType, body: "\xff\xff\x12no", want: "400"},
		{name: "long page", status: 403, header: "text/html", body: strings.Repeat("x\n\xff", 100_000), want: "403"},
	} {
		for _, packed := range []bool{false, true} {
			name := x.name
			if packed {
				name += ", gzip"
			}
			t.Run(name, func(t *testing.T) {
				s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					io.Copy(io.Discard, r.Body)
					w.Header()["Content-Type"] = nil // do not guess
					if x.header != "" && x.header != "-" {
						w.Header().Set("Content-Type", x.header)
					}
					body := x.body
					if packed && body != "" {
						w.Header().Set("Content-Encoding", "gzip")
						body = zipped(body)
					}
					w.WriteHeader(x.status)
					io.WriteString(w, body)
				}))
				defer s.Close()
				if x.json {
					t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
				}
				p := newTestProvider(t, Options{Endpoint: s.URL})
				emit(p, 10)
				err := p.Shutdown(within(t, time.Minute))
				wantStats(t, p, Stats{Accepted: 10, Exported: x.exported, Failed: 10 - x.exported})
				if x.exported == 10 {
					if err != nil {
						t.Error(err)
					}
					return
				}
				if err == nil || !strings.Contains(err.Error(), x.want) {
					t.Fatalf("Shutdown returned %v, want an error with %q", err, x.want)
				}
				if text := err.Error(); len(text) > 4096 || !utf8.ValidString(text) || strings.Contains(text, "\n") {
					t.Errorf("the error has %d bytes, more than one line or is not UTF-8: %.200q", len(text), text)
				}
			})
		}
	}
}

// A redirect is not followed: not within a host, and not to another, which
// would get the headers.
func TestRedirectsAreNotFollowed(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			var elsewhere atomic.Int64
			count := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				elsewhere.Add(1)
				w.Header().Set("Content-Type", protobufType)
			})
			other := httptest.NewServer(count)
			defer other.Close()
			for _, to := range []string{"/same/host", other.URL + "/v1/traces", "//" + strings.TrimPrefix(other.URL, "http://"), ""} {
				mux := http.NewServeMux()
				mux.Handle("/same/host", count)
				mux.HandleFunc("/v1/traces", func(w http.ResponseWriter, r *http.Request) {
					if to != "" {
						w.Header().Set("Location", to)
					}
					w.WriteHeader(status)
				})
				s := httptest.NewServer(mux)
				t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret")
				p := newTestProvider(t, Options{Endpoint: s.URL})
				emit(p, 10)
				err := p.Shutdown(within(t, time.Minute))
				s.Close()
				wantStats(t, p, Stats{Accepted: 10, Failed: 10})
				if err == nil || !strings.Contains(err.Error(), http.StatusText(status)) || !strings.Contains(err.Error(), to) || !strings.Contains(err.Error(), "redirects are not followed") {
					t.Errorf("to %q: Shutdown returned %v, want the status and where it leads", to, err)
				}
			}
			if n := elsewhere.Load(); n != 0 {
				t.Errorf("%d requests went to where the redirects lead", n)
			}
		})
	}
}

// A web server is no gRPC collector, whatever it answers.
func TestWebServerIsNoGRPCCollector(t *testing.T) {
	for _, status := range []int{200, 204, 302, 307} {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(status)
		}))
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
		p := newTestProvider(t, Options{Endpoint: s.URL, Protocol: GRPC, Timeout: 2 * time.Second})
		emit(p, 10)
		if err := p.Shutdown(within(t, time.Minute)); err == nil {
			t.Errorf("%d: Shutdown returned nil", status)
		}
		wantStats(t, p, Stats{Accepted: 10, Failed: 10})
		s.Close()
	}
}

// The words of a collector fit on a line of a log, whatever they are.
func TestLongWordsOfACollector(t *testing.T) {
	long := strings.Repeat("no\n", 30_000)
	eachProtocol(t, func(t *testing.T, proto Protocol) {
		c := startCollector(t, proto)
		c.reply = func(_ context.Context, request, _ int) (*collectorpb.ExportTraceServiceResponse, error) {
			if request == 1 && proto == HTTP {
				return nil, status.Error(codes.InvalidArgument, long)
			}
			if request == 1 {
				return nil, status.Error(codes.InvalidArgument, long[:3000]) // more does not fit into a header
			}
			return &collectorpb.ExportTraceServiceResponse{PartialSuccess: &collectorpb.ExportTracePartialSuccess{RejectedSpans: 1, ErrorMessage: long}}, nil
		}
		p := newTestProvider(t, Options{Endpoint: c.URL, Protocol: proto})
		for range 2 {
			emit(p, 1)
			err := p.ForceFlush(within(t, time.Minute))
			if err == nil || !strings.Contains(err.Error(), `no\nno`) || len(err.Error()) > 4096 || strings.Contains(err.Error(), "\n") {
				t.Errorf("ForceFlush returned %.5000v, want one line with the collector's words", err)
			}
		}
		wantStats(t, p, Stats{Accepted: 2, Failed: 2})
	})
}

// IPv6 addresses work, also with a zone.
func TestIPv6(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	l.Close()
	hosts := []string{"::1"}
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback != 0 {
			hosts = append(hosts, "::1%"+i.Name)
		}
	}
	eachProtocol(t, func(t *testing.T, proto Protocol) {
		for _, host := range hosts {
			c := &collector{}
			l, err := net.Listen("tcp", "[::1]:0")
			if err != nil {
				t.Fatal(err)
			}
			_, port, _ := net.SplitHostPort(l.Addr().String())
			conn, err := net.Dial("tcp", net.JoinHostPort(host, port))
			if err != nil {
				l.Close()
				t.Logf("this system knows no %s: %v", host, err)
				continue
			}
			conn.Close()
			if proto == HTTP {
				s := httptest.NewUnstartedServer(c)
				s.Listener.Close()
				s.Listener = l
				s.Start()
				t.Cleanup(s.Close)
			} else {
				serveGRPC(t, c, l)
			}
			p := newTestProvider(t, Options{Endpoint: "http://[" + strings.ReplaceAll(host, "%", "%25") + "]:" + port, Protocol: proto})
			emit(p, 1)
			if err := p.Shutdown(within(t, time.Minute)); err != nil {
				t.Errorf("%s: %v", host, err)
			}
			wantStats(t, p, Stats{Accepted: 1, Exported: 1})
		}
	})
}

// Several requests of one batch are counted one by one, each with what the
// collector rejects of it.
func TestLargeBatchIsSplit(t *testing.T) {
	eachProtocol(t, func(t *testing.T, proto Protocol) {
		c := startCollector(t, proto)
		c.reply = func(_ context.Context, request, spans int) (*collectorpb.ExportTraceServiceResponse, error) {
			r := &collectorpb.ExportTraceServiceResponse{}
			if request == 2 {
				r.PartialSuccess = &collectorpb.ExportTracePartialSuccess{RejectedSpans: 1, ErrorMessage: "one too many"}
			}
			return r, nil
		}
		p := newTestProvider(t, Options{Endpoint: c.URL, Protocol: proto})
		const spans = 500
		emitLarge(p, spans) // 8 MB, while a gRPC server takes 4 MiB by default
		err := p.Shutdown(within(t, time.Minute))
		if err == nil || !strings.Contains(err.Error(), "one too many") {
			t.Errorf("Shutdown returned %v, want the collector's words", err)
		}
		wantStats(t, p, Stats{Accepted: spans, Exported: spans - 1, Failed: 1})
		if got := len(ids(c.received())); got != spans || c.requests < 4 {
			t.Errorf("the collector got %d spans in %d requests, want %d in 4 or more", got, c.requests, spans)
		}
		if c.resource["service.name"] == "" {
			t.Error("the newest request has no resource")
		}
	})
}
