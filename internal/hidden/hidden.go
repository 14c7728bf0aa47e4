// Package hidden keeps addresses of blocks where a search for references to blocks does not see them: in the tables of this library, which
// know blocks and do not hold them. See package reach.
package hidden

import "unsafe"

// An Addr is an address as its complement, which is no address of a program where they have 64 bits. The zero Addr is none. What it points to on the Go heap it does
// not keep alive.
type Addr uintptr

// Of returns p, hidden.
func Of(p unsafe.Pointer) Addr { return Addr(^uintptr(p)) }

// OfAddr returns addr, hidden.
func OfAddr(addr uintptr) Addr { return Addr(^addr) }

// Addr returns the address.
func (a Addr) Addr() uintptr { return ^uintptr(a) }

// Pointer returns the pointer. Where it points to the Go heap, something else must keep that alive.
func (a Addr) Pointer() unsafe.Pointer {
	addr := a.Addr()
	return *(*unsafe.Pointer)(unsafe.Pointer(&addr))
}

// A Mark, the first field of a struct that is allocated by itself, or of an array of such, says that addresses in it are no references. It is
// for structs whose addresses are read where each instruction counts, or in many places.
type Mark struct{ is uint64 }

// What a Mark has. Other words have it by a chance of 1 in 2^64.
const (
	Knows = 0xb6f1_37a9_5ce8_d24b // the struct has no references
	Holds = 0x9a4c_e27d_61b3_f825 // it has: each address of a block whose size is in the next word, as in a blockalloc.Block
)

// Knowing returns the Mark of a struct that knows blocks, and holds none.
func Knowing() Mark { return Mark{Knows} }

// Holding returns the Mark of a struct that knows blocks, and holds others as blockalloc.Block.
func Holding() Mark { return Mark{Holds} }
