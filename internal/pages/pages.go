// Package pages takes pages of memory from the operating system. On platforms that have none
// for Go programs (js/wasm, wasip1, plan9), all calls return [errors.ErrUnsupported]. Other
// errors are the operating system's.
//
// Map maps accessible, zeroed pages. Reserve takes address space without access. Commit makes
// part of it accessible, and Seal makes that inaccessible again. Purge gives back the memory of
// accessible pages, whose content is lost, and [PurgeZeroes] says whether they are zero then. Unmap
// gives back the address space. MapFile maps a file, and DetachFile ends that. Sizes and alignments are whole pages.
package pages

import "os"

// Size is the size of a page in bytes.
var Size = uintptr(os.Getpagesize())

// RoundUp rounds n up to a multiple of align, a power of two.
func RoundUp(n, align uintptr) uintptr { return (n + align - 1) &^ (align - 1) }
