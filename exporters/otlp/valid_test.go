package otlp

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/alloctrace/alloctrace/internal/jaegertest"
	"github.com/alloctrace/alloctrace/internal/text"
	"github.com/alloctrace/alloctrace/internal/text/texttest"
)

const plainSpans = 100

// emitUgly makes 100 plain spans of everybody else, and one for each ugly
// string that has it wherever a string can be. All are of one trace.
func emitUgly(tp trace.TracerProvider) (id string, spans int) {
	ctx, root := tp.Tracer("test").Start(context.Background(), "root")
	for range plainSpans - 1 {
		_, s := tp.Tracer("test").Start(ctx, "plain")
		s.End()
	}
	for i, u := range texttest.Table() {
		// The scope has a number, so that those that become equal stay apart.
		tr := tp.Tracer(fmt.Sprint(i, " ", u.Text), trace.WithInstrumentationVersion(u.Text), trace.WithSchemaURL(u.Text),
			trace.WithInstrumentationAttributes(attribute.String("k"+u.Text, u.Text)))
		attrs := []attribute.KeyValue{attribute.String("k"+u.Text, u.Text), attribute.StringSlice("list", []string{"first", u.Text}),
			attribute.Map("map", attribute.Slice("k"+u.Text, attribute.StringValue(u.Text))), attribute.ByteSlice("bytes", []byte("b"+u.Text))}
		_, s := tr.Start(ctx, u.Text, trace.WithAttributes(attrs...),
			trace.WithLinks(trace.Link{SpanContext: root.SpanContext(), Attributes: attrs}))
		s.AddEvent(u.Text, trace.WithAttributes(attrs...))
		s.SetStatus(codes.Error, u.Text)
		s.End()
	}
	root.End()
	return root.SpanContext().TraceID().String(), plainSpans + len(texttest.Table())
}

// wantUgly checks that every span of emitUgly is there and every string what
// package text makes of it.
func wantUgly(t *testing.T, scopes []*tracepb.ScopeSpans) {
	t.Helper()
	plain, ugly := 0, map[string]*tracepb.ScopeSpans{}
	for _, ss := range scopes {
		if ss.Scope.GetName() == "test" {
			plain += len(ss.Spans)
			continue
		}
		number, _, _ := strings.Cut(ss.Scope.GetName(), " ")
		ugly[number] = ss
	}
	if plain != plainSpans {
		t.Errorf("%d plain spans arrived, want %d", plain, plainSpans)
	}
	for i, u := range texttest.Table() {
		ss := ugly[fmt.Sprint(i)]
		if ss == nil || len(ss.Spans) != 1 {
			t.Errorf("%s: no span arrived", u.Case)
			continue
		}
		s := ss.Spans[0]
		name, value := text.Name(u.Text), text.Text(u.Text)
		wantString := func(what, got, want string) {
			if got != want {
				t.Errorf("%s: %s is %.100q of %d bytes, want %.100q of %d", u.Case, what, got, len(got), want, len(want))
			}
		}
		wantAttrs := func(what string, attrs []*commonpb.KeyValue) {
			a := attributes(attrs)[text.Name("k"+u.Text)]
			if a == nil {
				t.Errorf("%s: %s: no attribute with the key", u.Case, what)
				return
			}
			wantString(what, a.GetStringValue(), value)
		}
		wantDeep := func(what string, attrs []*commonpb.KeyValue) {
			wantAttrs(what, attrs)
			a := attributes(attrs)
			if l := a["list"].GetArrayValue().GetValues(); len(l) != 2 || l[1].GetStringValue() != value {
				t.Errorf("%s: %s: the list is %.100q", u.Case, what, fmt.Sprint(l))
			}
			m := a["map"].GetKvlistValue().GetValues()
			if len(m) != 1 || m[0].Key != text.Name("k"+u.Text) || m[0].Value.GetArrayValue().GetValues()[0].GetStringValue() != value {
				t.Errorf("%s: %s: the map is %.100q", u.Case, what, fmt.Sprint(m))
			}
			if got := string(a["bytes"].GetBytesValue()); got != ("b" + u.Text)[:min(1+len(u.Text), text.MaxText)] {
				t.Errorf("%s: %s: the bytes are %.100q", u.Case, what, got)
			}
		}
		wantString("scope", ss.Scope.Name, text.Name(fmt.Sprint(i, " ", u.Text)))
		wantString("version", ss.Scope.Version, name)
		wantString("schema", ss.SchemaUrl, name)
		wantAttrs("scope", ss.Scope.Attributes)
		wantString("name", s.Name, name)
		wantString("status", s.Status.GetMessage(), value)
		wantDeep("span", s.Attributes)
		if len(s.Events) != 1 || len(s.Links) != 1 {
			t.Errorf("%s: %d events and %d links, want one each", u.Case, len(s.Events), len(s.Links))
			continue
		}
		wantString("event", s.Events[0].Name, name)
		wantDeep("event", s.Events[0].Attributes)
		wantDeep("link", s.Links[0].Attributes)
	}
}

