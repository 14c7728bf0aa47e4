package blockalloc

import (
	"errors"
	"fmt"
	"math/bits"
	"unsafe"
)

// FreeList is an [Allocator] of blocks of one layout. It takes them from a parent when
// they are needed, or ahead by [FreeList.Reserve]. It keeps freed blocks and allocates
// the one freed last, which is warm in the processor's cache. It suits page buffers,
// network packets and nodes of a tree.
//
// Every block has the size of the list's layout, whatever was asked for or granted. A
// larger request is refused with [ErrOutOfMemory], a more strictly aligned one with
// [ErrUnsupportedAlign]. A reallocation that fits leaves the block in place. Memory is
// zeroed if [Layout].Zeroed asks for that: a reused block is cleared, a new one is asked
// of the parent in the same way. If the list's layout has Zeroed set, it asks so for each,
// also by Reserve.
//
// [FreeList.Owns] is exact, a foreign free is [ErrNotOwned], and a second free is
// [ErrDoubleFree] until the block is allocated again.
//
// Allocate and Free of a block at hand each cost about one atomic addition, however
// many blocks there are. They allocate nothing on the Go heap. A block takes 64 to 80
// bytes there (half of that with 32-bit addresses).
//
// A FreeList is for one goroutine at a time; the race detector reports two. Close it,
// or its free blocks stay allocated in the parent.
type FreeList struct {
	guard  single
	parent Allocator
	layout Layout
	max    int         // 0: no bound
	count  int         // blocks in all
	live   int         // blocks handed out
	free   *listSlot   // the stack of blocks at hand
	table  []*listSlot // by the piece in which a block begins: open addressing with linear probing, at most half full
	piece  uint        // log2 of the size of a piece, the largest that no two blocks can begin in
	shift  uint        // 64 minus the binary logarithm of the table's length
	closed bool
}

// listSlot is a block that the parent granted.
type listSlot struct {
	block     Block     // empty once given back
	next      *listSlot // beneath this one on the stack
	live      bool
	clean     bool    // it is zero: it came so from the parent, and was never handed out
	requested uintptr // of the block handed out
	align     uintptr // likewise, as in Block
}

var (
	_ Allocator = (*FreeList)(nil)
	_ Owner     = (*FreeList)(nil)
	_ Resizer   = (*FreeList)(nil)
)

// NewFreeList returns a FreeList of blocks of the given layout, at most max of them; 0
// means no bound. It takes none yet. A bad layout or one of size zero is
// [ErrBadLayout]; a negative max is an error. It panics if parent is nil.
func NewFreeList(parent Allocator, block Layout, max int) (*FreeList, error) {
	needAllocator("NewFreeList(nil)", parent)
	err := block.Check()
	switch {
	case err == nil && block.Size == 0:
		err = fmt.Errorf("%w: blocks of size 0: ask for 1 byte or more", ErrBadLayout)
	case err == nil && max < 0:
		err = errors.New("a negative number of blocks: pass 0 for no bound")
	}
	if err != nil {
		return nil, fmt.Errorf("blockalloc: NewFreeList(%v, %d): %w", block, max, err)
	}
	return &FreeList{parent: parent, layout: block, max: max, piece: uint(bits.Len(uint(block.Size)) - 1)}, nil
}

// Parent returns the allocator that the blocks came from.
func (f *FreeList) Parent() Allocator { return f.parent }

// Allocate returns the block that was freed last, or else one from the parent, whose
// error it returns unchanged. If max blocks are live, it fails with [ErrOutOfMemory].
func (f *FreeList) Allocate(l Layout) (Block, error) {
	f.guard.use()
	if f.free == nil || l.Size-1 >= f.layout.Size || l.Align-1 >= f.layout.Align || l.Align&(l.Align-1) != 0 {
		if err := f.prepare(l); err != nil || l.Size == 0 {
			return Block{}, err
		}
	}
	s := f.free
	f.free = s.next
	s.live = true
	f.live++
	b := f.grant(s, l)
	if l.Zeroed && !s.clean {
		clear(b.Bytes())
	}
	s.clean = false
	return b, nil
}

