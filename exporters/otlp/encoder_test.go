package otlp

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/alloctrace/alloctrace/exporters/otlpfile"
	"github.com/alloctrace/alloctrace/internal/text/texttest"
)

// A spanMaker makes spans of all that a span can have.
type spanMaker struct {
	*rand.Rand
	strings []string
	floats  []float64
	ints    []int64
}

func newSpanMaker(seed uint64) *spanMaker {
	m := &spanMaker{
		Rand:    rand.New(rand.NewPCG(seed, 0)),
		strings: []string{"", "a", "a€b", "traceId", `"traceId":"ABCDEF0123456789"`, "<&>\u2028"},
		floats:  []float64{0, math.Copysign(0, -1), 0.1, 1e21, 1e-7, -123456789.125, math.MaxFloat64, math.SmallestNonzeroFloat64, math.NaN(), math.Inf(1), math.Inf(-1)},
		ints:    []int64{0, 1, -1, math.MaxInt64, math.MinInt64, 1<<53 + 1},
	}
	for _, u := range texttest.Table() {
		if len(u.Text) < 3000 { // all fits on one line
			m.strings = append(m.strings, u.Text)
		}
	}
	return m
}

func pick[T any](m *spanMaker, from []T) T { return from[m.IntN(len(from))] }

// some returns up to n of what one makes.
func some[T any](m *spanMaker, n int, one func() T) []T {
	out := make([]T, m.IntN(n+1))
	for i := range out {
		out[i] = one()
	}
	return out
}

func (m *spanMaker) string() string { return pick(m, m.strings) }

func (m *spanMaker) value(depth int) attribute.Value {
	kinds := 12
	if depth == 0 {
		kinds -= 2
	}
	switch m.IntN(kinds) {
	case 0:
		return attribute.Value{}
	case 1:
		return attribute.BoolValue(m.IntN(2) == 0)
	case 2:
		return attribute.Int64Value(pick(m, m.ints))
	case 3:
		return attribute.Float64Value(pick(m, m.floats))
	case 4:
		return attribute.StringValue(m.string())
	case 5:
		return attribute.ByteSliceValue([]byte(m.string()))
	case 6:
		return attribute.BoolSliceValue(some(m, 3, func() bool { return m.IntN(2) == 0 }))
	case 7:
		return attribute.Int64SliceValue(some(m, 3, func() int64 { return pick(m, m.ints) }))
	case 8:
		return attribute.Float64SliceValue(some(m, 3, func() float64 { return pick(m, m.floats) }))
	case 9:
		return attribute.StringSliceValue(some(m, 3, m.string))
	case 10:
		return attribute.SliceValue(some(m, 3, func() attribute.Value { return m.value(depth - 1) })...)
	default:
		return attribute.MapValue(m.attributes(depth - 1)...)
	}
}

func (m *spanMaker) attributes(depth int) []attribute.KeyValue {
	return some(m, 4, func() attribute.KeyValue {
		return attribute.KeyValue{Key: attribute.Key(m.string()), Value: m.value(depth)}
	})
}

func (m *spanMaker) time() time.Time {
	return pick(m, []time.Time{time.Unix(0, 0), time.Unix(-1, 0), time.Unix(0, math.MaxInt64), time.Unix(1700000000, m.Int64N(1e9))})
}

func (m *spanMaker) context() trace.SpanContext {
	state := ""
	if m.IntN(2) == 0 {
		state = "vendor=a<b>c,other=1"
	}
	parsed, err := trace.ParseTraceState(state)
	if err != nil {
		panic(err)
	}
	var c trace.SpanContextConfig
	for i := range c.TraceID {
		c.TraceID[i] = byte(m.Uint32())
	}
	if m.IntN(5) > 0 {
		for i := range c.SpanID {
			c.SpanID[i] = byte(m.Uint32())
		}
	}
	c.TraceFlags, c.TraceState, c.Remote = trace.TraceFlags(m.Uint32()), parsed, m.IntN(2) == 0
	return trace.NewSpanContext(c)
}

func (m *spanMaker) count() int { return pick(m, []int{0, 0, 1, -1, math.MaxInt32, math.MaxInt}) }

