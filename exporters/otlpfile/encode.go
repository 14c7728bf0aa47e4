package otlpfile

import (
	"bytes"
	"encoding/json"
	"math"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace/internal/text"
)

// The messages of OTLP, in the JSON encoding of its specification. What has its default is left out.
// https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
type (
	request struct {
		ResourceSpans []*resourceSpans `json:"resourceSpans"`
	}
	resourceSpans struct {
		Resource   *resource     `json:"resource,omitempty"`
		ScopeSpans []*scopeSpans `json:"scopeSpans"`
		SchemaURL  string        `json:"schemaUrl,omitempty"`
	}
	resource struct {
		Attributes []keyValue `json:"attributes,omitempty"`
	}
	scopeSpans struct {
		Scope     *scope `json:"scope,omitempty"`
		Spans     []span `json:"spans"`
		SchemaURL string `json:"schemaUrl,omitempty"`
	}
	scope struct {
		Name       string     `json:"name,omitempty"`
		Version    string     `json:"version,omitempty"`
		Attributes []keyValue `json:"attributes,omitempty"`
	}
	span struct {
		TraceID           string     `json:"traceId"`
		SpanID            string     `json:"spanId"`
		TraceState        string     `json:"traceState,omitempty"`
		ParentSpanID      string     `json:"parentSpanId,omitempty"`
		Flags             uint32     `json:"flags"`
		Name              string     `json:"name,omitempty"`
		Kind              int        `json:"kind,omitempty"`
		Start             int64      `json:"startTimeUnixNano,string,omitempty"`
		End               int64      `json:"endTimeUnixNano,string,omitempty"`
		Attributes        []keyValue `json:"attributes,omitempty"`
		DroppedAttributes uint32     `json:"droppedAttributesCount,omitempty"`
		Events            []event    `json:"events,omitempty"`
		DroppedEvents     uint32     `json:"droppedEventsCount,omitempty"`
		Links             []link     `json:"links,omitempty"`
		DroppedLinks      uint32     `json:"droppedLinksCount,omitempty"`
		Status            status     `json:"status"`
	}
	event struct {
		Time              int64      `json:"timeUnixNano,string,omitempty"`
		Name              string     `json:"name,omitempty"`
		Attributes        []keyValue `json:"attributes,omitempty"`
		DroppedAttributes uint32     `json:"droppedAttributesCount,omitempty"`
	}
	link struct {
		TraceID           string     `json:"traceId"`
		SpanID            string     `json:"spanId"`
		Attributes        []keyValue `json:"attributes,omitempty"`
		DroppedAttributes uint32     `json:"droppedAttributesCount,omitempty"`
		Flags             uint32     `json:"flags"`
	}
	status struct {
		Message string `json:"message,omitempty"`
		Code    int    `json:"code,omitempty"`
	}
	keyValue struct {
		Key   string   `json:"key"`
		Value anyValue `json:"value"`
	}
	// An anyValue has one of its fields, or none if the attribute has no value.
	anyValue struct {
		String *string         `json:"stringValue,omitempty"`
		Bool   *bool           `json:"boolValue,omitempty"`
		Int    *int64          `json:"intValue,string,omitempty"`
		Double any             `json:"doubleValue,omitempty"`
		Bytes  *[]byte         `json:"bytesValue,omitempty"` // base64
		Array  *list[anyValue] `json:"arrayValue,omitempty"`
		Map    *list[keyValue] `json:"kvlistValue,omitempty"`
	}
	list[T any] struct {
		Values []T `json:"values,omitempty"`
	}
)

// maxLine is below what collectors take by HTTP, some 20 MB by default.
const maxLine = 2 << 20

// appendLines appends lines of at most maxLine bytes. A larger span has one to itself.
func appendLines(lines []byte, spans []sdktrace.ReadOnlySpan) ([]byte, error) {
	var line bytes.Buffer
	e := json.NewEncoder(&line)
	e.SetEscapeHTML(false)
	if err := e.Encode(requestOf(spans)); err != nil {
		return nil, err
	}
	if half := len(spans) / 2; half > 0 && line.Len() > maxLine {
		lines, err := appendLines(lines, spans[:half])
		if err != nil {
			return nil, err
		}
		return appendLines(lines, spans[half:])
	}
	return append(lines, line.Bytes()...), nil
}

// requestOf puts the spans together by resource and scope, in the order in which these first occur.
func requestOf(spans []sdktrace.ReadOnlySpan) request {
	type scopeKey struct {
		resource attribute.Distinct
		scope    instrumentation.Scope
	}
	var r request
	resources := make(map[attribute.Distinct]*resourceSpans)
	scopes := make(map[scopeKey]*scopeSpans)
	for _, s := range spans {
		key := scopeKey{s.Resource().Equivalent(), s.InstrumentationScope()}
		rs := resources[key.resource]
		if rs == nil {
			rs = &resourceSpans{SchemaURL: text.Name(s.Resource().SchemaURL())}
			if s.Resource() != nil {
				rs.Resource = &resource{keyValues(s.Resource().Attributes())}
			}
			resources[key.resource] = rs
			r.ResourceSpans = append(r.ResourceSpans, rs)
		}
		ss := scopes[key]
		if ss == nil {
			ss = &scopeSpans{SchemaURL: text.Name(key.scope.SchemaURL)}
			if key.scope != (instrumentation.Scope{}) {
				ss.Scope = &scope{text.Name(key.scope.Name), text.Name(key.scope.Version), keyValues(key.scope.Attributes.ToSlice())}
			}
			scopes[key] = ss
			rs.ScopeSpans = append(rs.ScopeSpans, ss)
		}
		ss.Spans = append(ss.Spans, spanOf(s))
	}
	return r
}

