// Package alloctrace makes memory outside the Go heap visible. Go sees its own
// heap and nothing else: what comes from mmap, VirtualAlloc or C is missing from
// profiles, from GOMEMLIMIT, from traces and from leak checks.
//
// A [Proxy] wraps any [blockalloc.Allocator], counts what goes through it, and
// tells each event to its hooks:
//
//	mem := alloctrace.Wrap(&blockalloc.System{}, alloctrace.WithHooks(zlog.New(logger)))
//
// The numbers are read with [Proxy.Stats], in tests and by the packages under
// exporters. Package hooks combines and samples hooks, hooks/zlog logs events
// with zerolog, and package tracer makes OpenTelemetry spans of regions of work.
//
// # Cost
//
// Without hooks an operation costs what the inner allocator takes and two atomic
// additions; see [counter.Counter]. With hooks it costs what they take. Nothing
// is allocated on the Go heap, no lock is taken, no clock is read and nothing is
// formatted unless a hook does so.
package alloctrace
