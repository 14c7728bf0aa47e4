package guard

import (
	"github.com/alloctrace/alloctrace/blockalloc/debug"
)

// DefaultRate is the rate of an [Allocator] unless another is set: 8 MiB, as tcmalloc's.
const DefaultRate = 8 << 20

// Options configure [New]. The zero value is for production.
type Options struct {
	// Rate is how many bytes are allocated for each block that is guarded, on average: 1 for every
	// block, 0 for [DefaultRate], and less than that for none before [Allocator.SetRate].
	Rate int

	// MaxDrawn is the most bytes that a block counts for when it is drawn for: a larger one is guarded as seldom as a block of so
	// many. It bounds what guards take of operations with large blocks, whose memory comes fresh from the operating system if
	// they are guarded, page by page: by their number, and not by their bytes. Zero and less mean that all bytes count.
	MaxDrawn int

	// Memory is how many bytes guards may take beside the blocks: for what remains of the blocks'
	// last pages, and for what is kept of each slot. It decides how many slots there are, at least 8 and at
	// most 16,384. Half of them may have live blocks; the others keep freed ones from reuse. Zero
	// and less mean 1 MiB: some 390 slots with pages of 4 KiB.
	Memory int64

	// OnReport is called with each report before the operation that made it returns, without a
	// lock. Several goroutines may call it at once. If it is nil, reports are printed on standard error.
	OnReport func(*debug.Report)

	// Crash ends the process after each report, by a panic that nothing recovers: the report is its
	// text, also in the crash output that [runtime/debug.SetCrashOutput] has set. Without it the
	// operation returns, and the process goes on.
	Crash bool
}
