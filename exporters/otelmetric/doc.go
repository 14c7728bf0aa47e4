// Package otelmetric exports the counts of allocators to OpenTelemetry. Its instruments are
// read when metrics are collected, and cost an allocator nothing in between:
//
//	sizes := new(otelmetric.Producer)
//	reader := sdkmetric.NewPeriodicReader(exporter, sdkmetric.WithProducer(sizes))
//	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
//
//	reg, err := otelmetric.Register(mem, otelmetric.WithMeterProvider(provider), otelmetric.WithProducer(sizes))
//	if err != nil {
//		return err
//	}
//	defer reg.Close()
//
// These are the metrics. Bytes are granted bytes, as in [counter.Stats].
//
//	Metric                      Instrument     Unit            Meaning
//	allocator.memory.used       UpDownCounter  By              bytes of live blocks: allocated less freed
//	allocator.memory.allocated  Counter        By              bytes granted to allocations and reallocations, in all
//	allocator.memory.peak       Gauge          By              the most bytes that were live, as exactly as counter.Stats has it
//	allocator.memory.reserved   UpDownCounter  By              address space that the Pool below has reserved, if there is one
//	allocator.memory.pinned     UpDownCounter  By              free in runs of the Pool and blocks of the Slab below, if there is one: see blockalloc.Span
//	allocator.memory.limit      UpDownCounter  By              the lowest bound of the Limits below the source, if there is one
//	allocator.block.count       UpDownCounter  {block}         live blocks
//	allocator.allocations       Counter        {allocation}    allocations that succeeded
//	allocator.reallocations     Counter        {reallocation}  reallocations that succeeded
//	allocator.frees             Counter        {free}          frees that succeeded; a reallocation to size zero is none
//	allocator.failures          Counter        {failure}       operations that failed
//	allocator.read_failures     Counter        {failure}       times that what is here could not be read
//	allocator.allocation.size   Histogram      By              blocks by size, as allocated and reallocated: of a Producer
//
// All have the attribute allocator.name. They have allocator.backend, the type of the allocator
// at the bottom, such as "Pool", if it is known. allocator.failures also has
// allocator.operation, as the spans of package tracer have: allocate, reallocate or free. No
// attribute is an address or a stack, so that the number of series depends on that of
// allocators alone.
//
// A receiver of OTLP refuses all metrics if one attribute is not valid UTF-8. So each byte of a
// name that is not valid becomes U+FFFD, and a name of more than 1 KiB is cut and ends in "…".
// Allocators whose names become equal are added up.
//
// The SDK exports no metrics at all if one callback returns an error. So what cannot be read is
// left out, and the metrics of read failures count it. That happens if a source or a hook
// panics, or if the process may not read its own /proc/self/pagemap or has no file descriptor
// left.
//
// The numbers of one allocator in one collection are of one snapshot, so that they agree with
// each other; see [counter.Counter.Stats] for its cost. Reserved, limit and the histogram are
// read on their own. The histogram needs a [Producer], because OpenTelemetry has no histogram
// that is read when metrics are collected. Reserved costs a call of [blockalloc.Pool.Stats]. A
// collection takes some 40 µs for each allocator, most of it in the SDK.
//
// A Proxy's numbers include those of its children. If a child is registered as well, a sum over
// allocator.name counts it twice. If allocators share a Pool or a Limit, each of them reports
// all of its reserved bytes and its limit.
//
// [RegisterHook] exports what a hook costs, with the attribute
// allocator.instrumentation.hook:
//
//	Instrument     Metric                                   Unit       Meaning
//	Counter        allocator.instrumentation.events         {event}    that were delivered to it
//	Counter        allocator.instrumentation.sampled        {sample}   blocks or events that it has kept or passed on
//	Counter        allocator.instrumentation.dropped        {sample}   blocks or events that it could not keep or pass on
//	UpDownCounter  allocator.instrumentation.memory         By         of the Go heap that it holds
//	Counter        allocator.instrumentation.time           s          for which those who allocate have waited for it
//	Counter        allocator.instrumentation.read_failures  {failure}  times that what is here could not be read
//
// The hook's method Usage defines each number. Events and time are absent while they are 0: a
// hook need not count events, and only a hooks.Meter around the hook estimates the time.
//
// [RegisterRSS] exports what the resident memory of the process is made of, by package rss:
//
//	Instrument     Metric                       Unit       Meaning
//	UpDownCounter  allocator.rss                By         of the process, by allocator.rss.part: go_heap, go_other, tracked, files or unattributed
//	UpDownCounter  allocator.memory.resident    By         of an allocator that are in memory, live or not
//	Counter        allocator.rss.read_failures  {failure}  times that what is here could not be read
//
// The parts add up to what is resident. The second has allocator.name.
//
// Importing the package registers nothing.
package otelmetric
