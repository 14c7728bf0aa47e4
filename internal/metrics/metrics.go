// Package metrics has what the exporters of metrics agree on: the metrics that several of
// them have. A registry of Prometheus refuses a scrape in which a metric has two
// descriptions or types, as it would where OpenTelemetry's exporter to Prometheus stands
// beside exporters/prometheus.
package metrics

// A Kind is what a metric is to OpenTelemetry.
type Kind string

const (
	Counter       Kind = "Counter"
	UpDownCounter Kind = "UpDownCounter"
	Gauge         Kind = "Gauge"
	Histogram     Kind = "Histogram"
)

// A Metric is one by its name and unit in OpenTelemetry. Prometheus is the name that
// OpenTelemetry's rules make of them for Prometheus.
type Metric struct {
	Name, Unit, Prometheus string
	Kind                   Kind
	Help                   string
}

var (
	MemoryUsed      = Metric{"allocator.memory.used", "By", "allocator_memory_used_bytes", UpDownCounter, "Bytes in live blocks."}
	MemoryAllocated = Metric{"allocator.memory.allocated", "By", "allocator_memory_allocated_bytes_total", Counter, "Bytes granted to allocations and reallocations."}
	MemoryPeak      = Metric{"allocator.memory.peak", "By", "allocator_memory_peak_bytes", Gauge, "The most bytes that were live."}
	MemoryReserved  = Metric{"allocator.memory.reserved", "By", "allocator_memory_reserved_bytes", UpDownCounter, "Bytes of address space reserved from the system."}
	MemoryPinned    = Metric{"allocator.memory.pinned", "By", "allocator_memory_pinned_bytes", UpDownCounter, "Bytes carved for blocks that are free, and serve blocks of other sizes only once all beside them are."}
	MemoryLimit     = Metric{"allocator.memory.limit", "By", "allocator_memory_limit_bytes", UpDownCounter, "The most bytes that may be live."}
	BlockCount      = Metric{"allocator.block.count", "{block}", "allocator_block_count", UpDownCounter, "Live blocks."}
	Allocations     = Metric{"allocator.allocations", "{allocation}", "allocator_allocations_total", Counter, "Allocations that succeeded."}
	Reallocations   = Metric{"allocator.reallocations", "{reallocation}", "allocator_reallocations_total", Counter, "Reallocations that succeeded."}
	Frees           = Metric{"allocator.frees", "{free}", "allocator_frees_total", Counter, "Frees that succeeded."}
	Failures        = Metric{"allocator.failures", "{failure}", "allocator_failures_total", Counter, "Operations that failed."}
	ReadFailures    = Metric{"allocator.read_failures", "{failure}", "allocator_read_failures_total", Counter, "Times that the allocator's numbers could not be read."}
	AllocationSize  = Metric{"allocator.allocation.size", "By", "allocator_allocation_size_bytes", Histogram, "Sizes of the blocks granted to allocations and reallocations."}

	HookEvents       = Metric{"allocator.instrumentation.events", "{event}", "allocator_instrumentation_events_total", Counter, "Events that were delivered to the hook."}
	HookSampled      = Metric{"allocator.instrumentation.sampled", "{sample}", "allocator_instrumentation_sampled_total", Counter, "Blocks or events that the hook has kept or passed on."}
	HookDropped      = Metric{"allocator.instrumentation.dropped", "{sample}", "allocator_instrumentation_dropped_total", Counter, "Blocks or events that the hook could not keep or pass on."}
	HookMemory       = Metric{"allocator.instrumentation.memory", "By", "allocator_instrumentation_memory_bytes", UpDownCounter, "Bytes of the Go heap that the hook holds."}
	HookTime         = Metric{"allocator.instrumentation.time", "s", "allocator_instrumentation_time_seconds_total", Counter, "For how long those who allocate have waited for the hook."}
	HookReadFailures = Metric{"allocator.instrumentation.read_failures", "{failure}", "allocator_instrumentation_read_failures_total", Counter, "Times that the hook's numbers could not be read."}

	RSS             = Metric{"allocator.rss", "By", "allocator_rss_bytes", UpDownCounter, "Resident memory of the process, by what it is of."}
	MemoryResident  = Metric{"allocator.memory.resident", "By", "allocator_memory_resident_bytes", UpDownCounter, "Bytes of an allocator that are in memory, live or not."}
	RSSReadFailures = Metric{"allocator.rss.read_failures", "{failure}", "allocator_rss_read_failures_total", Counter, "Times that the resident memory could not be read."}
)

// All are all of them.
var All = []Metric{
	MemoryUsed, MemoryAllocated, MemoryPeak, MemoryReserved, MemoryPinned, MemoryLimit, BlockCount, Allocations, Reallocations, Frees, Failures, ReadFailures, AllocationSize,
	HookEvents, HookSampled, HookDropped, HookMemory, HookTime, HookReadFailures,
	RSS, MemoryResident, RSSReadFailures,
}
