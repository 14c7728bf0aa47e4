package otlpfile

import (
	"bytes"
	"flag"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	sdkresource "go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace/internal/fields"
)

var _ = flag.Bool("update", false, "write the golden files of testdata anew")

// TestFields writes a span that has all that a span can have. A field that stands in several places is listed once.
func TestFields(t *testing.T) {
	state, err := trace.ParseTraceState("vendor=1")
	if err != nil {
		t.Fatal(err)
	}
	own := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceState: state})
	attributes := []attribute.KeyValue{
		attribute.String("string", "a"), attribute.Bool("bool", true), attribute.Int64("int", 1), attribute.Float64("double", 1.5),
		attribute.StringSlice("array", []string{"a"}),
	}
	now := time.Now()
	var line bytes.Buffer
	if err := New(&line).ExportSpans(t.Context(), tracetest.SpanStubs{{
		Name: "span", SpanContext: own, Parent: own, SpanKind: trace.SpanKindServer, StartTime: now, EndTime: now, Attributes: attributes,
		DroppedAttributes: 1, DroppedEvents: 1, DroppedLinks: 1, Status: sdktrace.Status{Code: codes.Error, Description: "failed"},
		Events:               []sdktrace.Event{{Name: "event", Time: now, Attributes: attributes, DroppedAttributeCount: 1}},
		Links:                []sdktrace.Link{{SpanContext: own, Attributes: attributes, DroppedAttributeCount: 1}},
		Resource:             sdkresource.NewWithAttributes("schema", attributes...),
		InstrumentationScope: instrumentation.Scope{Name: "scope", Version: "1", SchemaURL: "schema"},
	}}.Snapshots()); err != nil {
		t.Fatal(err)
	}
	list := fields.Object(t, line.Bytes())
	for i, l := range list {
		list[i] = l[strings.LastIndex(l, ".")+1:]
	}
	fields.Compare(t, "testdata/fields.txt", list)
}
