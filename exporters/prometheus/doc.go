// Package prometheus exports the counts of allocators to Prometheus:
//
//	mem := alloctrace.Wrap(blockalloc.NewLimit(blockalloc.Default(), 1<<30))
//	reg.MustRegister(allocprom.NewCollector(mem, "index", allocprom.Options{}))
//
// where allocprom is this package and reg a Registerer of
// github.com/prometheus/client_golang. Importing the package registers nothing. Each allocator
// has a [Collector] of its own, which reg.Unregister removes again. A registry can have several
// if their names differ. The file dashboard.json is a Grafana dashboard of the metrics, and alerts.yml has
// alerting rules.
//
// # Metrics
//
//	metric                                  type       unit        meaning
//	allocator_memory_used_bytes             gauge      bytes       in live blocks
//	allocator_memory_peak_bytes             gauge      bytes       the most that was live, since the start
//	allocator_memory_peak_bound_bytes       gauge      bytes       how far off the peak may be; 0 if it is exact
//	allocator_memory_limit_bytes            gauge      bytes       the most that may be live: the lowest bound of the Limits below the source, if there is one
//	allocator_memory_reserved_bytes         gauge      bytes       of address space that the Pool below has reserved, if there is one
//	allocator_memory_pinned_bytes           gauge      bytes       free in runs of the Pool and blocks of the Slab below, if there is one: see blockalloc.Span
//	allocator_memory_allocated_bytes_total  counter    bytes       granted to allocations and reallocations
//	allocator_memory_freed_bytes_total      counter    bytes       given back by frees and reallocations
//	allocator_memory_requested_bytes_total  counter    bytes       that allocations and reallocations asked for; the rest of the allocated is slack
//	allocator_blocks                        gauge      blocks      live
//	allocator_allocations_total             counter    operations  that succeeded
//	allocator_reallocations_total           counter    operations  that succeeded
//	allocator_frees_total                   counter    operations  that succeeded
//	allocator_failures_total                counter    operations  that failed; allocator_operation: allocate, reallocate or free
//	allocator_read_failures_total           counter    failures    to read what is above; see Failures
//	allocator_allocation_size_bytes         histogram  bytes       blocks granted to allocations and reallocations, by size
//
// Stats of package counter defines each number. Values are exact up to 2^53. The histogram is
// native and classic at once. The native one has schema 0, whose buckets are the size classes of
// counters, the powers of two. The classic one has the buckets from 16 B to 16 GiB.
//
// All have the labels allocator_name and allocator_child. For the allocator with all its
// children allocator_child is empty, which for Prometheus is the same as absent. With
// [Options].Children there are series for each child too, which have its name. They are part of
// those of the allocator, so sum over {allocator_child=""}. prometheus.WrapRegistererWith adds
// other labels.
//
// A [HookCollector] exports what a hook costs, with the label hook:
//
//	type     metric                                         unit      meaning
//	counter  allocator_instrumentation_events_total         events    that were delivered to it
//	counter  allocator_instrumentation_sampled_total        samples   blocks or events that it has kept or passed on
//	counter  allocator_instrumentation_dropped_total        samples   blocks or events that it could not keep or pass on
//	gauge    allocator_instrumentation_memory_bytes         bytes     of the Go heap that it holds
//	counter  allocator_instrumentation_time_seconds_total   seconds   for which those who allocate have waited for it
//	counter  allocator_instrumentation_read_failures_total  failures  to read what is above; see Failures
//
// The hook's method Usage defines each number. Events and time are absent while they are 0: a
// hook need not count events, and only a hooks.Meter around the hook estimates the time.
//
// An [RSSCollector] exports what the resident memory of the process is made of, by package rss:
//
//	type     metric                             unit      meaning
//	gauge    allocator_rss_bytes                bytes     of the process; part: go_heap, go_other, tracked, files or unattributed
//	gauge    allocator_memory_resident_bytes    bytes     of an allocator that are in memory, live or not
//	counter  allocator_rss_read_failures_total  failures  to read what is above; see Failures
//
// The parts add up to what is resident. The second has the label allocator_name.
//
// Package otelmetric has the same metrics under OpenTelemetry's names, with the same types and
// descriptions. So OpenTelemetry's exporter to Prometheus can use the same registry.
//
// # Names
//
// Prometheus refuses a scrape with a label that is not valid UTF-8. So each byte of a name that
// is not valid becomes U+FFFD, and a name of more than 1 KiB is cut and ends in "…". If two
// names become equal by that, [Register] returns an error for the second allocator, and children
// are added up.
//
// # Failures
//
// A scrape leaves out what cannot be read, and has all else. That happens if a source, a hook or
// a function of [Options] panics, or if the process may not read its own /proc/self/pagemap or
// has no file descriptor left. The counters of read failures count it, and are always there.
//
// # Cost
//
// The allocator's operations cost nothing more. A scrape takes one snapshot of each source, some
// two microseconds for each Counter and shard. It has 48 series in the text format, or 15 of
// which one is a native histogram. Gathering ten allocators takes half a millisecond and 200 KiB
// of Go heap, which are garbage after it; then a handler writes them. A hook adds six series at
// most, and some microseconds. An RSSCollector adds the milliseconds of rss.Read.
package prometheus
