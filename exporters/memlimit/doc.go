// Package memlimit lets Go's garbage collector know of off-heap memory. A [Limiter]
// keeps the memory limit of the Go runtime, which GOMEMLIMIT sets at start, at a budget
// for the whole process less what its sources say is live off-heap:
//
//	l, err := memlimit.New(memlimit.Options{}, mem)
//	defer l.Close()
//
// As off-heap memory grows the collector runs more often, before the container is
// killed; as it shrinks the limit rises again. The budget is, in this order,
// Options.Budget, GOMEMLIMIT as it was at start, or the lowest limit of the process's
// memory cgroup and the cgroups around it times Options.Headroom; see [Options].
// Nothing happens on import.
//
// Limits of cgroups are memory.max and memory.high of version 2, and memory.limit_in_bytes
// and hierarchical_memory_limit of version 1. They are read where the process's own cgroup is
// mounted; mounts of other cgroups, and mounts that are hidden by others, do not count.
//
// # The control law
//
// At every tick, 20 ms apart unless Options.Interval says otherwise,
//
//	target = max(floor, budget - off-heap)
//	lower:   limit = target                    if target <= limit - band
//	raise:   limit = min(target, limit + rise) if target >= limit + band
//
// and otherwise nothing is called. The floor is the largest of Options.Floor, a tenth of
// the budget and 16 MiB, but no more than the budget; the band is 1 % of the budget; the
// rise is interval/2s of the budget, and at least a band. So the limit follows growth
// at the next tick, and takes 2 s, or 100 ticks if that is less, to rise by the whole
// budget: memory that is freed and soon taken again does not move it to and fro.
//
// It cannot oscillate by itself: it looks only at off-heap memory, which the limit does
// not change, and not at the heap or at RSS, which it does; there is no loop. While
// off-heap memory stays where it is, the limit comes to rest in at most 100 ticks, less
// than a band from its target, and is not set again. At most one call is made in a
// tick, and at rest, off-heap memory that moves by less than a band makes at most one. The
// exception is a program that frees off-heap memory in finalizers or cleanups: there
// the collector does change it, and it is the slow rise that damps the loop.
//
// # What it cannot do
//
// The limit is soft. Under the floor it does not go, for a heap that does not fit
// its limit is collected without end: the runtime stops at half of the processor's time
// and exceeds the limit. Stats.AtFloor counts the ticks at which the budget was not to
// be had; then bound the off-heap memory too, by [blockalloc.Limit], whose AllocateContext
// holds producers back until there is room again. What grows within
// a tick is seen only at its end, and what neither Go nor a source counts is not seen:
// code, C, what a pool keeps for reuse (see [Pool]), page tables. Headroom is for these.
//
// A program that makes no garbage starts no collection by itself. The Limiter therefore
// allocates 64 KiB when it has lowered the limit, so that the runtime compares heap and
// limit, and starts a collection if that is due.
//
// # Cost and platforms
//
// A tick reads each source once and takes about 3 µs with a Proxy, and 20 µs when it sets
// the limit, most of it for the 64 KiB: 0.1 % of a processor at most. A Pool's Stats
// visit all that it has: with gigabytes of small blocks, tick less often. Where the
// budget comes from GOMEMLIMIT or a cgroup, the cgroup's files are read again every
// 10 s, which takes 0.3 ms, for limits of running containers can be changed. If the limit is
// removed, Go's limit is what New found until there is a limit again. A file that cannot be
// read leaves the budget as it is. It runs wherever Go does; cgroups, of version 1, 2 or both, are found on Linux.
//
// [blockalloc.Limit]: https://pkg.go.dev/github.com/alloctrace/alloctrace/blockalloc#Limit
package memlimit
