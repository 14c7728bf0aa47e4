// Package memlimit makes Go's garbage collector take account of off-heap memory. A [Limiter]
// has a budget for the whole process. It sets the memory limit of the Go runtime to the budget
// less the off-heap bytes of its sources, and keeps it so. GOMEMLIMIT sets the same limit once,
// at start. A [Pacer] keeps collections as rare as if off-heap memory were on the Go heap: see
// below.
//
//	l, err := memlimit.New(memlimit.Options{}, mem)
//	defer l.Close()
//	p, err := memlimit.NewPacer(memlimit.PacerOptions{}, mem)
//	defer p.Close()
//
// As off-heap memory grows, the limit falls and the collector runs more often, before the
// container is killed. As it shrinks, the limit rises again. The budget is Options.Budget. If
// that is 0, the budget is GOMEMLIMIT as it was at start. If that is not set, or a cgroup of the
// process has a lower limit, the budget is Options.Headroom times the cgroup's limit. Importing
// the package does nothing.
//
// Limits of cgroups are memory.max and memory.high of version 2, and memory.limit_in_bytes
// and hierarchical_memory_limit of version 1. They are read where the process's own cgroup is
// mounted. Mounts of other cgroups, and mounts that others cover, do not count.
//
// # The control law
//
// At every tick, 20 ms apart unless Options.Interval says otherwise,
//
//	target = max(floor, budget - off-heap)
//	lower:   limit = target                    if target <= limit - band
//	raise:   limit = min(target, limit + rise) if target >= limit + band
//
// and otherwise the limit stays. The floor is the largest of Options.Floor, a tenth of the
// budget and 16 MiB, but no more than the budget. The band is 1 % of the budget. The rise is
// interval/2s of the budget, and at least a band. So the limit follows growth at the next tick.
// To rise by the whole budget it takes 2 s or 100 ticks, whichever is shorter. Memory that is
// freed and soon allocated again does not move it up and down.
//
// The law cannot oscillate by itself: its input is off-heap memory, which the limit does not
// change, and not the heap or RSS, which it does. While off-heap memory stays the same, the
// limit comes within a band of its target in at most 100 ticks, and is not set again. A tick
// sets the limit at most once. The exception is a program that frees off-heap memory in
// finalizers or cleanups. There the collector changes the input, and the slow rise damps the
// loop.
//
// # What it cannot do
//
// The limit is soft. The Limiter never sets it below the floor: if the heap does not fit its
// limit, the runtime collects until it has used half of the processor's time, and then exceeds
// the limit. Stats.AtFloor counts the ticks at which budget less off-heap was below the floor.
// If there are many, bound the off-heap memory too, by [blockalloc.Limit]: its AllocateContext
// makes producers wait until there is room again. The Limiter sees growth at the next tick
// only. It does not see what neither Go nor a source counts: code, memory of C, page tables,
// and what a pool keeps for reuse (see [Pool]). Headroom is for these.
//
// A program that makes no garbage starts no collection by itself. After it has lowered the
// limit, the Limiter therefore allocates 64 KiB, which makes the runtime compare heap and limit
// and start a collection if one is due.
//
// # The Pacer
//
// Without a memory limit the runtime collects when the heap reaches
//
//	live + (live + roots) * GOGC/100, but 4 MiB * GOGC/100 at least
//
// where live is what the last collection found alive, and roots are stacks and globals. Memory
// that moves off the heap leaves live, and the program that made 16 MiB of garbage between two
// collections makes 4 MiB. After each collection a Pacer raises the GC percentage, to the highest
// by which this goal is no higher than that with the off-heap bytes in live, less these bytes. So
// heap and off-heap memory together are what the heap would be: with them, at most 1 + GOGC/100
// times what is live, as ever. What grows between two collections is seen after the second.
//
// The percentage is never below what [NewPacer] found, so that no collection is added. It is not
// raised where the budget has no room: live heap, garbage, off-heap memory and what the runtime
// has beside its heap stay below PacerOptions.Budget, GOMEMLIMIT or 0.9 times the cgroup's
// limit, as far as off-heap memory does not grow meanwhile. While a Limiter runs, its limit is in
// force: the runtime goes by the lower goal. The two can be started and closed in any order.
//
// A Pacer does not fight. If somebody else sets the percentage, the Pacer leaves it alone, Close
// does too, and PacerStats.Yielded says so. When the Pacer's own value is restored, as by code
// that switches collections off for a while, it goes on. For another GOGC, close the Pacer, set
// it, and start a new one. If GOGC is off, there is no pace, and the Pacer does nothing. While it
// runs, GOGC as the runtime reports it is what the Pacer has set: PacerStats.Base is the program's.
//
// It learns of collections from the finalizer of an object that each of them finds unreachable.
// Because a program can block finalizers, it also looks each second. Each time it reads the sources
// and runtime/metrics, and sets the percentage if it has changed: about 4 µs with a Proxy, a
// goroutine, and no other allocation. Between collections it costs nothing. Until the new percentage
// is set, in a millisecond or so, the old one applies to the new live heap.
//
// # Cost and platforms
//
// A tick of the Limiter reads each source once and takes about 3 µs with a Proxy, and 20 µs when it sets
// the limit, most of it for the 64 KiB: 0.1 % of a processor at most. A Pool's Stats visit all
// of its memory: with gigabytes of small blocks, tick less often. Unless Options.Budget is set,
// the cgroup's files are read again every 10 s, because limits of running containers can be
// changed. That takes 0.3 ms. If the cgroup's limit is removed, Go's limit is what New found until there is a
// limit again. If a file cannot be read, the budget stays. The package works wherever Go does.
// Cgroups, of version 1, 2 or both, are found on Linux.
//
// [blockalloc.Limit]: https://pkg.go.dev/github.com/alloctrace/alloctrace/blockalloc#Limit
package memlimit
