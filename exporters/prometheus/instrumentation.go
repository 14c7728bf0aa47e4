package prometheus

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/alloctrace/alloctrace/hooks"
)

// A HookCollector is a [prometheus.Collector] of what a hook has done and takes: the cost of
// looking on. It may be used by several goroutines at once.
type HookCollector struct {
	hook                                    hooks.UsageSource
	events, sampled, dropped, memory, times *prometheus.Desc
}

var _ prometheus.Collector = (*HookCollector)(nil)

// NewHookCollector returns a HookCollector of hook, such as a hooks.Ring, a hooks.Profile, or a
// hooks.Meter of either, whose label hook is name. It panics if hook is nil or name empty.
func NewHookCollector(hook hooks.UsageSource, name string) *HookCollector {
	if hook == nil || name == "" {
		panic(fmt.Sprintf("prometheus: NewHookCollector(%v, %q): pass a hook that tells its Usage, such as a hooks.Ring, and a name for it", hook, name))
	}
	desc := func(metric, help string) *prometheus.Desc {
		return prometheus.NewDesc("allocator_instrumentation_"+metric, help, nil, prometheus.Labels{"hook": name})
	}
	return &HookCollector{
		hook:    hook,
		events:  desc("events_total", "Events that the hook was told of."),
		sampled: desc("sampled_total", "Blocks or events that the hook has kept, or told another."),
		dropped: desc("dropped_total", "Blocks or events that the hook could not keep, or not tell."),
		memory:  desc("memory_bytes", "Bytes of the Go heap that the hook holds."),
		times:   desc("time_seconds_total", "For how long those who allocate have waited for the hook."),
	}
}

// Describe implements [prometheus.Collector].
func (c *HookCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.events, c.sampled, c.dropped, c.memory, c.times} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector]. It asks the hook once.
func (c *HookCollector) Collect(ch chan<- prometheus.Metric) {
	u := c.hook.Usage()
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
