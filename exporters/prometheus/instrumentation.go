package prometheus

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/internal/metrics"
	"github.com/alloctrace/alloctrace/internal/text"
)

// A HookCollector is a [prometheus.Collector] of the [hooks.Usage] of a hook: what it has done,
// and what it costs. It may be used by several goroutines at once.
type HookCollector struct {
	hook                                    hooks.UsageSource
	events, sampled, dropped, memory, times *prometheus.Desc
	unread                                  unread
}

var _ prometheus.Collector = (*HookCollector)(nil)

// NewHookCollector returns a HookCollector of hook, such as a ring.Ring, a
// heapprofile.Profile, or a hooks.Meter of either. The
// label hook is name. NewHookCollector panics if hook is nil or name is empty.
func NewHookCollector(hook hooks.UsageSource, name string) *HookCollector {
	if hook == nil || name == "" {
		panic(fmt.Sprintf("prometheus: NewHookCollector(%v, %q): pass a hook that reports its Usage, such as a ring.Ring, and a name for it", hook, name))
	}
	desc := func(m metrics.Metric) *prometheus.Desc {
		return prometheus.NewDesc(m.Prometheus, m.Help, nil, prometheus.Labels{"hook": text.Name(name)})
	}
	return &HookCollector{
		hook:    hook,
		events:  desc(metrics.HookEvents),
		sampled: desc(metrics.HookSampled),
		dropped: desc(metrics.HookDropped),
		memory:  desc(metrics.HookMemory),
		times:   desc(metrics.HookTime),
		unread:  unread{desc: desc(metrics.HookReadFailures)},
	}
}

// Describe implements [prometheus.Collector].
func (c *HookCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.events, c.sampled, c.dropped, c.memory, c.times, c.unread.desc} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector]. It asks the hook once.
func (c *HookCollector) Collect(ch chan<- prometheus.Metric) {
	defer c.unread.send(ch)
	var u hooks.Usage
	if !c.unread.try(func() error { u = c.hook.Usage(); return nil }) {
		return
	}
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64) {
		ch <- prometheus.MustNewConstMetric(d, kind, v)
	}
	if u.Events != 0 { // else nobody may have counted
		send(c.events, count, float64(u.Events))
	}
	send(c.sampled, count, float64(u.Sampled))
	send(c.dropped, count, float64(u.Dropped))
	send(c.memory, gauge, float64(u.Bytes))
	if u.Time != 0 {
		send(c.times, count, u.Time.Seconds())
	}
}
