package otlp

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// setenv sets NAME=value pairs, one a line, with $DIR and such replaced.
func setenv(t *testing.T, pairs string, replace ...string) {
	t.Helper()
	for pair := range strings.Lines(pairs) {
		name, value, _ := strings.Cut(strings.TrimSuffix(pair, "\n"), "=")
		if !strings.HasPrefix(name, "OTEL_") {
			name = "OTEL_EXPORTER_OTLP_" + name
		}
		t.Setenv(name, strings.NewReplacer(replace...).Replace(value))
	}
}

// writeKeyPair writes a self-signed certificate for 127.0.0.1, which is its own
// authority, and its key.
func writeKeyPair(t *testing.T, certPath, keyPath string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{certPath: {Type: "CERTIFICATE", Bytes: cert}, keyPath: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// certificates returns a folder with good and bad files.
func certificates(t *testing.T) (dir string) {
	dir = t.TempDir()
	writeKeyPair(t, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	writeKeyPair(t, filepath.Join(dir, "cert2.pem"), filepath.Join(dir, "key2.pem"))
	for name, content := range map[string]string{"empty.pem": "", "text.pem": "no PEM\n", "broken.pem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Values that New refuses, with what its error says beside the variable and the
// value.
var refusedEnvironment = []struct{ env, want string }{
	{"OTEL_SDK_DISABLED=1", "true"},
	{"OTEL_SDK_DISABLED=yes", "true"},
	{"OTEL_TRACES_EXPORTER=zipkin", "otlp, console and none"},
	{"OTEL_TRACES_EXPORTER=logging", "otlp, console and none"},
	{"OTEL_TRACES_EXPORTER=otlp,console", "use one of"},
	{"OTEL_TRACES_SAMPLER=sometimes", "always_on"},
	{"OTEL_TRACES_SAMPLER=jaeger_remote", "always_on"},
	{"OTEL_TRACES_SAMPLER=always-on", "always_on"},
	{"OTEL_TRACES_SAMPLER_ARG=half\nOTEL_TRACES_SAMPLER=traceidratio", "0 to 1"},
	{"OTEL_TRACES_SAMPLER_ARG=-0.1\nOTEL_TRACES_SAMPLER=traceidratio", "0 to 1"},
	{"OTEL_TRACES_SAMPLER_ARG=1.1\nOTEL_TRACES_SAMPLER=parentbased_traceidratio", "0 to 1"},
	{"OTEL_TRACES_SAMPLER_ARG=NaN\nOTEL_TRACES_SAMPLER=parentbased_traceidratio", "0 to 1"},
	{"OTEL_TRACES_SAMPLER_ARG=Inf\nOTEL_TRACES_SAMPLER=traceidratio", "0 to 1"},
	{"OTEL_TRACES_SAMPLER_ARG=0,5\nOTEL_TRACES_SAMPLER=traceidratio", "0 to 1"},
	{"OTEL_RESOURCE_ATTRIBUTES=team", "key=value"},
	{"OTEL_RESOURCE_ATTRIBUTES=a=b,team", "member 2"},
	{"OTEL_RESOURCE_ATTRIBUTES==b", "key=value"},
	{"OTEL_RESOURCE_ATTRIBUTES=a=%zz", "%25"},
	{"OTEL_RESOURCE_ATTRIBUTES=a=100%", "%25"},
	{"OTEL_RESOURCE_ATTRIBUTES=%zz=a", "%25"},
	{"ENDPOINT=localhost:4317", "http://localhost:4318"},
	{"ENDPOINT=unix:///run/otlp.sock", "use http, or https"},
	{"ENDPOINT=file:///tmp/trace.json", "use http, or https"},
	{"ENDPOINT=grpc://localhost:4317", "use http, or https"},
	{"ENDPOINT=dns:///localhost:4317", "use http, or https"},
	{"ENDPOINT=http://localhost:65536", "1 to 65535"},
	{"ENDPOINT=http://localhost:-1", "http://localhost:4318"},
	{"ENDPOINT=http://::1:4318", "http://"}, // Go itself refuses it from 1.26 on
	{"ENDPOINT=http://[::1:4318", "http://localhost:4318"},
	{"ENDPOINT=http://h/%zz", "http://localhost:4318"},
	{"TRACES_ENDPOINT=http://\nENDPOINT=http://localhost:4318", "host is missing"},
	{"TRACES_ENDPOINT=http://h/v1/traces\nPROTOCOL=grpc", "gRPC takes no path"},
	{"ENDPOINT=http://h/a%2Fb\nPROTOCOL=grpc", "gRPC takes no path"},
	{"PROTOCOL=http", "grpc, http/protobuf or http/json"},
	{"PROTOCOL=udp", "grpc, http/protobuf or http/json"},
	{"TRACES_PROTOCOL=tcp\nPROTOCOL=grpc", "grpc, http/protobuf or http/json"},
	{"COMPRESSION=zstd", "gzip or none"},
	{"COMPRESSION=true", "gzip or none"},
	{"TRACES_COMPRESSION=deflate\nCOMPRESSION=gzip", "gzip or none"},
	{"HEADERS=novalue", "key=value"},
	{"TRACES_HEADERS=novalue\nHEADERS=a=b", "key=value"},
	{"CERTIFICATE=$DIR/missing.pem", "PEM"},
	{"CERTIFICATE=$DIR", "PEM"},
	{"CERTIFICATE=$DIR/empty.pem", "PEM"},
	{"CERTIFICATE=$DIR/text.pem", "PEM"},
	{"CERTIFICATE=$DIR/broken.pem", "PEM"},
	{"CERTIFICATE=$DIR/key.pem", "no certificate"},
	{"TRACES_CERTIFICATE=$DIR/missing.pem\nCERTIFICATE=$DIR/cert.pem", "PEM"},
	{"CLIENT_CERTIFICATE=$DIR/cert.pem", "CLIENT_KEY"},
	{"CLIENT_KEY=$DIR/key.pem", "CLIENT_CERTIFICATE"},
	{"TRACES_CLIENT_CERTIFICATE=$DIR/cert.pem", "CLIENT_KEY"},
	{"CLIENT_CERTIFICATE=$DIR/missing.pem\nCLIENT_KEY=$DIR/key.pem", "PEM"},
	{"CLIENT_KEY=$DIR/missing.pem\nCLIENT_CERTIFICATE=$DIR/cert.pem", "PEM"},
	{"CLIENT_CERTIFICATE=$DIR/text.pem\nCLIENT_KEY=$DIR/key.pem", "PEM"},
	{"CLIENT_CERTIFICATE=$DIR/cert.pem\nCLIENT_KEY=$DIR/key2.pem", "CLIENT_KEY"},
	{"CLIENT_CERTIFICATE=$DIR/cert.pem\nTRACES_CLIENT_KEY=$DIR/key2.pem", "TRACES_CLIENT_KEY"},
}

// Numbers that are refused for every variable that takes one.
var (
	refusedNumbers = []string{"-1", "many", "1.5", "1e3", "0x10", "10s", "1_000", "2147483648", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "1,000", "٣"}
	numbers        = []string{"OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_EXPORT_TIMEOUT", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
		"OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
		"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
		"OTEL_SPAN_EVENT_COUNT_LIMIT", "OTEL_SPAN_LINK_COUNT_LIMIT", "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT"}
)

func TestRefusedEnvironment(t *testing.T) {
	dir := certificates(t)
	for _, x := range refusedEnvironment {
		t.Run(x.env, func(t *testing.T) {
			setenv(t, x.env, "$DIR", dir)
			first, _, _ := strings.Cut(x.env, "\n")
			name, value, _ := strings.Cut(first, "=")
			wantNewError(t, Options{}, name+"="+strconv.Quote(strings.ReplaceAll(value, "$DIR", dir)), x.want)
		})
	}
	for _, name := range numbers {
		for _, value := range refusedNumbers {
			t.Run(name+"="+value, func(t *testing.T) {
				t.Setenv(name, value)
				wantNewError(t, Options{}, name+`="`+value+`"`, "use a whole number from ")
			})
		}
	}
	t.Run("a batch of 0", func(t *testing.T) {
		t.Setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0")
		wantNewError(t, Options{}, `OTEL_BSP_MAX_EXPORT_BATCH_SIZE="0"`, "from 1 to")
	})
}

// A header may be a key, and an error may end up in a log.
func TestRefusedHeadersStaySecret(t *testing.T) {
	for _, x := range []struct{ headers, protocol, want string }{
		{"authorization: Bearer secret", "", "key=value"},
		{"a=b,authorization secret", "", "member 2"},
		{"x-key=secret%zz", "", "%25"},
		{"x-key=secret%", "", "%25"},
		{"=secret", "", "no key"},
		{"x key=secret", "", `"x key" is not the name of a header`},
		{"x%20key=secret", "", `"x key" is not the name of a header`},
		{"clé=secret", "", "not the name of a header"},
		{"x!key=secret", "grpc", "not the name of a header by grpc"},
		{"x-key=secret%0Ax: y", "", "printable ASCII"},
		{"x-key=secret%00", "grpc", "printable ASCII"},
		{"x-key=secret%C3%A9", "grpc", "printable ASCII"},
	} {
		t.Run(x.headers, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", x.headers)
			t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", x.protocol)
			_, err := New(t.Context(), Options{})
			if err == nil || !strings.Contains(err.Error(), "otlp: New: OTEL_EXPORTER_OTLP_HEADERS=") || !strings.Contains(err.Error(), x.want) {
				t.Fatalf("New returned %v, want the variable and %q", err, x.want)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error shows the value: %v", err)
			}
		})
	}
}

// An outcome is what a program did whose environment is under test.
type outcome struct {
	*collector
	span   trace.Span // the program's one span of its own
	stdout string
}

// program starts and ends a root span and two that have a remote parent,
// sampled and not, and shuts down. Spans of the collector have its name.
func program(t *testing.T, c *collector) outcome {
	t.Helper()
	out := outcome{collector: c}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	stdout := os.Stdout
	os.Stdout = w
	p, err := New(t.Context(), Options{})
	os.Stdout = stdout
	if err != nil {
		t.Fatal(err)
	}
	tr := p.Tracer("test")
	remote := func(flags trace.TraceFlags) context.Context {
		return trace.ContextWithRemoteSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: flags, Remote: true}))
	}
	_, out.span = tr.Start(t.Context(), "root", trace.WithAttributes(attribute.String("a", "äbcdef"), attribute.Int("b", 1), attribute.Int("c", 1)),
		trace.WithLinks(trace.Link{SpanContext: trace.SpanContextFromContext(remote(0)), Attributes: []attribute.KeyValue{attribute.Int("a", 1), attribute.Int("b", 1)}},
			trace.Link{SpanContext: trace.SpanContextFromContext(remote(1))}))
	out.span.AddEvent("e1", trace.WithAttributes(attribute.Int("a", 1), attribute.Int("b", 1)))
	out.span.AddEvent("e2", trace.WithAttributes(attribute.Int("a", 1), attribute.Int("b", 1)))
	out.span.End()
	for name, flags := range map[string]trace.TraceFlags{"sampled": trace.FlagsSampled, "unsampled": 0} {
		_, s := tr.Start(remote(flags), name)
		s.End()
	}
	if err := errors.Join(p.ForceFlush(within(t, time.Minute)), p.Shutdown(within(t, time.Minute))); err != nil {
		t.Error(err)
	}
	if s := p.Stats(); s.Pending() != 0 || s.Lost() != 0 || p.Err() != nil {
		t.Errorf("stats are %+v, Err is %v", s, p.Err())
	}
	w.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	out.stdout = string(b)
	return out
}

// names returns the names of the spans that have arrived, in order.
func (o outcome) names() string {
	var names []string
	for _, s := range o.received() {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func wantNames(want string) func(*testing.T, outcome) {
	return func(t *testing.T, o outcome) {
		if got := o.names(); got != want {
			t.Errorf("%q arrived, want %q", got, want)
		}
	}
}

func wantResource(key, want string) func(*testing.T, outcome) {
	return func(t *testing.T, o outcome) {
		if got, ok := o.resource[key]; !ok || got != want {
			t.Errorf("the resource is %q, want %s to be %q", o.resource, key, want)
		}
	}
}

func wantHeader(key string, want ...string) func(*testing.T, outcome) {
	return func(t *testing.T, o outcome) {
		if got := o.header.Values(key); !slices.Equal(got, want) {
			t.Errorf("header %s is %q, want %q", key, got, want)
		}
	}
}

// wantRoot checks the counts of the root's attributes, events, links, the first
// event's attributes and the last but one link's.
func wantRoot(attributes, events, links, eventAttributes, linkAttributes int, text string) func(*testing.T, outcome) {
	return func(t *testing.T, o outcome) {
		for _, s := range o.received() {
			if s.Name != "root" {
				continue
			}
			got := []int{len(s.Attributes), len(s.Events), len(s.Links), 0, 0}
			if len(s.Events) > 0 {
				got[3] = len(s.Events[0].Attributes)
			}
			if len(s.Links) > 0 {
				got[4] = len(s.Links[0].Attributes)
			}
			if want := []int{attributes, events, links, eventAttributes, linkAttributes}; !slices.Equal(got, want) {
				t.Errorf("attributes, events, links, their attributes: %v, want %v", got, want)
			}
			if len(s.Attributes) > 0 && s.Attributes[0].Value.GetStringValue() != text {
				t.Errorf("the first attribute is %v, want %q", s.Attributes[0], text)
			}
			return
		}
		t.Error("no root arrived")
	}
}

const allSpans = "root sampled"

// Values that New takes, with their effect. The collector is by HTTP.
var acceptedEnvironment = []struct {
	env    string
	effect func(*testing.T, outcome)
}{
	{"OTEL_SDK_DISABLED=", wantNames(allSpans)},
	{"OTEL_SDK_DISABLED= \t", wantNames(allSpans)},
	{"OTEL_SDK_DISABLED=false", wantNames(allSpans)},
	{"OTEL_SDK_DISABLED=False", wantNames(allSpans)},
	{"OTEL_SDK_DISABLED=true", wantDisabled},
	{"OTEL_SDK_DISABLED=TRUE\nPROTOCOL=nonsense\nOTEL_TRACES_SAMPLER=nonsense\nOTEL_BSP_SCHEDULE_DELAY=x", wantDisabled},
	{"OTEL_SDK_DISABLED= true ", wantDisabled},
	{"OTEL_TRACES_EXPORTER=", wantNames(allSpans)},
	{"OTEL_TRACES_EXPORTER=OTLP", wantNames(allSpans)},
	{"OTEL_TRACES_EXPORTER=none", wantNone},
	{"OTEL_TRACES_EXPORTER= None \nENDPOINT=nonsense", wantNone},
	{"OTEL_TRACES_EXPORTER=console", wantConsole},
	{"OTEL_TRACES_EXPORTER=Console\nENDPOINT=nonsense", wantConsole},
	{"OTEL_TRACES_EXPORTER=otlp/stdout", wantConsole},
	{"OTEL_TRACES_SAMPLER=", wantNames(allSpans)},
	{"OTEL_TRACES_SAMPLER=parentbased_always_on", wantNames(allSpans)},
	{"OTEL_TRACES_SAMPLER=ParentBased_Always_On", wantNames(allSpans)},
	{"OTEL_TRACES_SAMPLER=parentbased_always_off", wantNames("sampled")},
	{"OTEL_TRACES_SAMPLER= always_on ", wantNames("root sampled unsampled")},
	{"OTEL_TRACES_SAMPLER=ALWAYS_OFF", wantNames("")},
	{"OTEL_TRACES_SAMPLER=traceidratio", wantNames("root sampled unsampled")},
	{"OTEL_TRACES_SAMPLER=traceidratio\nOTEL_TRACES_SAMPLER_ARG= ", wantNames("root sampled unsampled")},
	{"OTEL_TRACES_SAMPLER=traceidratio\nOTEL_TRACES_SAMPLER_ARG=1", wantNames("root sampled unsampled")},
	{"OTEL_TRACES_SAMPLER=traceidratio\nOTEL_TRACES_SAMPLER_ARG= 0.0 ", wantNames("")},
	{"OTEL_TRACES_SAMPLER=parentbased_traceidratio\nOTEL_TRACES_SAMPLER_ARG=0", wantNames("sampled")},
	{"OTEL_TRACES_SAMPLER=parentbased_traceidratio", wantNames(allSpans)},
	{"OTEL_TRACES_SAMPLER_ARG=nonsense", wantNames(allSpans)},
	{"OTEL_TRACES_SAMPLER=always_on\nOTEL_TRACES_SAMPLER_ARG=nonsense", wantNames("root sampled unsampled")},
	{"OTEL_SERVICE_NAME=indexer", wantResource("service.name", "indexer")},
	{"OTEL_SERVICE_NAME= indexer ", wantResource("service.name", "indexer")},
	{"OTEL_SERVICE_NAME=ìndéxer", wantResource("service.name", "ìndéxer")},
	{"OTEL_SERVICE_NAME=indexer\nOTEL_RESOURCE_ATTRIBUTES=service.name=other", wantResource("service.name", "indexer")},
	{"OTEL_SERVICE_NAME= \nOTEL_RESOURCE_ATTRIBUTES=service.name=other", wantResource("service.name", "other")},
	{"OTEL_SERVICE_NAME=in\xffdexer", wantResource("service.name", "in\ufffddexer")},
	{"OTEL_RESOURCE_ATTRIBUTES=service.name=", func(t *testing.T, o outcome) {
		program, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		wantResource("service.name", "unknown_service:"+filepath.Base(program))(t, o)
	}},
	{"OTEL_RESOURCE_ATTRIBUTES=a=b,", wantResource("a", "b")},
	{"OTEL_RESOURCE_ATTRIBUTES=,, a = b ,,c=d,", wantResource("c", "d")},
	{"OTEL_RESOURCE_ATTRIBUTES=,", wantNames(allSpans)},
	{"OTEL_RESOURCE_ATTRIBUTES= a = b ", wantResource("a", "b")},
	{"OTEL_RESOURCE_ATTRIBUTES=a=", wantResource("a", "")},
	{"OTEL_RESOURCE_ATTRIBUTES=a=b=c", wantResource("a", "b=c")},
	{"OTEL_RESOURCE_ATTRIBUTES=a=b,a=c", wantResource("a", "c")},
	{"OTEL_RESOURCE_ATTRIBUTES=a=%20b%2Cc%3Dd%25+%E2%82%AC", wantResource("a", " b,c=d%+€")},
	{"OTEL_RESOURCE_ATTRIBUTES=a%2Cb=c", func(t *testing.T, o outcome) {
		wantResource("a,b", "c")(t, o)
		if _, ok := o.resource["a%2Cb"]; ok {
			t.Error("the encoded key arrived too")
		}
	}},
	{"OTEL_RESOURCE_ATTRIBUTES=a=%FF", wantResource("a", "\ufffd")},
	{"OTEL_BSP_SCHEDULE_DELAY=", wantBatching(batching{5 * time.Second, 512, 0})},
	{"OTEL_BSP_SCHEDULE_DELAY=0", wantBatching(batching{minDelay, 512, 0})},
	{"OTEL_BSP_SCHEDULE_DELAY=1", wantBatching(batching{minDelay, 512, 0})},
	{"OTEL_BSP_SCHEDULE_DELAY= 1500 ", wantBatching(batching{1500 * time.Millisecond, 512, 0})},
	{"OTEL_BSP_SCHEDULE_DELAY=2147483647", wantBatching(batching{unlimited, 512, 0})},
	{"OTEL_BSP_MAX_EXPORT_BATCH_SIZE=1", func(t *testing.T, o outcome) {
		wantBatching(batching{5 * time.Second, 1, 0})(t, o)
		if o.requests != 2 {
			t.Errorf("%d requests for 2 spans, want 2", o.requests)
		}
	}},
	{"OTEL_BSP_MAX_EXPORT_BATCH_SIZE=2147483647", wantNames(allSpans)},
	{"OTEL_BSP_EXPORT_TIMEOUT=0", wantBatching(batching{5 * time.Second, 512, unlimited})},
	{"OTEL_BSP_EXPORT_TIMEOUT=7000", wantBatching(batching{5 * time.Second, 512, 7 * time.Second})},
	{"OTEL_BSP_MAX_QUEUE_SIZE=-1", wantBatching(batching{5 * time.Second, 512, 0})},
	{"OTEL_BSP_MAX_QUEUE_SIZE=1", func(t *testing.T, o outcome) {
		wantBatching(batching{5 * time.Second, 512, 0})(t, o)
		wantNames(allSpans)(t, o)
		if o.requests != 1 {
			t.Errorf("%d requests, want 1: the size was read", o.requests)
		}
	}},
	{"OTEL_BSP_MAX_QUEUE_SIZE=9223372036854775807", wantNames(allSpans)},
	{"OTEL_BSP_MAX_QUEUE_SIZE=many", wantNames(allSpans)},
	{"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT= 2 ", wantRoot(2, 2, 2, 2, 2, "äbcdef")},
	{"OTEL_ATTRIBUTE_COUNT_LIMIT=2", wantRoot(2, 2, 2, 2, 2, "äbcdef")},
	{"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT=1\nOTEL_ATTRIBUTE_COUNT_LIMIT=2", wantRoot(1, 2, 2, 2, 2, "äbcdef")},
	{"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT=0", wantRoot(0, 2, 2, 2, 2, "")},
	{"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT=2147483647", wantRoot(3, 2, 2, 2, 2, "äbcdef")},
	{"OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT=3", wantRoot(3, 2, 2, 2, 2, "äbc")},
	{"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT=1", wantRoot(3, 2, 2, 2, 2, "ä")},
	{"OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT=3\nOTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT=1", wantRoot(3, 2, 2, 2, 2, "äbc")},
	{"OTEL_SPAN_EVENT_COUNT_LIMIT=1", wantRoot(3, 1, 2, 2, 2, "äbcdef")},
	{"OTEL_SPAN_EVENT_COUNT_LIMIT=2147483647", wantRoot(3, 2, 2, 2, 2, "äbcdef")},
	{"OTEL_SPAN_LINK_COUNT_LIMIT=0", wantRoot(3, 2, 0, 2, 0, "äbcdef")},
	{"OTEL_SPAN_LINK_COUNT_LIMIT=2147483647", wantRoot(3, 2, 2, 2, 2, "äbcdef")},
	{"OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT=1", wantRoot(3, 2, 2, 1, 2, "äbcdef")},
	{"OTEL_LINK_ATTRIBUTE_COUNT_LIMIT=1", wantRoot(3, 2, 2, 2, 1, "äbcdef")},
	{"ENDPOINT= $URL/ ", wantPath("/v1/traces")},
	{"ENDPOINT=$URL/base", wantPath("/base/v1/traces")},
	{"ENDPOINT=$URL/a%2Fb/", wantPath("/a%2Fb/v1/traces")},
	{"ENDPOINT=$URL/a//b/../c", wantPath("/a//b/../c/v1/traces")},
	{"TRACES_ENDPOINT=$URL/in%2Fput?\nENDPOINT=nonsense", wantPath("/in%2Fput")},
	{"TRACES_ENDPOINT=$URL", wantPath("/")},
	{"TRACES_ENDPOINT=$URL/%C3%A9%20/x//", wantPath("/%C3%A9%20/x//")},
	{"TRACES_ENDPOINT= \nENDPOINT=$URL", wantPath("/v1/traces")},
	{"PROTOCOL= HTTP/Protobuf ", wantHeader("Content-Type", "application/x-protobuf")},
	{"PROTOCOL=http/json", wantHeader("Content-Type", "application/json")},
	{"TRACES_PROTOCOL=http/json\nPROTOCOL=grpc", wantHeader("Content-Type", "application/json")},
	{"TIMEOUT=0", wantTimeout(unlimited)},
	{"TIMEOUT=2147483647", wantTimeout(unlimited)},
	{"TRACES_TIMEOUT=70000\nTIMEOUT=60000", wantTimeout(70 * time.Second)},
	{"TIMEOUT=60000\nOTEL_BSP_EXPORT_TIMEOUT=50000", wantTimeout(50 * time.Second)},
	{"TIMEOUT=60000\nOTEL_BSP_EXPORT_TIMEOUT=0", wantTimeout(60 * time.Second)},
	{"COMPRESSION=gzip", wantHeader("Content-Encoding", "gzip")},
	{"COMPRESSION= GZip ", wantHeader("Content-Encoding", "gzip")},
	{"COMPRESSION=none", wantHeader("Content-Encoding")},
	{"TRACES_COMPRESSION=NONE\nCOMPRESSION=gzip", wantHeader("Content-Encoding")},
	{"TRACES_COMPRESSION= \nCOMPRESSION=gzip", wantHeader("Content-Encoding", "gzip")},
	{"HEADERS=x-key=a", wantHeader("X-Key", "a")},
	{"HEADERS=X-KEY = a%20b%2C%3D%25 ,", wantHeader("X-Key", "a b,=%")},
	{"HEADERS=x-key=a,x-KEY=b", wantHeader("X-Key", "b")},
	{"HEADERS=x-key=dG9rZW4==", wantHeader("X-Key", "dG9rZW4==")},
	{"HEADERS=x-key=", wantHeader("X-Key", "")},
	{"HEADERS=x!key=%C3%A9", wantHeader("X!key", "é")},
	{"HEADERS=,", wantNames(allSpans)},
	{"TRACES_HEADERS=x-traces=a\nHEADERS=x-key=b", func(t *testing.T, o outcome) {
		wantHeader("X-Traces", "a")(t, o)
		wantHeader("X-Key")(t, o)
	}},
	{"CERTIFICATE=$DIR/cert.pem", wantNames(allSpans)}, // of no use by http
	{"CLIENT_CERTIFICATE=$DIR/cert.pem\nCLIENT_KEY=$DIR/key.pem", wantNames(allSpans)},
	{"TRACES_CLIENT_CERTIFICATE=$DIR/cert.pem\nTRACES_CLIENT_KEY=$DIR/key.pem\nCLIENT_KEY=nonsense", wantNames(allSpans)},
	{"INSECURE=false", wantNames(allSpans)},
	{"INSECURE=nonsense\nTRACES_INSECURE=nonsense", wantNames(allSpans)},
	{"OTEL_LOG_LEVEL=nonsense", wantNames(allSpans)},
	{"OTEL_PROPAGATORS=nonsense", wantNames(allSpans)},
	{"OTEL_CONFIG_FILE=/nonsense", wantNames(allSpans)},
	{"OTEL_ENTITIES=nonsense", wantNames(allSpans)},
}

func wantDisabled(t *testing.T, o outcome) {
	if o.span.IsRecording() || o.span.SpanContext().IsValid() || o.names() != "" || o.stdout != "" {
		t.Errorf("a disabled SDK made the span %v; %q arrived", o.span.SpanContext(), o.names())
	}
}

func wantNone(t *testing.T, o outcome) {
	if !o.span.SpanContext().IsValid() || o.names() != "" || o.stdout != "" {
		t.Errorf("the span is %v, %q arrived, standard output has %q; want a span that goes nowhere", o.span.SpanContext(), o.names(), o.stdout)
	}
}

func wantConsole(t *testing.T, o outcome) {
	path := filepath.Join(t.TempDir(), "stdout")
	if err := os.WriteFile(path, []byte(o.stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	if spans, _ := readFile(t, path); len(spans) != 2 || o.names() != "" {
		t.Errorf("standard output has %d spans, the collector %q; want 2 and none", len(spans), o.names())
	}
}

// wantBatching checks what the program's batch processor was made with.
func wantBatching(want batching) func(*testing.T, outcome) {
	return func(t *testing.T, o outcome) {
		if got, err := envBatching(); err != nil || got != want {
			t.Errorf("batching is %+v, %v, want %+v", got, err, want)
		}
		wantNames(allSpans)(t, o)
	}
}

func wantTimeout(want time.Duration) func(*testing.T, outcome) {
	return func(t *testing.T, o outcome) {
		b, err := envBatching()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := resolveTimeout(&Options{}, b); err != nil || got != want {
			t.Errorf("the timeout is %v, %v, want %v", got, err, want)
		}
		wantNames(allSpans)(t, o)
	}
}

func wantPath(want string) func(*testing.T, outcome) {
	return func(t *testing.T, o outcome) {
		if o.uri != want {
			t.Errorf("spans were posted to %s, want %s", o.uri, want)
		}
		wantNames(allSpans)(t, o)
	}
}

func TestAcceptedEnvironment(t *testing.T) {
	dir := certificates(t)
	for _, x := range acceptedEnvironment {
		t.Run(x.env, func(t *testing.T) {
			c := startCollector(t, HTTP)
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.URL)
			setenv(t, x.env, "$DIR", dir, "$URL", c.URL)
			x.effect(t, program(t, c))
		})
	}
}

// What gRPC does with the variables that HTTP has too.
func TestAcceptedEnvironmentByGRPC(t *testing.T) {
	for _, x := range []struct {
		env    string
		effect func(*testing.T, outcome)
	}{
		{"HEADERS=X-Key=a%20b,", wantHeader("X-Key", "a b")},
		{"COMPRESSION=GZIP", wantHeader("Grpc-Accept-Encoding", "gzip")},
		{"ENDPOINT=$URL/", wantNames(allSpans)},
		{"OTEL_BSP_SCHEDULE_DELAY=0\nTIMEOUT=0", wantNames(allSpans)},
	} {
		t.Run(x.env, func(t *testing.T) {
			c := startCollector(t, GRPC)
			t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "GRPC")
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.URL)
			setenv(t, x.env, "$URL", c.URL)
			x.effect(t, program(t, c))
		})
	}
}

// Options override the environment.
func TestOptionsOverrideExporterSelection(t *testing.T) {
	c := startCollector(t, HTTP)
	t.Setenv("OTEL_TRACES_EXPORTER", "none")
	p := newTestProvider(t, Options{Endpoint: c.URL})
	emit(p, 1)
	path := filepath.Join(t.TempDir(), "trace.json")
	f := newTestProvider(t, Options{File: path})
	emit(f, 1)
	if err := errors.Join(p.Shutdown(within(t, time.Minute)), f.Shutdown(within(t, time.Minute))); err != nil {
		t.Fatal(err)
	}
	if spans, _ := readFile(t, path); len(spans) != 1 || len(c.received()) != 1 {
		t.Errorf("%d spans in the file, %d at the collector, want one each", len(spans), len(c.received()))
	}
}

// A disabled SDK writes nothing, and refuses options all the same.
func TestDisabledMakesNoFile(t *testing.T) {
	t.Setenv("OTEL_SDK_DISABLED", "true")
	path := filepath.Join(t.TempDir(), "trace.json")
	p := newTestProvider(t, Options{File: path})
	emit(p, 1)
	if err := p.Shutdown(within(t, time.Minute)); err != nil {
		t.Error(err)
	}
	wantStats(t, p, Stats{})
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("a disabled provider made its file: %v", err)
	}
	wantNewError(t, Options{QueueSize: -1}, "Options.QueueSize=-1")
}

// Both protocols use the certificates, and the one for traces wins.
func TestCertificates(t *testing.T) {
	dir := certificates(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	serverCert, err := tls.LoadX509KeyPair(file("cert.pem"), file("key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	b, err := os.ReadFile(file("cert2.pem"))
	if err != nil || !pool.AppendCertsFromPEM(b) {
		t.Fatalf("cert2.pem: %v", err)
	}
	// The server trusts the second pair alone.
	config := &tls.Config{Certificates: []tls.Certificate{serverCert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	eachProtocol(t, func(t *testing.T, proto Protocol) {
		c := &collector{}
		if proto == HTTP {
			s := httptest.NewUnstartedServer(c)
			s.TLS = config
			s.Config.ErrorLog = discardLog
			s.StartTLS()
			t.Cleanup(s.Close)
			c.URL = s.URL
		} else {
			startGRPC(t, c, grpc.Creds(credentials.NewTLS(config)))
			c.URL = strings.Replace(c.URL, "http:", "https:", 1)
		}
		for _, x := range []struct {
			env  string
			want Stats
		}{
			{"CERTIFICATE=$DIR/cert.pem\nCLIENT_CERTIFICATE=$DIR/cert2.pem\nCLIENT_KEY=$DIR/key2.pem", Stats{Accepted: 1, Exported: 1}},
			{"TRACES_CERTIFICATE=$DIR/cert.pem\nTRACES_CLIENT_CERTIFICATE=$DIR/cert2.pem\nTRACES_CLIENT_KEY=$DIR/key2.pem\n" +
				"CERTIFICATE=nonsense\nCLIENT_CERTIFICATE=nonsense\nCLIENT_KEY=nonsense\nINSECURE=true", Stats{Accepted: 1, Exported: 1}},
			{"CERTIFICATE=$DIR/cert.pem\nCLIENT_CERTIFICATE=$DIR/cert.pem\nCLIENT_KEY=$DIR/key.pem", Stats{Accepted: 1, Failed: 1}},
			{"CERTIFICATE=$DIR/cert.pem", Stats{Accepted: 1, Failed: 1}},
			{"CERTIFICATE=$DIR/cert2.pem\nCLIENT_CERTIFICATE=$DIR/cert2.pem\nCLIENT_KEY=$DIR/key2.pem", Stats{Accepted: 1, Failed: 1}},
		} {
			t.Run(x.env, func(t *testing.T) {
				setenv(t, x.env, "$DIR", dir)
				timeout := time.Minute
				if x.want.Failed > 0 {
					timeout = 500 * time.Millisecond // gRPC tries again
				}
				p := newTestProvider(t, Options{Endpoint: c.URL, Protocol: proto, Timeout: timeout})
				emit(p, 1)
				p.Shutdown(within(t, time.Minute)) // its error says what was lost, counted below
				wantStats(t, p, x.want)
			})
		}
	})
}

// specVariables are those of the OpenTelemetry specification that concern a
// provider of spans that sends by OTLP. Those of other signals and exporters
// are left out: OTEL_BLRP_*, OTEL_LOGRECORD_*, OTEL_METRIC*, OTEL_LOGS_*,
// OTEL_EXPORTER_ZIPKIN_*, OTEL_EXPORTER_PROMETHEUS_*.
var specVariables = []string{"OTEL_SDK_DISABLED", "OTEL_ENTITIES", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_SERVICE_NAME", "OTEL_LOG_LEVEL", "OTEL_PROPAGATORS",
	"OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_TRACES_EXPORTER", "OTEL_CONFIG_FILE",
	"OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_EXPORT_TIMEOUT", "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
	"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
	"OTEL_SPAN_EVENT_COUNT_LIMIT", "OTEL_SPAN_LINK_COUNT_LIMIT", "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
	"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_INSECURE", "OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_KEY",
	"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_COMPRESSION", "OTEL_EXPORTER_OTLP_TIMEOUT",
	"OTEL_EXPORTER_OTLP_PROTOCOL"}

// Every variable of the specification is in the package's documentation and in
// the table above, those of OTLP in both forms.
func TestEveryVariableIsDocumentedAndTested(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, name := range regexp.MustCompile(`OTEL_[A-Z_]*[A-Z]`).FindAllString(string(doc), -1) {
		documented[name] = true
	}
	tested := map[string]bool{}
	for _, x := range acceptedEnvironment {
		for pair := range strings.Lines(x.env) {
			name, _, _ := strings.Cut(pair, "=")
			if !strings.HasPrefix(name, "OTEL_") {
				name = "OTEL_EXPORTER_OTLP_" + name
			}
			tested[name] = true
		}
	}
	for _, name := range specVariables {
		if !documented[name] {
			t.Errorf("%s is not in the package's documentation", name)
		}
		if !tested[name] {
			t.Errorf("%s is in no row of acceptedEnvironment", name)
		}
		if suffix, ok := strings.CutPrefix(name, "OTEL_EXPORTER_OTLP_"); ok && !tested["OTEL_EXPORTER_OTLP_TRACES_"+suffix] && !strings.Contains(suffix, "CERT") {
			t.Errorf("OTEL_EXPORTER_OTLP_TRACES_%s is in no row of acceptedEnvironment", suffix)
		}
	}
	for name := range documented {
		if !slices.Contains(specVariables, strings.Replace(name, "OTLP_TRACES_", "OTLP_", 1)) {
			t.Errorf("the documentation names %s, which the specification does not have", name)
		}
	}
}