func TestUglyStringsArrive(t *testing.T) {
	for _, protocol := range []string{"grpc", "http/protobuf", "http/json"} {
		t.Run(protocol, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
			c := startCollector(t, map[bool]Protocol{true: GRPC, false: HTTP}[protocol == "grpc"])
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.URL)
			p := newTestProvider(t, Options{ServiceName: "caf\xe9"})
			_, spans := emitUgly(p)
			if err := p.Shutdown(within(t, time.Minute)); err != nil {
				t.Fatal(err)
			}
			wantStats(t, p, Stats{Accepted: int64(spans), Exported: int64(spans)})
			wantUgly(t, c.scopes)
			if got := c.resource["service.name"]; got != "caf\ufffd" {
				t.Errorf("service.name is %q", got)
			}
		})
	}
	t.Run("file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "trace.json")
		p := newTestProvider(t, Options{File: path, ServiceName: "caf\xe9"})
		_, spans := emitUgly(p)
		if err := p.Shutdown(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		wantStats(t, p, Stats{Accepted: int64(spans), Exported: int64(spans)})
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !utf8.Valid(file) {
			t.Error("the file is not UTF-8")
		}
		var scopes []*tracepb.ScopeSpans
		for line := range bytes.Lines(file) {
			var r collectorpb.ExportTraceServiceRequest
			if err := protojson.Unmarshal(line, &r); err != nil { // ids in hex are base64, too
				t.Fatal(err)
			}
			for _, rs := range r.ResourceSpans {
				scopes = append(scopes, rs.ScopeSpans...)
			}
		}
		wantUgly(t, scopes)
	})
}

// Every service name arrives, and so do the spans that have it.
func TestUglyServiceNames(t *testing.T) {
	eachProtocol(t, func(t *testing.T, proto Protocol) {
		for _, u := range texttest.Table() {
			if u.Text == "" {
				continue // the environment then names the service
			}
			c := startCollector(t, proto)
			p := newTestProvider(t, Options{Endpoint: c.URL, Protocol: proto, ServiceName: u.Text})
			emit(p, 1)
			if err := p.Shutdown(within(t, time.Minute)); err != nil {
				t.Errorf("%s: %v", u.Case, err)
			}
			if got, want := c.resource["service.name"], text.Text(u.Text); got != want {
				t.Errorf("%s: the service is %.100q, want %.100q", u.Case, got, want)
			}
			c.stop()
		}
	})
}

