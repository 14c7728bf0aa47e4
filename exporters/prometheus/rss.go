package prometheus

import (
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/rss"
	"github.com/alloctrace/alloctrace/internal/metrics"
	"github.com/alloctrace/alloctrace/internal/sources"
)

// An RSSCollector is a [prometheus.Collector] of an [rss.Report]: what the resident memory of
// the process is made of. It may be used by several goroutines at once.
type RSSCollector struct {
	allocators      []counter.Source
	parts, resident *prometheus.Desc
	unread          unread
}

var _ prometheus.Collector = (*RSSCollector)(nil)

// NewRSSCollector returns an RSSCollector that shows the memory of each of the allocators. A
// process needs one, with all of its allocators, and their names must differ.
//
// NewRSSCollector returns an error on systems other than Linux, and if two allocators have the
// same name. If the process may not read its memory, or has no file descriptor left, that is no
// error, because it can change. NewRSSCollector panics if an allocator is nil.
func NewRSSCollector(allocators ...counter.Source) (*RSSCollector, error) {
	sources.Require("prometheus: NewRSSCollector", allocators...)
	var report rss.Report
	err := sources.Try(func() (err error) { report, err = rss.Read(allocators...); return err })
	if errors.Is(err, errors.ErrUnsupported) {
		return nil, fmt.Errorf("prometheus: NewRSSCollector: %w", err)
	}
	names := make(map[string]bool)
	for i, a := range report.Allocators {
		if names[a.Name] {
			return nil, fmt.Errorf("prometheus: NewRSSCollector: source %d has the name %q of one before it: give each a name of its own by alloctrace.WithName", i, a.Name)
		}
		names[a.Name] = true
	}
	desc := func(m metrics.Metric, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(m.Prometheus, m.Help, labels, nil)
	}
	return &RSSCollector{
		allocators: slices.Clone(allocators),
		parts:      desc(metrics.RSS, "part"),
		resident:   desc(metrics.MemoryResident, "allocator_name"),
		unread:     unread{desc: desc(metrics.RSSReadFailures)},
	}, nil
}

// Describe implements [prometheus.Collector].
func (c *RSSCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.parts
	ch <- c.resident
	ch <- c.unread.desc
}

// Collect implements [prometheus.Collector]. It reads one report.
func (c *RSSCollector) Collect(ch chan<- prometheus.Metric) {
	defer c.unread.send(ch)
	readable, failed := sources.Readable(c.allocators)
	c.unread.n.Add(failed)
	var report rss.Report
	if !c.unread.try(func() (err error) { report, err = rss.Read(readable...); return err }) {
		return
	}
	for _, p := range report.Parts() {
		ch <- prometheus.MustNewConstMetric(c.parts, gauge, float64(p.Bytes), p.Name)
	}
	resident := make(map[string]int64) // a name that is made of what is below can become another's
	for _, a := range report.Allocators {
		resident[a.Name] += a.Resident
	}
	for name, bytes := range resident {
		ch <- prometheus.MustNewConstMetric(c.resident, gauge, float64(bytes), name)
	}
}
