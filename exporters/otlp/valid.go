package otlp

import (
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/alloctrace/alloctrace/internal/text"
)

// makeValid makes every string of a request valid UTF-8 of bounded length: one
// that is not makes the encoder or the receiver refuse all spans of the batch.
// It looks at each byte once, and writes where something is wrong.
func makeValid(request []*tracepb.ResourceSpans) {
	for _, rs := range request {
		validName(&rs.SchemaUrl)
		if rs.Resource != nil {
			validAttributes(rs.Resource.Attributes)
		}
		for _, ss := range rs.ScopeSpans {
			validName(&ss.SchemaUrl)
			if ss.Scope != nil {
				validName(&ss.Scope.Name)
				validName(&ss.Scope.Version)
				validAttributes(ss.Scope.Attributes)
			}
			for _, s := range ss.Spans {
				validSpan(s)
			}
		}
	}
}

func validSpan(s *tracepb.Span) {
	validName(&s.Name)
	validName(&s.TraceState)
	validAttributes(s.Attributes)
	if s.Status != nil {
		validText(&s.Status.Message)
	}
	for _, e := range s.Events {
		validName(&e.Name)
		validAttributes(e.Attributes)
	}
	for _, l := range s.Links {
		validName(&l.TraceState)
		validAttributes(l.Attributes)
	}
}

// validName and validText write only to change something.
func validName(s *string) {
	if v := text.Name(*s); v != *s {
		*s = v
	}
}

func validText(s *string) {
	if v := text.Text(*s); v != *s {
		*s = v
	}
}

func validAttributes(attrs []*commonpb.KeyValue) {
	text.Keys(len(attrs), func(i int) *string { return &attrs[i].Key })
	for _, kv := range attrs {
		validValue(kv.Value)
	}
}

func validValue(v *commonpb.AnyValue) {
	switch v := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		validText(&v.StringValue)
	case *commonpb.AnyValue_BytesValue:
		v.BytesValue = v.BytesValue[:min(len(v.BytesValue), text.MaxText)]
	case *commonpb.AnyValue_ArrayValue:
		for _, x := range v.ArrayValue.GetValues() {
			validValue(x)
		}
	case *commonpb.AnyValue_KvlistValue:
		validAttributes(v.KvlistValue.GetValues())
	}
}

// maxRequest keeps a request below the 4 MiB that a gRPC server takes by
// default. Many servers by HTTP take more.
const maxRequest = 2 << 20

// split cuts a request into requests of at most limit bytes. A larger span has
// one to itself.
func split(request []*tracepb.ResourceSpans, limit int) [][]*tracepb.ResourceSpans {
	size := 0
	for _, rs := range request {
		size += proto.Size(rs)
	}
	if size <= limit {
		return [][]*tracepb.ResourceSpans{request}
	}
	const frame = 16 // tags and lengths around a message, at most
	var out [][]*tracepb.ResourceSpans
	for _, rs := range request {
		for _, ss := range rs.ScopeSpans {
			empty := proto.Size(rs.Resource) + proto.Size(ss.Scope) + len(rs.SchemaUrl) + len(ss.SchemaUrl) + 4*frame
			size, first := empty, 0
			for i, s := range ss.Spans {
				n := proto.Size(s) + frame
				if i > first && size+n > limit {
					out = append(out, part(rs, ss, ss.Spans[first:i]))
					size, first = empty, i
				}
				size += n
			}
			out = append(out, part(rs, ss, ss.Spans[first:]))
		}
	}
	return out
}

// part is a request for some of the spans of ss.
func part(rs *tracepb.ResourceSpans, ss *tracepb.ScopeSpans, spans []*tracepb.Span) []*tracepb.ResourceSpans {
	return []*tracepb.ResourceSpans{{
		Resource:   rs.Resource,
		SchemaUrl:  rs.SchemaUrl,
		ScopeSpans: []*tracepb.ScopeSpans{{Scope: ss.Scope, SchemaUrl: ss.SchemaUrl, Spans: spans}},
	}}
}
