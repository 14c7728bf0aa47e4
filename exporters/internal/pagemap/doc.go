// Package pagemap reads which pages of this process have memory behind them, as /proc/self/pagemap of Linux says.
package pagemap

import "os"

// PageSize is how many bytes a page has.
var PageSize = uintptr(os.Getpagesize())

// What a Word says of a page.
const (
	Present   Word = 1 << 63 // it is in memory
	Swapped   Word = 1 << 62 // it is in swap
	Exclusive Word = 1 << 56 // it is mapped once: not the page of zeros, which is no part of RSS
)

// A Word is what the kernel says of a page.
type Word uint64

// Has reports whether all of bits are set.
func (w Word) Has(bits Word) bool { return w&bits == bits }
