package prometheus

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/metrics"
	"github.com/alloctrace/alloctrace/internal/sources"
	"github.com/alloctrace/alloctrace/internal/text"
)

// Options configure a [Collector]. The zero Options are right for most.
type Options struct {
	// Children shows the children of the source, and theirs, as series of their own. The label
	// allocator_child has their names: "parser", or "parser/tokens" for a child's child. Children
	// of one name are shown as one. A child without a name, and one whose path has more than
	// 16 KiB, is shown only as part of its parent. Each name costs as many series as the whole:
	// a name for each request is too many. Only an [alloctrace.Proxy] has children.
	//
	// Children that have ended stay part of the series of their name, see
	// [alloctrace.Proxy.ChildStats], but their own children do not.
	Children bool

	// Limit returns the bytes that allocator_memory_limit_bytes shows. If it is nil, that is the
	// lowest bound of the Limits below the source. It is called once a scrape, by several
	// goroutines at once.
	Limit func() int64

	// Reserved returns the bytes that allocator_memory_reserved_bytes shows. If it is nil, that
	// is what the Pool below the source has reserved. It is called once a scrape, by several
	// goroutines at once.
	Reserved func() int64
}

// A Collector is a [prometheus.Collector] of one allocator. It may be used by several
// goroutines at once.
type Collector struct {
	source          counter.Source
	children        bool
	limit, reserved func() int64 // nil if not known
	pinned          func() int64 // likewise

	values                                            []*prometheus.Desc // of each in values
	limitDesc, reservedDesc, pinnedDesc, failed, size *prometheus.Desc
	unread                                            unread
}

var _ prometheus.Collector = (*Collector)(nil)

const gauge, count = prometheus.GaugeValue, prometheus.CounterValue

// values are the metrics that are a number of a snapshot. All are sums that never step
// back, or gauges. What was granted beyond what was asked for is no counter: the difference
// of two sums can step back, which to Prometheus is a reset.
var values = [...]struct {
	kind       prometheus.ValueType
	name, help string
	of         func(*counter.Stats) int64
}{
	{gauge, metrics.MemoryUsed.Prometheus, metrics.MemoryUsed.Help, func(s *counter.Stats) int64 { return s.LiveBytes }},
	{gauge, metrics.MemoryPeak.Prometheus, metrics.MemoryPeak.Help, func(s *counter.Stats) int64 { return s.PeakBytes }},
	{gauge, "allocator_memory_peak_bound_bytes", "By how many bytes the peak may be off, 0 if it is exact.", func(s *counter.Stats) int64 { return s.PeakBound }},
	{count, metrics.MemoryAllocated.Prometheus, metrics.MemoryAllocated.Help, func(s *counter.Stats) int64 { return s.AllocatedBytes }},
	{count, "allocator_memory_freed_bytes_total", "Bytes given back by frees and reallocations.", func(s *counter.Stats) int64 { return s.FreedBytes }},
	{count, "allocator_memory_requested_bytes_total", "Bytes that allocations and reallocations asked for.", func(s *counter.Stats) int64 { return s.RequestedBytes }},
	{gauge, "allocator_blocks", "Live blocks.", func(s *counter.Stats) int64 { return s.LiveBlocks }},
	{count, metrics.Allocations.Prometheus, metrics.Allocations.Help, func(s *counter.Stats) int64 { return s.Allocations }},
	{count, metrics.Reallocations.Prometheus, metrics.Reallocations.Help, func(s *counter.Stats) int64 { return s.Reallocations }},
	{count, metrics.Frees.Prometheus, metrics.Frees.Help, func(s *counter.Stats) int64 { return s.Frees }},
}

// NewCollector returns a Collector of source. The label allocator_name is name, made valid as
// the package comment says. NewCollector panics if source is nil or name is empty.
func NewCollector(source counter.Source, name string, o Options) *Collector {
	if source == nil || name == "" {
		panic(fmt.Sprintf("prometheus: NewCollector(%v, %q): pass a source, such as a Proxy, and a name for it", source, name))
	}
	desc := func(metric, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(metric, help, append([]string{"allocator_child"}, labels...), prometheus.Labels{"allocator_name": text.Name(name)})
	}
	shared := func(m metrics.Metric, labels ...string) *prometheus.Desc {
		return desc(m.Prometheus, m.Help, labels...)
	}
	below := sources.LookBelow(source)
	c := &Collector{
		source:       source,
		children:     o.Children,
		limit:        o.Limit,
		reserved:     o.Reserved,
		pinned:       below.Pinned(),
		limitDesc:    shared(metrics.MemoryLimit),
		reservedDesc: shared(metrics.MemoryReserved),
		pinnedDesc:   shared(metrics.MemoryPinned),
		failed:       shared(metrics.Failures, "allocator_operation"),
		size:         shared(metrics.AllocationSize),
		unread:       unread{desc: shared(metrics.ReadFailures)},
	}
	for _, v := range values {
		c.values = append(c.values, desc(v.name, v.help))
	}
	if c.limit == nil {
		c.limit = below.Limit()
	}
	if c.reserved == nil {
		c.reserved = below.Reserved()
	}
	return c
}

