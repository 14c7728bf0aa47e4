package blockalloc

import "sync/atomic"

// A radix finds what was stored for the piece of address space that an address
// lies in. It is a tree of three levels, indexed by the bits of the piece's number:
// five or so nanoseconds to read, whatever the address, without a lock and without
// touching the memory it speaks of. It may be used by several goroutines at once.
//
// A leaf of 16 KiB speaks for 2,048 pieces, a node of 32 KiB for 4,096 leaves; they are
// made when first needed and stay for as long as the radix. The root has what is
// left: 4 KiB for pieces of 64 KiB, 64 KiB for pieces of 4 KiB.
type radix[T any] struct {
	shift uint // log2 of a piece's size in bytes
	root  []atomic.Pointer[radixNode[T]]
}

type (
	radixNode[T any] [1 << radixNodeBits]atomic.Pointer[radixLeaf[T]]
	radixLeaf[T any] [1 << radixLeafBits]atomic.Pointer[T]
)

const (
	radixAddrBits = 32 + 16*int(wide) // Go programs get no addresses beyond that
	radixNodeBits = 12
	radixLeafBits = 11
)

// newRadix returns a radix for pieces of 1<<shift bytes, each aligned to its size.
func newRadix[T any](shift uint) radix[T] {
	topBits := max(0, radixAddrBits-int(shift)-radixNodeBits-radixLeafBits)
	return radix[T]{shift, make([]atomic.Pointer[radixNode[T]], 1<<topBits)}
}

// load returns what was stored last for the piece that addr lies in, nil for
// nothing. Whatever was written before it was stored is seen by who loads it.
func (r *radix[T]) load(addr uintptr) *T {
	n := addr >> (r.shift & 63)
	top := n >> (radixNodeBits + radixLeafBits)
	if top >= uintptr(len(r.root)) {
		return nil
	}
	node := r.root[top].Load()
	if node == nil {
		return nil
	}
	leaf := node[n>>radixLeafBits%(1<<radixNodeBits)].Load()
	if leaf == nil {
		return nil
	}
	return leaf[n%(1<<radixLeafBits)].Load()
}

// store makes load return v for addr's piece. It reports whether addr is one that
// the radix has room for: only then is it stored.
func (r *radix[T]) store(addr uintptr, v *T) bool {
	n := addr >> (r.shift & 63)
	top := n >> (radixNodeBits + radixLeafBits)
	if top >= uintptr(len(r.root)) {
		return false
	}
	node := loadOrNew(&r.root[top])
	leaf := loadOrNew(&node[n>>radixLeafBits%(1<<radixNodeBits)])
	leaf[n%(1<<radixLeafBits)].Store(v)
	return true
}

// loadOrNew returns what is at p, a new T if there is nothing. Of several who
// come at once, one puts its T there and all return that.
func loadOrNew[T any](p *atomic.Pointer[T]) *T {
	if v := p.Load(); v != nil {
		return v
	}
	p.CompareAndSwap(nil, new(T))
	return p.Load()
}
