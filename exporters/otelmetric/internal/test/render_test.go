package test_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/alloctrace/alloctrace/exporters/otelmetric"
)

// collect returns what the reader collects, a sorted line for each point:
//
//	name unit kind {attributes} value
func collect(t testing.TB, reader *sdkmetric.ManualReader) []string {
	t.Helper()
	var rm metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &rm); err != nil {
		t.Error(err)
	}
	var lines []string
	for _, scope := range rm.ScopeMetrics {
		if scope.Scope.Name != otelmetric.ScopeName || scope.Scope.Version != otelmetric.Version() {
			t.Errorf("metrics of the scope %v", scope.Scope)
		}
		for _, m := range scope.Metrics {
			add := func(kind string, set attribute.Set, value string) {
				if m.Description == "" {
					t.Errorf("%s has no description", m.Name)
				}
				lines = append(lines, line(m.Name, m.Unit, kind, set.Encoded(attribute.DefaultEncoder()), value))
			}
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				if data.Temporality != metricdata.CumulativeTemporality {
					t.Errorf("%s is %v", m.Name, data.Temporality)
				}
				for _, p := range data.DataPoints {
					add(sumKind(data.IsMonotonic), p.Attributes, fmt.Sprint(p.Value))
				}
			case metricdata.Sum[float64]:
				for _, p := range data.DataPoints {
					add(sumKind(data.IsMonotonic), p.Attributes, fmt.Sprint(p.Value))
				}
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					add("Gauge", p.Attributes, fmt.Sprint(p.Value))
				}
			case metricdata.ExponentialHistogram[int64]:
				if data.Temporality != metricdata.CumulativeTemporality {
					t.Errorf("%s is %v", m.Name, data.Temporality)
				}
				for _, p := range data.DataPoints {
					if p.StartTime.IsZero() || p.Time.Before(p.StartTime) || p.ZeroCount != 0 || p.NegativeBucket.Counts != nil {
						t.Errorf("%s has the point %+v", m.Name, p)
					}
					add("ExponentialHistogram", p.Attributes, exponentialText(p.Count, float64(p.Sum), p.Scale, p.PositiveBucket.Offset, p.PositiveBucket.Counts))
				}
			case metricdata.Histogram[int64]:
				for _, p := range data.DataPoints {
					if data.Temporality != metricdata.CumulativeTemporality || p.StartTime.IsZero() || p.Time.Before(p.StartTime) {
						t.Errorf("%s is %v and has the point %+v", m.Name, data.Temporality, p)
					}
					add("Histogram", p.Attributes, explicitText(p.Count, float64(p.Sum), p.Bounds, p.BucketCounts))
				}
			default:
				t.Errorf("%s is a %T", m.Name, data)
			}
		}
	}
	slices.Sort(lines)
	return lines
}

func line(name, unit, kind, attributes, value string) string {
	return fmt.Sprintf("%s %s %s {%s} %s", name, unit, kind, attributes, value)
}

func sumKind(monotonic bool) string {
	if monotonic {
		return "Counter"
	}
	return "UpDownCounter"
}

// exponentialText writes the buckets that are not empty as upper bound:count.
func exponentialText(count uint64, sum float64, scale, offset int32, counts []uint64) string {
	text := fmt.Sprintf("count=%d sum=%.0f scale=%d", count, sum, scale)
	for i, n := range counts {
		if n != 0 {
			text += fmt.Sprintf(" %.0f:%d", math.Ldexp(1, int(offset)+i+1), n)
		}
	}
	return text
}

func explicitText(count uint64, sum float64, bounds []float64, counts []uint64) string {
	text := fmt.Sprintf("count=%d sum=%.0f %d bounds", count, sum, len(bounds))
	for i, n := range counts {
		if n != 0 {
			text += fmt.Sprintf(" %.0f:%d", append(bounds[:len(bounds):len(bounds)], math.Inf(1))[i], n)
		}
	}
	return text
}

func wantLines(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