// prepare pushes a block for l onto the empty stack, or says why none can serve it.
func (f *FreeList) prepare(l Layout) error {
	err := l.Check()
	switch {
	case err != nil:
	case l.Size == 0:
		return nil
	case f.closed:
		err = ErrClosed
	case l.Size > f.layout.Size:
		err = f.errTooLarge()
	case l.Align > f.layout.Align:
		err = fmt.Errorf("%w: the list's blocks are %v", ErrUnsupportedAlign, f.layout)
	case f.max > 0 && f.count >= f.max:
		err = fmt.Errorf("%w: all %d blocks of the list are live: free one or make a list of more", ErrOutOfMemory, f.count)
	default:
		return f.grow(l.Zeroed || f.layout.Zeroed)
	}
	return allocateError("FreeList", l, err)
}

func (f *FreeList) errTooLarge() error {
	return fmt.Errorf("%w: the list's blocks are %v: use an allocator of larger ones", ErrOutOfMemory, f.layout)
}

// Reallocate returns b as it is if size fits into it, and otherwise refuses with
// [ErrOutOfMemory].
func (f *FreeList) Reallocate(b Block, size uintptr) (Block, error) {
	f.guard.use()
	if b.IsZero() {
		return b, reallocateError("FreeList", b, size, errEmptyReallocate)
	}
	l := b.layout(size)
	err := l.Check()
	s := f.find(b)
	switch {
	case err != nil:
	case s == nil || !s.live || !b.Is(f.handedOut(s)):
		err = f.errUnknown(s)
	case size > f.layout.Size:
		err = f.errTooLarge()
	case size == 0:
		f.push(s)
		return Block{}, nil
	default:
		n := f.grant(s, l)
		n.clearSlack(b, n)
		return n, nil
	}
	return b, reallocateError("FreeList", b, size, err)
}

// Resize does what Reallocate does, which never moves a block.
func (f *FreeList) Resize(b Block, size uintptr) (Block, error) {
	if _, err := checkResize(b, size); err != nil {
		return b, resizeError("FreeList", b, size, err)
	}
	return f.Reallocate(b, size)
}

// Free keeps b for a later Allocate.
func (f *FreeList) Free(b Block) error {
	f.guard.use()
	if b.IsZero() {
		return nil
	}
	s := f.find(b)
	if s == nil || !s.live || !b.Is(f.handedOut(s)) {
		return freeError("FreeList", b, f.errUnknown(s))
	}
	f.push(s)
	return nil
}

// grant hands out the block of s as the answer to l.
func (f *FreeList) grant(s *listSlot, l Layout) Block {
	b := grant(s.block.ptr, f.layout.Size, l)
	s.requested, s.align = b.requested, b.align
	return b
}

// handedOut returns the block of s as it was handed out last.
func (f *FreeList) handedOut(s *listSlot) Block {
	return Block{s.block.ptr, f.layout.Size, s.requested, s.align}
}

// push makes s, which is live, a block at hand.
func (f *FreeList) push(s *listSlot) {
	s.live = false
	s.next = f.free
	f.free = s
	f.live--
}

// errUnknown says why the block found at s, or not found, is not live.
func (f *FreeList) errUnknown(s *listSlot) error {
	switch {
	case s == nil:
		return fmt.Errorf("%w: free a block with the allocator it came from", ErrNotOwned)
	case !s.live:
		return fmt.Errorf("%w: free a block once", ErrDoubleFree)
	}
	return fmt.Errorf("%w: the list's blocks have %d B: free the Block that was allocated", ErrNotOwned, f.layout.Size)
}

// Owns reports whether b is a live block of this list.
func (f *FreeList) Owns(b Block) bool {
	f.guard.use()
	s := f.find(b)
	return s != nil && s.live && b.Is(f.handedOut(s))
}

// Find returns the live block of this list that holds the byte at p. It takes three look-ups at most.
func (f *FreeList) Find(p unsafe.Pointer) (Block, bool) {
	f.guard.use()
	for back := range uintptr(3) { // a block is less than two pieces long
		s := f.beginning(uintptr(p)>>f.piece - back)
		if s != nil && s.live && uintptr(p)-s.block.Addr() < f.layout.Size {
			return f.handedOut(s), true
		}
	}
	return Block{}, false
}