// Register registers a new [Collector] with r, and returns it for r.Unregister. It panics
// as [NewCollector] does. If r has a Collector of this name, the error wraps a
// [prometheus.AlreadyRegisteredError].
func Register(r prometheus.Registerer, source counter.Source, name string, o Options) (*Collector, error) {
	c := NewCollector(source, name, o)
	err := r.Register(c)
	if are := (prometheus.AlreadyRegisteredError{}); errors.As(err, &are) {
		return nil, fmt.Errorf("prometheus: Register of allocator %q: there is one of this name: choose another, or unregister that first: %w", name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("prometheus: Register of allocator %q: %w", name, err)
	}
	return c, nil
}

// Describe implements [prometheus.Collector].
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.values {
		ch <- d
	}
	ch <- c.limitDesc
	ch <- c.reservedDesc
	ch <- c.pinnedDesc
	ch <- c.failed
	ch <- c.size
	ch <- c.unread.desc
}

// Collect implements [prometheus.Collector]. It takes one snapshot of the source.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	if c.children { // before the whole, of which they are part, so that it has no less than they
		children := make(map[string]counter.Stats)
		if c.unread.try(func() error { collect(children, "", c.source); return nil }) {
			for path, s := range children {
				c.send(ch, path, &s)
			}
		}
	}
	var s counter.Stats
	if c.unread.try(func() error { s = c.source.Stats(); return nil }) {
		c.send(ch, "", &s)
	}
	c.sendValue(ch, c.limitDesc, c.limit)
	c.sendValue(ch, c.reservedDesc, c.reserved)
	c.sendValue(ch, c.pinnedDesc, c.pinned)
	c.unread.send(ch, "")
}

// sendValue sends what of returns, unless that is nil.
func (c *Collector) sendValue(ch chan<- prometheus.Metric, desc *prometheus.Desc, of func() int64) {
	var v int64
	if of != nil && c.unread.try(func() error { v = of(); return nil }) {
		ch <- prometheus.MustNewConstMetric(desc, gauge, float64(v), "")
	}
}

// send sends what s says of the child at path, or the whole if that is empty.
func (c *Collector) send(ch chan<- prometheus.Metric, path string, s *counter.Stats) {
	for i, v := range values {
		ch <- prometheus.MustNewConstMetric(c.values[i], v.kind, float64(v.of(s)), path)
	}
	ch <- prometheus.MustNewConstMetric(c.failed, count, float64(s.FailedAllocations), path, alloctrace.AllocateFailed.Op())
	ch <- prometheus.MustNewConstMetric(c.failed, count, float64(s.FailedReallocations), path, alloctrace.ReallocateFailed.Op())
	ch <- prometheus.MustNewConstMetric(c.failed, count, float64(s.FailedFrees), path, alloctrace.FreeFailed.Op())
	c.unread.try(func() error {
		size, err := newSizes(c.size, s, path)
		if err == nil {
			ch <- size
		}
		return err
	})
}

// An unread counts what could not be read and was left out.
type unread struct {
	desc *prometheus.Desc
	n    atomic.Int64
}

// try calls f, and reports whether it returned and without an error.
func (u *unread) try(f func() error) bool {
	if sources.Try(f) != nil {
		u.n.Add(1)
		return false
	}
	return true
}

// send sends how much it was, once all else was read.
func (u *unread) send(ch chan<- prometheus.Metric, labels ...string) {
	ch <- prometheus.MustNewConstMetric(u.desc, count, float64(u.n.Load()), labels...)
}

// collect adds the children of source, and theirs, to those in at, by path.
func collect(at map[string]counter.Stats, path string, source counter.Source) {
	parent, ok := source.(interface {
		Children() []*alloctrace.Proxy
		ChildStats() map[string]counter.Stats
	})
	if !ok {
		return
	}
	below := func(name string) string {
		if name = text.Name(name); name == "" {
			return path
		}
		return strings.TrimPrefix(path+"/"+name, "/")
	}
	for name, s := range parent.ChildStats() {
		if path := below(name); len(path) <= text.MaxText {
			at[path] = at[path].Add(s)
		}
	}
	for _, child := range parent.Children() {
		if path := below(child.Name()); len(path) <= text.MaxText {
			collect(at, path, child)
		}
	}
}
