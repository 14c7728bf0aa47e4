package requests_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/requests"
	"github.com/alloctrace/alloctrace/tracer"
)

// meters is a MeterProvider of histograms that keep what they record.
type meters struct {
	noop.MeterProvider
	refuse  error
	units   map[string]string
	records map[string][]int64
}

type meter struct {
	noop.Meter
	*meters
}

type histogram struct {
	noop.Int64Histogram
	*meters
	name string
}

func (m *meters) Meter(string, ...metric.MeterOption) metric.Meter { return meter{meters: m} }

func (m meter) Int64Histogram(name string, opts ...metric.Int64HistogramOption) (metric.Int64Histogram, error) {
	c := metric.NewInt64HistogramConfig(opts...)
	m.units[name] = c.Unit()
	if b := c.ExplicitBucketBoundaries(); len(b) != 11 || b[0] != 1<<10 || b[10] != 1<<30 || !slices.IsSorted(b) {
		m.units[name] = "bad bounds"
	}
	return histogram{meters: m.meters, name: name}, m.refuse
}

func (h histogram) Record(_ context.Context, n int64, _ ...metric.RecordOption) {
	h.records[h.name] = append(h.records[h.name], n)
}

// TestRecord: what escaped is recorded only where it is known.
func TestRecord(t *testing.T) {
	m := &meters{units: make(map[string]string), records: make(map[string][]int64)}
	h := requests.NewHistograms("scope", m)
	s := tracer.Summary{Stats: counter.Stats{AllocatedBytes: 100, PeakBytes: 70}}
	h.Record(t.Context(), s, requests.NewLabels())
	s.Escaped = tracer.Escaped{Known: true, Bytes: 30}
	h.Record(t.Context(), s, requests.NewLabels(attribute.String("http.route", "/")))
	for name, want := range map[string][]int64{
		"allocator.request.allocated": {100, 100},
		"allocator.request.peak":      {70, 70},
		"allocator.request.escaped":   {30},
	} {
		if got := m.records[name]; !slices.Equal(got, want) || m.units[name] != "By" {
			t.Errorf("%s in %s: %v, want %v in By", name, m.units[name], got, want)
		}
	}
	if len(m.records) != 3 {
		t.Errorf("recorded are %v", m.records)
	}
}

// TestRefused: an instrument that the provider refuses is reported, and costs nobody a request.
func TestRefused(t *testing.T) {
	before := otel.GetErrorHandler()
	defer otel.SetErrorHandler(before)
	var reported []error
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { reported = append(reported, err) }))
	m := &meters{refuse: errors.New("no"), units: make(map[string]string), records: make(map[string][]int64)}
	requests.NewHistograms("scope", m).Record(t.Context(), tracer.Summary{}, requests.NewLabels())
	if len(reported) != 3 || !errors.Is(reported[0], m.refuse) || len(m.records) != 0 {
		t.Errorf("reported is %v, recorded %v", reported, m.records)
	}
}
