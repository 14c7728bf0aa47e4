package jaegertest

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Span is one span as Jaeger stores it. Ids are lower-case hex. Attribute
// values are string, bool, int64, float64, []byte, []any or map[string]any.
type Span struct {
	TraceID, SpanID string
	ParentID        string // empty for a root
	Name            string
	Scope           string // instrumentation scope
	Start, End      int64  // nanoseconds since 1970
	StatusCode      int    // 0 unset, 1 ok, 2 error
	StatusMessage   string
	Attributes      map[string]any
	Resource        map[string]any
	Links           []Link
}

// A Link points from a span to another.
type Link struct {
	TraceID, SpanID string
	Attributes      map[string]any
}

// A Trace is all spans with one trace id, ordered by their start.
type Trace []Span

// Named returns the spans with that name, in their order.
func (t Trace) Named(name string) []Span {
	var out []Span
	for _, s := range t {
		if s.Name == name {
			out = append(out, s)
		}
	}
	return out
}

// Decode returns the traces of one OTLP/JSON request, such as a line of the
// file that the otlp package writes, in the form in which Jaeger's answers are
// returned.
func Decode(request []byte) ([]Trace, error) {
	var t tracesJSON
	if err := json.Unmarshal(request, &t); err != nil {
		return nil, fmt.Errorf("jaegertest.Decode: %w", err)
	}
	return t.traces()
}

// tracesJSON is the part of OTLP/JSON that the tests look at.
type tracesJSON struct {
	ResourceSpans []struct {
		Resource   struct{ Attributes attributesJSON }
		ScopeSpans []struct {
			Scope struct{ Name string }
			Spans []struct {
				TraceID           string `json:"traceId"`
				SpanID            string `json:"spanId"`
				ParentSpanID      string `json:"parentSpanId"`
				Name              string
				StartTimeUnixNano int64 `json:",string"`
				EndTimeUnixNano   int64 `json:",string"`
				Attributes        attributesJSON
				Links             []struct {
					TraceID    string `json:"traceId"`
					SpanID     string `json:"spanId"`
					Attributes attributesJSON
				}
				Status struct {
					Code    int
					Message string
				}
			}
		}
	}
}

// traces groups the spans by their trace.
func (t tracesJSON) traces() ([]Trace, error) {
	byID := map[string]Trace{}
	for _, rs := range t.ResourceSpans {
		resource, err := rs.Resource.Attributes.decode()
		if err != nil {
			return nil, err
		}
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				span := Span{
					TraceID: strings.ToLower(s.TraceID), SpanID: strings.ToLower(s.SpanID), ParentID: strings.ToLower(s.ParentSpanID),
					Name: s.Name, Scope: ss.Scope.Name,
					Start: s.StartTimeUnixNano, End: s.EndTimeUnixNano,
					StatusCode: s.Status.Code, StatusMessage: s.Status.Message,
					Resource: resource,
				}
				if span.Attributes, err = s.Attributes.decode(); err != nil {
					return nil, fmt.Errorf("span %s: %w", s.Name, err)
				}
				for _, l := range s.Links {
					attrs, err := l.Attributes.decode()
					if err != nil {
						return nil, fmt.Errorf("link of span %s: %w", s.Name, err)
					}
					span.Links = append(span.Links, Link{strings.ToLower(l.TraceID), strings.ToLower(l.SpanID), attrs})
				}
				byID[span.TraceID] = append(byID[span.TraceID], span)
			}
		}
	}
	var out []Trace
	for _, tr := range byID {
		slices.SortFunc(tr, compare)
		out = append(out, tr)
	}
	slices.SortFunc(out, func(a, b Trace) int { return compare(a[0], b[0]) })
	return out, nil
}

// compare orders spans by their start, then by their id.
func compare(a, b Span) int {
	return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.SpanID, b.SpanID))
}

type attributesJSON []struct {
	Key   string
	Value valueJSON
}

// A valueJSON has exactly one field set.
type valueJSON struct {
	StringValue *string
	BoolValue   *bool
	IntValue    *json.Number // a string in OTLP/JSON, which json.Number takes
	DoubleValue *float64
	BytesValue  *string
	ArrayValue  *struct{ Values []valueJSON }
	KvlistValue *struct{ Values attributesJSON }
}

func (as attributesJSON) decode() (map[string]any, error) {
	out := make(map[string]any, len(as))
	for _, a := range as {
		v, err := a.Value.decode()
		if err != nil {
			return nil, fmt.Errorf("attribute %s: %w", a.Key, err)
		}
		out[a.Key] = v
	}
	return out, nil
}

func (v valueJSON) decode() (any, error) {
	switch {
	case v.StringValue != nil:
		return *v.StringValue, nil
	case v.BoolValue != nil:
		return *v.BoolValue, nil
	case v.IntValue != nil:
		return v.IntValue.Int64()
	case v.DoubleValue != nil:
		return *v.DoubleValue, nil
	case v.BytesValue != nil:
		return base64.StdEncoding.DecodeString(*v.BytesValue)
	case v.KvlistValue != nil:
		return v.KvlistValue.Values.decode()
	case v.ArrayValue != nil:
		out := make([]any, len(v.ArrayValue.Values))
		for i, x := range v.ArrayValue.Values {
			var err error
			if out[i], err = x.decode(); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return nil, errors.New("a value without a type")
}
