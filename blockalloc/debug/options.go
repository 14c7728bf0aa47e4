package debug

import "github.com/alloctrace/alloctrace/internal/pages"

// Options says what an [Allocator] looks for. The zero Options is everything but guard
// pages, and finds the same on all platforms. The mildest only keeps records:
//
//	Options{Canary: -1, NoPoison: true, Quarantine: -1, Stack: -1}
//
// The strictest is
//
//	Options{Guard: true, ZeroFree: true, Quarantine: 1 << 30, QuarantineBlocks: 10_000, Stack: 64}
//
// The costs of each option for an Allocate and Free of 64 bytes, or of 4 KiB, in atomic
// additions of some 8 ns (Linux, amd64), and in memory:
//
//	             64 B   4 KiB  memory
//	records        50      50  200 B a live block, and up to 170 KiB of history
//	Canary          5       5  twice its size a block, the first rounded up to the alignment
//	Poison         10      50  none
//	ZeroFree        5      15  none
//	Quarantine     15      15  its size, and 200 B a block
//	Stack          25      25  8 B a frame, for each of two stacks a block
//	Guard         600     600  whole pages, and three mappings a live block, one in quarantine
//	the default   105     280
//	the most     1800    1750
type Options struct {
	// Guard gives each block a mapping of its own from the operating system, with an
	// inaccessible page before and after it. The block ends at the second page, as far as
	// its alignment allows, so that the first byte past the end faults. What remains on
	// either side, less than a page, is canaries. In quarantine the mapping is inaccessible
	// and takes no memory. The parent is used beyond MaxGuarded blocks, if the operating
	// system refuses a mapping, and on platforms without mappings (see
	// [blockalloc.System]). Stats.GuardedBlocks says how many blocks have one. See
	// [Allocator.Catch].
	Guard bool

	// MaxGuarded is how many blocks may have a mapping at once, also in quarantine; further
	// ones come from the parent. Linux allows a process 65,530 mappings, three to a live
	// block, and a Go program that needs more ends. Zero means 16,384. All Allocators of a
	// process together take no more than that either, unless MaxGuarded is more.
	MaxGuarded int

	// Canary is how many bytes before and after each block have a pattern that is checked,
	// at most 64 KiB. Zero means 16; a negative number means none.
	Canary int

	// NoPoison leaves memory as it is. Otherwise fresh blocks that need not be zeroed are
	// filled with 0xcd, so that nobody takes them for that. Freed blocks are filled with 0xdd,
	// which is checked when they leave the quarantine.
	NoPoison bool

	// Zeroed says that the parent promises zeroed memory, also if that was not asked for.
	// Blocks are checked for that, and handed out zeroed, not poisoned: see
	// [blockalloc.ErrNotZeroed]. So are in any case those whose [blockalloc.Layout] has Zeroed
	// set, which the parent is then asked for in the same way.
	Zeroed bool

	// ZeroFree clears freed blocks, whatever NoPoison says, so that no secret stays in
	// memory. The check for writes then expects zeros instead of 0xdd.
	ZeroFree bool

	// Quarantine is how many bytes of freed blocks are kept from reuse. Zero means 16 MiB;
	// a negative number means none. A larger block is not kept.
	Quarantine int64

	// QuarantineBlocks is how many freed blocks are kept at most. Zero means 1024; a
	// negative number means none.
	QuarantineBlocks int

	// Stack is how many frames are kept of who allocated and who freed a block, at most 64.
	// Zero means 16, and 32 with Skip; a negative number means none.
	Stack int

	// Skip are packages whose calls reports leave out where they are the innermost, by import path,
	// for who called them to be seen: such as an adapter's, or "example.com/adapter/..." for all
	// below as well. A stack that would be empty stays as it is, as do calls in files of tests.
	Skip []string

	// OnReport, if not nil, is called with each report before the operation that made it
	// returns, without a lock. Several goroutines may call it at once.
	OnReport func(*Report)
}

const (
	maxCanary = 64 << 10
	maxStack  = 64
)

// withDefaults returns o with its zeros replaced by what they mean.
func (o Options) withDefaults() Options {
	o.Guard = o.Guard && pages.Supported
	o.MaxGuarded = zeroMeans(o.MaxGuarded, defaultMaxGuarded)
	o.Canary = min(zeroMeans(o.Canary, 16), maxCanary)
	o.Quarantine = zeroMeans(o.Quarantine, 16<<20)
	o.QuarantineBlocks = zeroMeans(o.QuarantineBlocks, 1024)
	if o.Stack == 0 && len(o.Skip) > 0 {
		o.Stack = 32
	}
	o.Stack = min(zeroMeans(o.Stack, 16), maxStack)
	return o
}

// zeroMeans returns n, fallback if n is zero, or zero if n is negative.
func zeroMeans[T int | int64](n, fallback T) T {
	if n == 0 {
		return fallback
	}
	return max(n, 0)
}
