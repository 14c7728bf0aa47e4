// Package rss explains the resident set size of the process, which is what containers
// are killed for: how much of it is Go's, how much is in allocators, how much is files, and
// how much nobody accounts for.
//
//	report, err := rss.Read(mem)
//	if err != nil {
//		return err
//	}
//	fmt.Println(report)
//
// prints a table:
//
//	RSS 205.48 MiB = Go 58.64 MiB + tracked 80 MiB + files 3.31 MiB + unattributed 63.54 MiB
//
//	                                    live       slack    reserved    resident
//	cache                             88 MiB         0 B     128 MiB      64 MiB
//	big                               16 MiB         0 B      16 MiB      16 MiB
//	Go heap                                                            56.98 MiB
//	Go runtime beside its heap                                          1.66 MiB
//	files                                                               3.31 MiB
//	unattributed                                                       63.54 MiB
//	  0x7fbce6000000                                         120 MiB   63.54 MiB
//
// What is resident is asked of the kernel, page by page where need be, and not of
// counters: a block that was never written to takes no memory, and one that was freed may
// still do so.
//
//   - Go is the Go heap, goroutines' stacks included, and what the runtime has beside it.
//   - Tracked is the memory of the allocators, by their [blockalloc.Mapper], also what
//     they keep for reuse.
//   - Files are the program, its libraries and other mapped files, which the kernel can
//     take back and read again, but for what was written to of them.
//   - Unattributed is the rest: memory of C, and mmap'ed memory that goes through no
//     Proxy. [Report.Rest] says in which mappings it is.
//
// # Errors
//
// The parts add up to RSS, which is the sum over all mappings, within what changes while
// they are read: nothing is stopped. Where the kernel names anonymous mappings
// (CONFIG_ANON_VMA_NAME), as Go asks it to, what is Go's is known. Elsewhere the heap is
// found by the address of something in it; and of what the runtime has beside the heap,
// what was there when this package was initialized by its addresses, and what came later
// by [runtime/metrics], which does not tell whether it is resident: up to a MiB of what is
// unattributed can so count as Go's. So does anonymous memory that C or packages initialized
// earlier had mapped by that time. Pages that are shared with a forked process count
// as unattributed. Swapped pages and huge pages of hugetlbfs are no part of RSS.
//
// # Cost
//
// The kernel walks the page tables of the process: some 5 µs for each mapping and 10 ms
// for each GiB that allocators have in memory. The process can go on meanwhile, but
// cannot map memory while one mapping is looked at. It is for a table in a log and
// for metrics, not for each request. [BenchmarkRead] measures it.
//
// It is for Linux: elsewhere Read fails with [errors.ErrUnsupported].
package rss
