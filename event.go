package alloctrace

// An Event says what happens to a block, or what failed to. It has four words, which
// the compiler passes in registers.
type Event struct {
	Kind Kind

	// Addr, Size and Align describe the block: its address, its granted size and
	// its alignment in bytes. When an allocation failed, Addr is 0, and Size and
	// Align are what was asked for.
	Addr, Size, Align uintptr
}

// A Kind says what an [Event] is about.
//
// An acquisition is delivered after the inner allocator has returned the block, and a
// release before the inner allocator is asked to take it. So an observer never sees one
// address live twice, though the inner allocator may give it to another goroutine at once. A
// release that then fails is taken back by another event.
//
// Kinds are in order: acquisitions, then releases, then failures.
type Kind uint8

const (
	// Allocated: the block was allocated.
	Allocated Kind = iota + 1
	// Reallocated: this is the block that a reallocation returned. It does not
	// come when the new size is zero, which frees the block.
	Reallocated

	// Reallocating: the block is about to be reallocated. Unless this is taken
	// back, it is released, even if the memory then stays where it is.
	Reallocating
	// Freeing: the block is about to be freed. Unless this is taken back, it is
	// released.
	Freeing

	// AllocateFailed: nothing was allocated.
	AllocateFailed
	// ReallocateFailed takes Reallocating back: the block is what it was before,
	// as with FreeFailed. If the block is empty, Addr is 0, and it comes alone.
	ReallocateFailed
	// FreeFailed takes Freeing back: the block is what it was before. If the error is
	// blockalloc.ErrNotOwned or blockalloc.ErrDoubleFree, that was not a live block:
	// there was none at this address, or one of another size. Match blocks by Addr
	// and Size.
	FreeFailed
)

var kinds = [...]struct{ name, op string }{
	Allocated:        {"allocated", "allocate"},
	AllocateFailed:   {"allocate failed", "allocate"},
	Reallocating:     {"reallocating", "reallocate"},
	Reallocated:      {"reallocated", "reallocate"},
	ReallocateFailed: {"reallocate failed", "reallocate"},
	Freeing:          {"freeing", "free"},
	FreeFailed:       {"free failed", "free"},
}

// String returns, for example, "allocated" or "free failed".
func (k Kind) String() string {
	if int(k) < len(kinds) && k != 0 {
		return kinds[k].name
	}
	return "unknown"
}

// Op returns the operation that was asked for: "allocate", "reallocate" or
// "free".
func (k Kind) Op() string {
	if int(k) < len(kinds) && k != 0 {
		return kinds[k].op
	}
	return "unknown"
}

// Failed reports whether the event is a failure.
func (k Kind) Failed() bool { return AllocateFailed <= k && k <= FreeFailed }
