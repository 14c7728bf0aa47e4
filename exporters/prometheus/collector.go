package prometheus

import (
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/counter"
)

// An Option changes what a [Collector] shows. The options of this package are the only
// ones there are.
type Option func(*Collector)

// WithChildren shows the children of the source, and theirs, as series of their own, with
// their names in the label allocator_child: "parser", or "parser/tokens" for a child's
// child. Children of one name are shown as one, and those without a name only as part of
// the whole. Each name costs as many series as the whole: a name for each request is too
// many. Sources other than an [alloctrace.Proxy] have no children.
func WithChildren() Option { return func(c *Collector) { c.children = true } }

// WithLimit shows what limit returns, in bytes, as allocator_memory_limit_bytes: the Max of
// a blockalloc.Limit, say. It is called once a scrape, by several goroutines at once.
func WithLimit(limit func() int64) Option { return func(c *Collector) { c.limit = limit } }

// WithReserved shows what reserved returns, in bytes, as allocator_memory_reserved_bytes:
// the figure of a blockalloc.Pool's Stats that is of interest, say. It is called once a
// scrape, by several goroutines at once.
func WithReserved(reserved func() int64) Option {
	return func(c *Collector) { c.reserved = reserved }
}

// A Collector is a [prometheus.Collector] of one allocator. It may be used by several
// goroutines at once.
type Collector struct {
	source          counter.Source
	children        bool
	limit, reserved func() int64 // nil if not known

	values                                []*prometheus.Desc // of each in values
	limitDesc, reservedDesc, failed, size *prometheus.Desc
}

var _ prometheus.Collector = (*Collector)(nil)

const gauge, count = prometheus.GaugeValue, prometheus.CounterValue

// values are the metrics that are a number of a snapshot. All are sums that never step
// back, or gauges: RequestedBytes can step back, and a counter that does so has been
// reset, to Prometheus.
var values = [...]struct {
	kind       prometheus.ValueType
	name, help string
	of         func(*counter.Stats) int64
}{
	{gauge, "allocator_memory_used_bytes", "Bytes in live blocks.", func(s *counter.Stats) int64 { return s.LiveBytes }},
	{gauge, "allocator_memory_peak_bytes", "The most bytes that were live, give or take the peak bound.", func(s *counter.Stats) int64 { return s.PeakBytes }},
	{gauge, "allocator_memory_peak_bound_bytes", "By how many bytes the peak may be off, 0 if it is exact.", func(s *counter.Stats) int64 { return s.PeakBound }},
	{count, "allocator_memory_allocated_bytes_total", "Bytes granted to allocations and reallocations.", func(s *counter.Stats) int64 { return s.AllocatedBytes }},
	{count, "allocator_memory_freed_bytes_total", "Bytes given back by frees and reallocations.", func(s *counter.Stats) int64 { return s.FreedBytes }},
	{count, "allocator_memory_slack_bytes_total", "Bytes granted beyond what was asked for.", func(s *counter.Stats) int64 { return s.AllocatedBytes - s.RequestedBytes }},
	{gauge, "allocator_blocks", "Live blocks.", func(s *counter.Stats) int64 { return s.LiveBlocks }},
	{count, "allocator_allocations_total", "Allocations that succeeded.", func(s *counter.Stats) int64 { return s.Allocations }},
	{count, "allocator_reallocations_total", "Reallocations that succeeded.", func(s *counter.Stats) int64 { return s.Reallocations }},
	{count, "allocator_frees_total", "Frees that succeeded.", func(s *counter.Stats) int64 { return s.Frees }},
}

// NewCollector returns a Collector of source, whose label allocator_name is name. It
// panics if source is nil or name empty.
func NewCollector(source counter.Source, name string, opts ...Option) *Collector {
	if source == nil || name == "" {
		panic(fmt.Sprintf("prometheus: NewCollector(%v, %q): pass a source, such as a Proxy, and a name for it", source, name))
	}
	desc := func(metric, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(metric, help, append([]string{"allocator_child"}, labels...), prometheus.Labels{"allocator_name": name})
	}
	c := &Collector{
		source:       source,
		limitDesc:    desc("allocator_memory_limit_bytes", "The most bytes that may be live."),
		reservedDesc: desc("allocator_memory_reserved_bytes", "Bytes held of the system."),
		failed:       desc("allocator_failures_total", "Operations that failed.", "error_type"),
		size:         desc("allocator_allocation_size_bytes", "Sizes of the blocks granted to allocations and reallocations."),
	}
	for _, v := range values {
		c.values = append(c.values, desc(v.name, v.help))
	}
	for _, o := range opts {
		if o != nil {
			o(c)
		}
	}
	return c
}

// Register registers a new [Collector] with r, and returns it for r.Unregister. It panics
// as [NewCollector] does. If r has one of the name, the error says so and wraps a
// [prometheus.AlreadyRegisteredError].
func Register(r prometheus.Registerer, source counter.Source, name string, opts ...Option) (*Collector, error) {
	c := NewCollector(source, name, opts...)
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
	ch <- c.failed
	ch <- c.size
}

// Collect implements [prometheus.Collector]. It takes one snapshot of the source.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	if c.children { // before the whole, of which they are part, so that it has no less than they
		children := make(map[string]counter.Stats)
		collect(children, "", c.source)
		for path, s := range children {
			c.send(ch, path, &s)
		}
	}
	s := c.source.Stats()
	c.send(ch, "", &s)
	if c.limit != nil {
		ch <- prometheus.MustNewConstMetric(c.limitDesc, gauge, float64(c.limit()), "")
	}
	if c.reserved != nil {
		ch <- prometheus.MustNewConstMetric(c.reservedDesc, gauge, float64(c.reserved()), "")
	}
}

// send sends what s says of the child at path, or the whole if that is empty.
func (c *Collector) send(ch chan<- prometheus.Metric, path string, s *counter.Stats) {
	for i, v := range values {
		ch <- prometheus.MustNewConstMetric(c.values[i], v.kind, float64(v.of(s)), path)
	}
	ch <- prometheus.MustNewConstMetric(c.failed, count, float64(s.FailedAllocations), path, "allocate_failed")
	ch <- prometheus.MustNewConstMetric(c.failed, count, float64(s.FailedReallocations), path, "reallocate_failed")
	ch <- prometheus.MustNewConstMetric(c.failed, count, float64(s.FailedFrees), path, "free_failed")
	ch <- newSizes(c.size, s, path)
}

// collect adds the children of source, and theirs, to those in at, by path.
func collect(at map[string]counter.Stats, path string, source counter.Source) {
	parent, ok := source.(interface{ Children() []*alloctrace.Proxy })
	if !ok {
		return
	}
	for _, child := range parent.Children() {
		below := path
		if name := strings.ToValidUTF8(child.Name(), "\uFFFD"); name != "" {
			below = strings.TrimPrefix(path+"/"+name, "/")
			at[below] = plus(at[below], child.Stats())
		}
		collect(at, below, child)
	}
}

// plus returns what s and t count together, whose peaks need not have coincided.
func plus(s, t counter.Stats) counter.Stats {
	sum := s.Sub(counter.Stats{}.Sub(t)) // all that adds up
	sum.LiveBytes = s.LiveBytes + t.LiveBytes
	sum.LiveBlocks = s.LiveBlocks + t.LiveBlocks
	sum.PeakBytes = s.PeakBytes + t.PeakBytes
	least := max(s.PeakBytes-s.PeakBound, t.PeakBytes-t.PeakBound, sum.LiveBytes)
	sum.PeakBound = max(sum.PeakBytes-least, s.PeakBound+t.PeakBound)
	return sum
}