func spanOf(s sdktrace.ReadOnlySpan) span {
	sc, parent := s.SpanContext(), s.Parent()
	out := span{
		TraceID:           sc.TraceID().String(),
		SpanID:            sc.SpanID().String(),
		TraceState:        text.Name(sc.TraceState().String()),
		Flags:             flags(sc.TraceFlags(), parent),
		Name:              text.Name(s.Name()),
		Kind:              kind(s.SpanKind()),
		Start:             nanoseconds(s.StartTime()),
		End:               nanoseconds(s.EndTime()),
		Attributes:        keyValues(s.Attributes()),
		DroppedAttributes: count(s.DroppedAttributes()),
		DroppedEvents:     count(s.DroppedEvents()),
		DroppedLinks:      count(s.DroppedLinks()),
		Status:            statusOf(s.Status()),
	}
	if parent.SpanID().IsValid() {
		out.ParentSpanID = parent.SpanID().String()
	}
	for _, e := range s.Events() {
		out.Events = append(out.Events, event{nanoseconds(e.Time), text.Name(e.Name), keyValues(e.Attributes), count(e.DroppedAttributeCount)})
	}
	for _, l := range s.Links() {
		to := l.SpanContext
		out.Links = append(out.Links, link{to.TraceID().String(), to.SpanID().String(), keyValues(l.Attributes),
			count(l.DroppedAttributeCount), flags(to.TraceFlags(), to)})
	}
	return out
}

// flags has the trace flags in the low 8 bits, then that it is known whether remote is so, and whether it is.
func flags(f trace.TraceFlags, remote trace.SpanContext) uint32 {
	out := uint32(f) | 1<<8
	if remote.IsRemote() {
		out |= 1 << 9
	}
	return out
}

// kind returns the number of OTLP, which happens to be that of the SDK, or 0.
func kind(k trace.SpanKind) int {
	if k < trace.SpanKindInternal || k > trace.SpanKindConsumer {
		return 0
	}
	return int(k)
}

// statusOf knows that Ok and Error have each other's numbers in OTLP.
func statusOf(s sdktrace.Status) status {
	out := status{Message: text.Text(s.Description)}
	switch s.Code {
	case codes.Ok:
		out.Code = 1
	case codes.Error:
		out.Code = 2
	}
	return out
}

// nanoseconds returns the time since 1970, or 0 if it is earlier.
func nanoseconds(t time.Time) int64 { return max(0, t.UnixNano()) }

func count(n int) uint32 { return uint32(min(max(0, int64(n)), math.MaxUint32)) }

func keyValues(attrs []attribute.KeyValue) []keyValue {
	out := make([]keyValue, len(attrs))
	for i, a := range attrs {
		out[i] = keyValue{string(a.Key), valueOf(a.Value.AsInterface())}
	}
	text.Keys(len(out), func(i int) *string { return &out[i].Key })
	return out
}

// valueOf takes what AsInterface returns, which is more than the oldest SDK has names for.
func valueOf(v any) anyValue {
	switch v := v.(type) {
	case nil:
		return anyValue{}
	case bool:
		return anyValue{Bool: &v}
	case int64:
		return anyValue{Int: &v}
	case float64:
		return anyValue{Double: double(v)}
	case string:
		v = text.Text(v)
		return anyValue{String: &v}
	case []byte:
		v = append([]byte{}, v[:min(len(v), text.MaxText)]...) // never nil, which would be null
		return anyValue{Bytes: &v}
	case []bool:
		return arrayOf(v)
	case []int64:
		return arrayOf(v)
	case []float64:
		return arrayOf(v)
	case []string:
		return arrayOf(v)
	case []attribute.Value:
		return arrayOf(v)
	case attribute.Value:
		return valueOf(v.AsInterface())
	case []attribute.KeyValue:
		return anyValue{Map: &list[keyValue]{keyValues(v)}}
	}
	invalid := "INVALID" // as in OpenTelemetry's exporters
	return anyValue{String: &invalid}
}

func arrayOf[T any](values []T) anyValue {
	out := make([]anyValue, len(values))
	for i, v := range values {
		out[i] = valueOf(v)
	}
	return anyValue{Array: &list[anyValue]{out}}
}

// double returns v, or the string that stands for a number that JSON has none for.
func double(v float64) any {
	switch {
	case math.IsNaN(v):
		return "NaN"
	case math.IsInf(v, 0):
		return map[bool]string{true: "Infinity", false: "-Infinity"}[v > 0]
	}
	return v
}