// spans returns spans of up to three resources and scopes.
func (m *spanMaker) spans() []sdktrace.ReadOnlySpan {
	var resources []*resource.Resource
	var scopes []instrumentation.Scope
	for range 3 {
		resources = append(resources, resource.NewWithAttributes(m.string(), append(m.attributes(2), attribute.Int("n", len(resources)))...))
		scopes = append(scopes, instrumentation.Scope{Name: m.string(), Version: m.string(), SchemaURL: m.string(), Attributes: attribute.NewSet(m.attributes(2)...)})
	}
	resources, scopes = append(resources, nil), append(scopes, instrumentation.Scope{})
	stubs := make(tracetest.SpanStubs, 1+m.IntN(8))
	for i := range stubs {
		stubs[i] = tracetest.SpanStub{
			Name: m.string(), SpanContext: m.context(), Parent: m.context(), SpanKind: trace.SpanKind(m.IntN(8) - 1), StartTime: m.time(), EndTime: m.time(),
			Attributes: m.attributes(3), DroppedAttributes: m.count(), DroppedEvents: m.count(), DroppedLinks: m.count(),
			Status:   sdktrace.Status{Code: otelcodes.Code(m.IntN(4)), Description: m.string()},
			Resource: pick(m, resources), InstrumentationScope: pick(m, scopes),
			Events: some(m, 3, func() sdktrace.Event {
				return sdktrace.Event{Name: m.string(), Time: m.time(), Attributes: m.attributes(2), DroppedAttributeCount: m.count()}
			}),
			Links: some(m, 3, func() sdktrace.Link {
				return sdktrace.Link{SpanContext: m.context(), Attributes: m.attributes(2), DroppedAttributeCount: m.count()}
			}),
		}
	}
	return stubs.Snapshots()
}

// A validClient makes requests valid, as a courier does.
type validClient struct{ otlptrace.Client }

func (c validClient) UploadTraces(ctx context.Context, request []*tracepb.ResourceSpans) error {
	makeValid(request)
	return c.Client.UploadTraces(ctx, request)
}

// official returns a function that encodes spans as OpenTelemetry's exporter does.
func official(t testing.TB, encoding otlptracehttp.Encoding) (encode func(spans []sdktrace.ReadOnlySpan) []byte) {
	t.Helper()
	var body []byte
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ = io.ReadAll(r.Body)
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	}))
	t.Cleanup(s.Close)
	e, err := otlptrace.New(t.Context(), validClient{otlptracehttp.NewClient(otlptracehttp.WithEndpointURL(s.URL+"/v1/traces"), otlptracehttp.WithEncoding(encoding))})
	if err != nil {
		t.Fatal(err)
	}
	return func(spans []sdktrace.ReadOnlySpan) []byte {
		body = nil
		if err := e.ExportSpans(context.Background(), spans); err != nil && body == nil {
			t.Fatal(err)
		}
		return body
	}
}

var jsonID = regexp.MustCompile(`("(?:traceId|spanId|parentSpanId)":\s*)"([0-9a-fA-F]*)"`)

// readJSON reads OTLP/JSON, which is that of protobuf but for the ids, and returns it in an order of its own.
func readJSON(t testing.TB, line []byte) *collectorpb.ExportTraceServiceRequest {
	t.Helper()
	line = jsonID.ReplaceAllFunc(line, func(found []byte) []byte {
		parts := jsonID.FindSubmatch(found)
		id, err := hex.DecodeString(string(parts[2]))
		if err != nil {
			t.Errorf("%v in %s", err, found)
		}
		return []byte(string(parts[1]) + `"` + base64.StdEncoding.EncodeToString(id) + `"`)
	})
	r := new(collectorpb.ExportTraceServiceRequest)
	if err := protojson.Unmarshal(line, r); err != nil {
		t.Fatalf("%v in %.1000s", err, line)
	}
	return sorted(r)
}

