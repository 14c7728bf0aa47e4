package blockalloc

import "sync/atomic"

// A radix maps pieces of the address space, all of one size, to values. It is a tree of
// three levels, indexed by the bits of a piece's number. A look-up takes about five
// nanoseconds, without a lock and without touching the memory at the address. Several
// goroutines may use it at once.
//
// A leaf of 16 KiB covers 2,048 pieces, a node of 32 KiB covers 4,096 leaves. They are
// made when first needed and stay as long as the radix. The root has the rest: 4 KiB
// for pieces of 64 KiB, 64 KiB for pieces of 4 KiB.
type radix[T any] struct {
	shift uint // log2 of a piece's size in bytes
	root  []atomic.Pointer[radixNode[T]]
}

type (
	radixNode[T any] [1 << radixNodeBits]atomic.Pointer[radixLeaf[T]]
	radixLeaf[T any] [1 << radixLeafBits]atomic.Pointer[T]
)

const (
	radixAddrBits = 32 + 16*int(wide) // Go programs have no addresses beyond
	radixNodeBits = 12
	radixLeafBits = 11
)

// newRadix returns a radix for pieces of 1<<shift bytes, each aligned to its size.
func newRadix[T any](shift uint) radix[T] {
	topBits := max(0, radixAddrBits-int(shift)-radixNodeBits-radixLeafBits)
	return radix[T]{shift, make([]atomic.Pointer[radixNode[T]], 1<<topBits)}
}

// load returns the value stored last for addr's piece, nil if there is none. The caller
// sees all that was written before the store.
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

// store makes load return v for addr's piece. It reports whether the radix covers addr:
// only then is v stored.
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

// loadOrNew returns the value at p, a new T if there is none. Of several calls at once,
// one stores its T and all return that.
func loadOrNew[T any](p *atomic.Pointer[T]) *T {
	if v := p.Load(); v != nil {
		return v
	}
	p.CompareAndSwap(nil, new(T))
	return p.Load()
}
