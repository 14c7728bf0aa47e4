package debug

import "github.com/alloctrace/alloctrace/internal/pages"

// Options says what an [Allocator] looks for. The zero Options is all but guard
// pages: what is found is found wherever Go runs. The mildest keeps records alone:
//
//	Options{Canary: -1, NoPoison: true, Quarantine: -1, Stack: -1}
//
// and the most paranoid is
//
//	Options{Guard: true, ZeroFree: true, Quarantine: 1 << 30, QuarantineBlocks: 10_000, Stack: 64}
//
// What each option adds to an Allocate and Free of 64 bytes, or of 4 KiB, in atomic
// additions of some 8 ns each, measured on Linux amd64, and in memory:
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
	// Guard puts each block into a mapping of its own from the operating system,
	// with an inaccessible page before and after, and so near the second that the
	// first byte past the end faults, as far as the alignment allows: what
	// remains on either side, less than a page, is made of canaries. In quarantine
	// the whole is inaccessible, and without memory behind it. The parent is
	// asked only once MaxGuarded blocks are mapped, where the operating system refuses a
	// mapping, and on the platforms without mappings, which [blockalloc.System] does not
	// serve either. Stats.GuardedBlocks says how many have one. See [Allocator.Catch].
	Guard bool

	// MaxGuarded is how many blocks, those in quarantine included, may have a mapping
	// at once; further ones come from the parent. Linux allows a process 65,530
	// mappings, three to a live block, and Go programs end where there are no more.
	// Zero means 16,384. All Allocators of a process together take no more than that
	// either, unless MaxGuarded is more.
	MaxGuarded int

	// Canary is how many bytes before and after each block have a pattern that is
	// checked. Zero means 16, the most is 64 KiB; a negative number means none.
	Canary int

	// NoPoison leaves memory as it is. Otherwise a fresh block is full of 0xcd, so
	// that nobody takes it for zeroed, and a freed one of 0xdd, which is checked
	// when it leaves the quarantine.
	NoPoison bool

	// Zeroed says that the parent promises zeroed memory. It is checked that blocks
	// are, which are then not poisoned but handed out zeroed: see [blockalloc.ErrNotZeroed].
	Zeroed bool

	// ZeroFree clears a block when it is freed, whatever NoPoison says, so that no
	// secret stays in memory: freed memory is then full of zeros and not of 0xdd.
	ZeroFree bool

	// Quarantine is how many bytes of freed blocks are kept from being used again.
	// Zero means 16 MiB; a negative number means none. A block that is larger is not
	// kept.
	Quarantine int64

	// QuarantineBlocks is how many freed blocks are kept at most. Zero means 1024.
	QuarantineBlocks int

	// Stack is how many frames are kept of who allocated and who freed a block. Zero
	// means 16, the most is 64; a negative number means none.
	Stack int

	// OnReport, if not nil, is called with all that is found, before the operation
	// that found it returns, and holding no lock. It may be called by several
	// goroutines at once.
	OnReport func(*Report)
}

const (
	maxCanary = 64 << 10
	maxStack  = 64
)

// withDefaults returns o with what its zeros mean.
func (o Options) withDefaults() Options {
	o.Guard = o.Guard && pages.Supported
	o.MaxGuarded = zeroMeans(o.MaxGuarded, defaultMaxGuarded)
	o.Canary = min(zeroMeans(o.Canary, 16), maxCanary)
	o.Quarantine = zeroMeans(o.Quarantine, 16<<20)
	o.QuarantineBlocks = zeroMeans(o.QuarantineBlocks, 1024)
	o.Stack = min(zeroMeans(o.Stack, 16), maxStack)
	return o
}

// zeroMeans returns n, or fallback if it is zero; what is negative is none.
func zeroMeans[T int | int64](n, fallback T) T {
	if n == 0 {
		return fallback
	}
	return max(n, 0)
}