// sorted gives resources an order, for OpenTelemetry's exporter takes them out of a map.
func sorted(r *collectorpb.ExportTraceServiceRequest) *collectorpb.ExportTraceServiceRequest {
	bytesOf := func(rs *tracepb.ResourceSpans) []byte {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(rs)
		if err != nil {
			panic(err)
		}
		return b
	}
	slices.SortFunc(r.ResourceSpans, func(a, b *tracepb.ResourceSpans) int { return bytes.Compare(bytesOf(a), bytesOf(b)) })
	return r
}

// withoutEmptyBytes is what OpenTelemetry's JSON encoder makes of an attribute of no bytes: one without a value.
func withoutEmptyBytes(r *collectorpb.ExportTraceServiceRequest) *collectorpb.ExportTraceServiceRequest {
	var clear func(v *commonpb.AnyValue)
	all := func(attrs []*commonpb.KeyValue) {
		for _, kv := range attrs {
			clear(kv.Value)
		}
	}
	clear = func(v *commonpb.AnyValue) {
		switch x := v.GetValue().(type) {
		case *commonpb.AnyValue_BytesValue:
			if len(x.BytesValue) == 0 {
				v.Value = nil
			}
		case *commonpb.AnyValue_ArrayValue:
			for _, v := range x.ArrayValue.GetValues() {
				clear(v)
			}
		case *commonpb.AnyValue_KvlistValue:
			all(x.KvlistValue.GetValues())
		}
	}
	for _, rs := range r.ResourceSpans {
		all(rs.Resource.GetAttributes())
		for _, ss := range rs.ScopeSpans {
			all(ss.Scope.GetAttributes())
			for _, s := range ss.Spans {
				all(s.Attributes)
				for _, e := range s.Events {
					all(e.Attributes)
				}
				for _, l := range s.Links {
					all(l.Attributes)
				}
			}
		}
	}
	return sorted(r)
}

// wantOfficial checks that package otlpfile writes what OpenTelemetry's exporter sends.
func wantOfficial(t testing.TB, spans []sdktrace.ReadOnlySpan, encodeProtobuf, encodeJSON func([]sdktrace.ReadOnlySpan) []byte) {
	t.Helper()
	var line bytes.Buffer
	if err := otlpfile.New(&line).ExportSpans(context.Background(), spans); err != nil {
		t.Fatal(err)
	}
	if bytes.Count(line.Bytes(), []byte("\n")) != 1 {
		t.Fatalf("not one line: %.1000s", line.Bytes())
	}
	got, want := readJSON(t, line.Bytes()), new(collectorpb.ExportTraceServiceRequest)
	if err := proto.Unmarshal(encodeProtobuf(spans), want); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, sorted(want)) {
		t.Errorf("the line is\n%s\nwant\n%s", protojson.Format(got), protojson.Format(want))
	}
	if want := withoutEmptyBytes(readJSON(t, encodeJSON(spans))); !proto.Equal(withoutEmptyBytes(got), want) {
		t.Errorf("the line is\n%s\nwant as JSON\n%s", protojson.Format(got), protojson.Format(want))
	}
}

func TestFileHasWhatIsSent(t *testing.T) {
	protobuf, json := official(t, otlptracehttp.EncodingProtobuf), official(t, otlptracehttp.EncodingJSON)
	seeds := uint64(100)
	if os.Getenv("ALLOCTRACE_REQUIRE_ALL") == "1" {
		seeds = 2000
	}
	for seed := range seeds {
		wantOfficial(t, newSpanMaker(seed).spans(), protobuf, json)
		if t.Failed() {
			t.Fatalf("with seed %d", seed)
		}
	}
}

func FuzzFileHasWhatIsSent(f *testing.F) {
	f.Add(uint64(1), "a\xff", 0.5, int64(1))
	f.Add(uint64(2), `"spanId":"AB"`, math.Inf(-1), int64(math.MinInt64))
	protobuf, json := official(f, otlptracehttp.EncodingProtobuf), official(f, otlptracehttp.EncodingJSON)
	f.Fuzz(func(t *testing.T, seed uint64, s string, d float64, n int64) {
		m := newSpanMaker(seed)
		m.strings, m.floats, m.ints = append(m.strings[:8], s, s+s), append(m.floats[:2], d), append(m.ints[:1], n)
		wantOfficial(t, m.spans(), protobuf, json)
	})
}
