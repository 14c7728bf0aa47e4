// Package rss explains the resident set size of the process, for which containers are killed:
// how much of it is Go's, how much is in allocators, how much is files, and how much is none of
// these.
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
// The figures are the kernel's, page by page if necessary, and not those of counters: a block
// that was never written to takes no memory, and one that was freed may still take some.
//
//   - Go is the Go heap, with goroutines' stacks, and the rest of the runtime's memory.
//   - Tracked is the memory of the allocators, which their [blockalloc.Mapper] lists. What
//     they keep for reuse is part of it.
//   - Files are the program, its libraries and other mapped files. The kernel can drop their
//     pages and read them again, except those that were written to.
//   - Unattributed is the rest: memory of C, and mmap'ed memory that no Proxy allocated.
//     [Report.Rest] lists its mappings.
//
// # Errors
//
// The parts add up to RSS, the sum over all mappings. The program goes on while they are read,
// so that what changes meanwhile is an error.
//
// If the kernel can name anonymous mappings (CONFIG_ANON_VMA_NAME), Go names its own, and they
// are known exactly. Otherwise the heap is found by the address of an object in it. The
// runtime's other memory is then found in two ways. What it had when this package was
// initialized is known by its addresses; anonymous memory that C, or packages initialized
// earlier, had mapped by that time counts as Go's too. The later rest is taken from
// [runtime/metrics], which does not say whether it is resident: up to a MiB of unattributed
// memory can so count as Go's.
//
// Pages that are shared with a forked process count as unattributed. Swapped pages and huge
// pages of hugetlbfs are not in RSS.
//
// # Cost
//
// The kernel walks the page tables of the process: some 5 µs for each mapping and 10 ms
// for each GiB that allocators have in memory. Other goroutines go on meanwhile, but cannot map
// memory while the kernel walks one mapping. Use Read for a table in a log and for metrics, not
// for each request. [BenchmarkRead] measures it.
//
// It works on Linux. On other systems Read fails with [errors.ErrUnsupported].
package rss