// Reserve takes blocks from the parent until the list has n in all, live or at hand. So
// n can be allocated without asking it. If the parent fails, Reserve gives back what it
// took and returns the parent's error unchanged. More than max is refused with
// [ErrOutOfMemory].
func (f *FreeList) Reserve(n int) error {
	f.guard.use()
	switch {
	case f.closed:
		return fmt.Errorf("blockalloc: FreeList.Reserve(%d): %w", n, ErrClosed)
	case f.max > 0 && n > f.max:
		return fmt.Errorf("blockalloc: FreeList.Reserve(%d): %w: the list may have %d blocks: make a list of more", n, ErrOutOfMemory, f.max)
	}
	for taken := 0; f.count < n; taken++ {
		if err := f.grow(f.layout.Zeroed); err != nil {
			if refused := f.giveBack(taken); refused != nil {
				return errors.Join(err, refused)
			}
			return err
		}
	}
	return nil
}

// Trim gives all blocks at hand back to the parent. If the parent refuses one, Trim
// returns its error, and the blocks not given back stay at hand.
func (f *FreeList) Trim() error {
	f.guard.use()
	return f.giveBack(f.count - f.live)
}

// Close gives all blocks back to the parent. After it, Allocate fails with [ErrClosed].
// While blocks are live, it returns [ErrLive] and does nothing. If the parent refuses a
// block, Close returns its error, the list stays open, and Close can be called again.
// Closing a closed FreeList does nothing.
func (f *FreeList) Close() error {
	f.guard.use()
	if f.live > 0 {
		return closeError("FreeList", f.live, int64(f.live)*int64(f.layout.Size))
	}
	if err := f.giveBack(f.count); err != nil {
		return err
	}
	f.closed = true
	return nil
}

// grow takes a block from the parent, zeroed if so asked, and pushes it onto the stack.
func (f *FreeList) grow(zeroed bool) error {
	l := f.layout
	l.Zeroed = zeroed
	b, err := f.parent.Allocate(l)
	if err != nil {
		return err
	}
	s := &listSlot{block: b, next: f.free, clean: zeroed}
	f.free = s
	f.count++
	if 2*f.count > len(f.table) {
		f.rehash()
	}
	f.insert(s)
	return nil
}

// giveBack gives the top n blocks of the stack back to the parent, up to the first that
// it refuses.
func (f *FreeList) giveBack(n int) error {
	defer f.rehash() // also where the parent panics: find ends at an empty place
	for ; n > 0; n-- {
		s := f.free
		if err := f.parent.Free(s.block); err != nil {
			return err
		}
		f.free = s.next
		s.block = Block{}
		f.count--
	}
	return nil
}

// rehash makes the table anew, with room for the blocks it has and as many again.
func (f *FreeList) rehash() {
	old := f.table
	f.table, f.shift = nil, 0
	if f.count == 0 {
		return
	}
	log := bits.Len(uint(2*f.count - 1))
	f.table, f.shift = make([]*listSlot, 1<<log), 64-uint(log)
	for _, s := range old {
		if s != nil && !s.block.IsZero() {
			f.insert(s)
		}
	}
}

// bucket is the index at which the search for a piece begins. It hashes by Fibonacci's method.
func (f *FreeList) bucket(piece uintptr) uint64 {
	return uint64(piece) * 0x9e3779b97f4a7c15 >> f.shift
}

func (f *FreeList) insert(s *listSlot) {
	i := f.bucket(s.block.Addr() >> f.piece)
	for f.table[i] != nil {
		i = (i + 1) & uint64(len(f.table)-1)
	}
	f.table[i] = s
}

// find returns the slot of the block at b's address, nil if there is none.
func (f *FreeList) find(b Block) *listSlot {
	if s := f.beginning(b.Addr() >> f.piece); s != nil && s.block.ptr == b.ptr {
		return s
	}
	return nil
}

// beginning returns the slot of the block that begins in a piece, nil if there is none.
func (f *FreeList) beginning(piece uintptr) *listSlot {
	if len(f.table) == 0 {
		return nil
	}
	for i := f.bucket(piece); ; i = (i + 1) & uint64(len(f.table)-1) {
		s := f.table[i]
		if s == nil || s.block.Addr()>>f.piece == piece {
			return s
		}
	}
}