func TestJaegerTakesUglyStrings(t *testing.T) {
	check := func(t *testing.T, j *jaegertest.Jaeger, id string, spans int) {
		got := j.Trace(id, spans)
		if len(got) != spans {
			t.Errorf("Jaeger has %d spans, want %d", len(got), spans)
		}
		byScope := map[string]jaegertest.Span{}
		for _, s := range got {
			byScope[s.Scope] = s
		}
		for i, u := range texttest.Table() {
			s, ok := byScope[text.Name(fmt.Sprint(i, " ", u.Text))]
			if !ok {
				t.Errorf("%s: Jaeger has no span of the scope", u.Case)
				continue
			}
			value := text.Text(u.Text)
			if s.Name != text.Name(u.Text) || s.StatusMessage != value || s.Attributes[text.Name("k"+u.Text)] != value ||
				len(s.Links) != 1 || s.Links[0].Attributes[text.Name("k"+u.Text)] != value {
				t.Errorf("%s: Jaeger has %.300q", u.Case, fmt.Sprint(s))
			}
			if s.Resource["service.name"] != "caf\ufffd" {
				t.Errorf("%s: the resource is %v", u.Case, s.Resource)
			}
		}
		if services := j.Services(); !slices.Contains(services, "caf\ufffd") {
			t.Errorf("Jaeger has the services %q", services)
		}
	}
	eachProtocol(t, func(t *testing.T, proto Protocol) {
		j := jaegertest.Start(t)
		p := newTestProvider(t, Options{Endpoint: jaegerEndpoint(j, proto), Protocol: proto, ServiceName: "caf\xe9"})
		id, spans := emitUgly(p)
		if err := p.Shutdown(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		wantStats(t, p, Stats{Accepted: int64(spans), Exported: int64(spans)})
		check(t, j, id, spans)
	})
	t.Run("file", func(t *testing.T) {
		j := jaegertest.Start(t)
		path := filepath.Join(t.TempDir(), "trace.json")
		p := newTestProvider(t, Options{File: path, ServiceName: "caf\xe9"})
		id, spans := emitUgly(p)
		if err := p.Shutdown(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		postFile(t, j, path)
		check(t, j, id, spans)
	})
}

// postFile sends each line of the file to Jaeger as a request.
func postFile(t *testing.T, j *jaegertest.Jaeger, path string) {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(file) {
		resp, err := http.Post(j.HTTPEndpoint()+"/v1/traces", "application/json", bytes.NewReader(line))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("Jaeger answered %s to %.1000s", resp.Status, line)
		}
	}
}

// Keys that become equal get a number: a receiver may keep only one of equal
// keys.
func TestEqualKeysStayApart(t *testing.T) {
	c := startCollector(t, HTTP)
	p := newTestProvider(t, Options{Endpoint: c.URL})
	long := strings.Repeat("k", 2000)
	_, s := p.Tracer("test").Start(t.Context(), "span", trace.WithAttributes(
		attribute.Int("same\xff", 1), attribute.Int("same\xfe", 2), attribute.Int("same\ufffd", 3), attribute.Int("same\ufffd#2", 4),
		attribute.Int(long+"a", 5), attribute.Int(long+"b", 6)))
	s.End()
	if err := p.Shutdown(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	values := map[int64]bool{}
	got := attributes(c.received()[0].Attributes)
	for _, v := range got {
		values[v.GetIntValue()] = true
	}
	if len(got) != 6 || len(values) != 6 {
		t.Errorf("the attributes are %v, want six of different keys", got)
	}
}

// Numbers that JSON has no form for do not spoil a batch either.
func TestNumbersThatAreNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.json")
	p := newTestProvider(t, Options{File: path})
	emit(p, 9)
	_, s := p.Tracer("test").Start(t.Context(), "span", trace.WithAttributes(attribute.Float64Slice("f", []float64{math.NaN(), math.Inf(1), math.Inf(-1)})))
	s.End()
	if err := p.Shutdown(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	wantStats(t, p, Stats{Accepted: 10, Exported: 10})
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := protojson.Unmarshal(file, &collectorpb.ExportTraceServiceRequest{}); err != nil {
		t.Error(err)
	}
}

// A request whose strings are good is left as it is, and costs no allocation.
func TestValidRequestIsNotWritten(t *testing.T) {
	request := []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Scope: &commonpb.InstrumentationScope{Name: "scope"}, Spans: []*tracepb.Span{{
		Name: "a€b", Status: &tracepb.Status{Message: "out of memory"}, Attributes: []*commonpb.KeyValue{
			{Key: "k", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: "v"}}}},
	}}}}}}
	if n := testing.AllocsPerRun(100, func() { makeValid(request) }); n != 0 {
		t.Errorf("%v allocations for a good request, want none", n)
	}
}

// makeValid is safe on what is missing.
func TestMakeValidOfNothing(t *testing.T) {
	makeValid([]*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{{
		Attributes: []*commonpb.KeyValue{{Key: "\xff"}, {Key: "k", Value: &commonpb.AnyValue{}},
			{Key: "a", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{}}}, {Key: "m", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_KvlistValue{}}}},
	}}}}}})
}
