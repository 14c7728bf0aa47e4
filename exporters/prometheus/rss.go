package prometheus

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/rss"
)

// An RSSCollector is a [prometheus.Collector] of what the resident memory of the process is
// made of, by package rss. It may be used by several goroutines at once.
type RSSCollector struct {
	sources         []counter.Source
	parts, resident *prometheus.Desc
}

var _ prometheus.Collector = (*RSSCollector)(nil)

// NewRSSCollector returns an RSSCollector that tells the memory of sources from the rest.
// A process needs one, with all its allocators, whose names must differ. It fails where
// [rss.Read] does: anywhere but on Linux.
func NewRSSCollector(sources ...counter.Source) (*RSSCollector, error) {
	report, err := rss.Read(sources...)
	if err != nil {
		return nil, fmt.Errorf("prometheus: NewRSSCollector: %w", err)
	}
	names := make(map[string]bool)
	for i, a := range report.Allocators {
		name := validName(a)
		if names[name] {
			return nil, fmt.Errorf("prometheus: NewRSSCollector: source %d has the name %q of one before it: give each a name of its own by alloctrace.WithName", i, name)
		}
		names[name] = true
	}
	return &RSSCollector{
		sources:  slices.Clone(sources),
		parts:    prometheus.NewDesc("allocator_rss_bytes", "Resident memory of the process, by what it is of.", []string{"part"}, nil),
		resident: prometheus.NewDesc("allocator_memory_resident_bytes", "Bytes of an allocator that are in memory, live or not.", []string{"allocator_name"}, nil),
	}, nil
}

// validName returns a name of which a label can be made.
func validName(a rss.Allocator) string { return strings.ToValidUTF8(a.Name, "\uFFFD") }

// Describe implements [prometheus.Collector].
func (c *RSSCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.parts
	ch <- c.resident
}

// Collect implements [prometheus.Collector]. It reads one report.
func (c *RSSCollector) Collect(ch chan<- prometheus.Metric) {
	report, err := rss.Read(c.sources...)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.parts, err)
		return
	}
	for _, p := range report.Parts() {
		ch <- prometheus.MustNewConstMetric(c.parts, gauge, float64(p.Bytes), p.Name)
	}
	for _, a := range report.Allocators {
		ch <- prometheus.MustNewConstMetric(c.resident, gauge, float64(a.Resident), validName(a))
	}
}
