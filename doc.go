// Package alloctrace makes memory outside the Go heap visible. Go sees its own
// heap and nothing else: what comes from mmap, VirtualAlloc or C is missing from
// profiles, from GOMEMLIMIT, from traces and from leak checks.
//
// A [Proxy] wraps any [blockalloc.Allocator], counts what goes through it, and
// delivers each event to its hooks:
//
//	mem := alloctrace.Wrap(&blockalloc.System{}, alloctrace.WithHooks(zlog.New(logger)))
//
// [Proxy.Stats] returns the numbers, to tests and to the packages under exporters. Package
// hooks combines and samples hooks, hooks/zlog logs events with zerolog, and package tracer
// makes OpenTelemetry spans of regions of work.
//
// # Who and for whom
//
// An allocation has two owners. Who allocates is a named part of the program, a child of a
// Proxy. For whom it allocates is in the context: a request, a region of work.
//
//	mem := alloctrace.Wrap(allocator)
//	cache := mem.Child("cache")                        // who
//	ctx, region := tracer.Start(ctx, "request", mem)   // for whom
//	b, err := cache.WithContext(ctx).Allocate(layout)
//
// The block counts for the part, for the whole, and for each region that ctx is inside of:
//
//	                     for whom: the context
//	                 ──────────────────────────────────
//	                  nobody    request 1    request 2
//	who    mem       │  ·          ·            ·        mem.Stats(): all
//	       ├─ cache  │  ·          b            ·        cache.Stats(): its row
//	       └─ index  │  ·          ·            ·        index.Stats(): its row
//	                    region.Stats(): its column
//
// Hooks, profiles and logs are given both. Children and regions may begin and end by the
// million: what has ended costs nothing.
//
// A view, as WithContext returns it, is the same Proxy: it shares the counts. Where Proxies are
// stacked, a region counts an operation once, at the Proxy that was given the context.
//
// A block should be freed through the Proxy or child that allocated it. A plain Proxy cannot know
// whether it was: it does not know blocks, and adds up numbers. With a free through another child
// the whole is still right. With a free through another Proxy around the same allocator, one
// has a block too many and the other one too few. A hook that knows every block finds both, as
// package alloctest has it.
//
// # Cost
//
// Without hooks an operation costs what the inner allocator takes, and what
// [counter.Counter] says. With hooks it costs what they take, too. Nothing is allocated on the Go heap, no lock is taken, no clock is read and nothing is
// formatted unless a hook does so.
package alloctrace
