package blockalloc

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"unsafe"
)

// bumper hands out one block of memory in pieces, from its beginning to its end, by
// moving the top. Bump and Fixed embed it, and Scoped has one.
//
// A stack of records, one for each piece, is on the Go heap beside the memory. The last
// record is always of a live piece, and the top is that piece's end. When a piece goes,
// the freed ones beneath it go with it, and the padding of each.
type bumper struct {
	guard   single
	name    string       // of the type that errors speak of
	parent  Allocator    // nil if the memory is the caller's own
	memory  Block        // empty once closed
	top     uintptr      // the offset in memory where the next piece may begin
	records []bumpRecord // by offset
	first   int          // the records before it belong to outer scopes
	serial  uint64       // of the last piece handed out
}

type bumpRecord struct {
	offset uintptr
	size   uintptr // 0 if the piece was freed
	serial uint64  // shifted by bumpAlignBits, and below log2 of the alignment, with a bit for zeroed
}

const (
	bumpAlignBits = 7
	bumpZeroed    = 1 << (bumpAlignBits - 1)
)

// newBumpSerial returns bumpRecord.serial for a block that serves l.
func newBumpSerial(serial uint64, l Layout) uint64 {
	serial = serial<<bumpAlignBits | uint64(bits.TrailingZeros64(uint64(l.Align)))
	if l.Zeroed {
		serial |= bumpZeroed
	}
	return serial
}

// layout returns what was asked for of r.
func (r *bumpRecord) layout() Layout {
	return Layout{Size: r.size, Align: 1 << (r.serial % bumpZeroed), Zeroed: r.serial&bumpZeroed != 0}
}

// newBumper takes size bytes from parent in one piece. Errors name the constructor.
func newBumper(constructor, name string, parent Allocator, size uintptr) (bumper, error) {
	needAllocator(constructor+"(nil)", parent)
	if size == 0 {
		return bumper{}, fmt.Errorf("blockalloc: %s of size 0: %w: ask for 1 byte or more", constructor, ErrBadLayout)
	}
	below := uintptr(1) << (bits.Len(uint(size)) - 1)
	b, err := parent.Allocate(Layout{Size: size, Align: min(below, pageSize)})
	if err != nil {
		return bumper{}, err
	}
	return bumper{name: name, parent: parent, memory: b, records: make([]bumpRecord, 0, 16)}, nil // of whole cache lines
}

// Allocate returns a block of exactly l.Size bytes, cleared if l.Zeroed asks for that,
// after as much padding as its alignment needs.
func (a *bumper) Allocate(l Layout) (Block, error) {
	a.guard.use()
	padding := -(a.memory.Addr() + a.top) & (l.Align - 1)
	room := a.memory.size - a.top
	if !l.ok() || l.Size == 0 || padding > room || l.Size > room-padding {
		return a.refuse(l)
	}
	offset := a.top + padding
	a.serial++
	a.records = append(a.records, bumpRecord{offset, l.Size, newBumpSerial(a.serial, l)})
	a.top = offset + l.Size
	return serve(unsafe.Add(a.memory.ptr, offset), l.Size, l), nil
}

// refuse returns the error of an Allocate that got no memory, or the empty Block.
func (a *bumper) refuse(l Layout) (Block, error) {
	err := l.Check()
	switch {
	case err != nil:
	case l.Size == 0:
		return Block{}, nil
	case a.memory.IsZero():
		err = ErrClosed
	default:
		err = a.errFull()
	}
	return Block{}, allocateError(a.name, l, err)
}

func (a *bumper) errFull() error {
	return fmt.Errorf("%w: %d of %d bytes are used: free the newest blocks or make it larger", ErrOutOfMemory, a.top, a.memory.size)
}

// Reallocate keeps b in place if it shrinks, or if it is the newest block and there is
// room behind it. Otherwise it copies b into a new block, which is then the newest.
func (a *bumper) Reallocate(b Block, size uintptr) (Block, error) {
	a.guard.use()
	n, err := a.reallocate(b, size)
	if err != nil {
		return b, reallocateError(a.name, b, size, err)
	}
	return n, nil
}

// Resize changes the size of b if it shrinks, or if it is the newest block and there is room
// behind it.
func (a *bumper) Resize(b Block, size uintptr) (Block, error) {
	a.guard.use()
	l, err := checkResize(b, size)
	if err == nil {
		if i := a.find(b, a.first, len(a.records)); i < 0 {
			err = a.errUnknown(b)
		} else if b, err = a.resize(i, b, l); err == nil {
			return b, nil
		}
	}
	return b, resizeError(a.name, b, size, err)
}

func (a *bumper) reallocate(b Block, size uintptr) (Block, error) {
	if b.IsZero() {
		return b, errEmptyReallocate
	}
	l := b.layout(size)
	if err := l.Check(); err != nil {
		return b, err
	}
	i := a.find(b, a.first, len(a.records))
	if i < 0 {
		return b, a.errUnknown(b)
	}
	if size == 0 {
		a.drop(i)
		return Block{}, nil
	}
	n, err := a.resize(i, b, l)
	if err != errCopy {
		return n, err
	}
	n, err = a.Allocate(l)
	if err != nil {
		return b, err
	}
	copy(n.Bytes(), b.Bytes())
	a.drop(i)
	return n, nil
}

// resize changes the size of b, which has record i, in place.
func (a *bumper) resize(i int, b Block, l Layout) (Block, error) {
	r := &a.records[i]
	newest := i == len(a.records)-1
	switch {
	case newest && l.Size > a.memory.size-r.offset:
		return b, a.errFull()
	case !newest && l.Size > r.size:
		return b, errCopy
	}
	n := grant(b.ptr, l.Size, l)
	if l.Zeroed && l.Size > r.size {
		clear(n.Bytes()[r.size:])
	}
	r.size = l.Size
	if newest {
		a.top = r.offset + l.Size
	}
	return n, nil
}

// Free gives back the newest block with its padding at once. It marks any other block
// as freed: its memory comes back when all blocks above it are freed.
func (a *bumper) Free(b Block) error {
	a.guard.use()
	if b.IsZero() {
		return nil
	}
	i := a.find(b, a.first, len(a.records))
	if i < 0 {
		return freeError(a.name, b, a.errUnknown(b))
	}
	a.drop(i)
	return nil
}

// Owns reports whether b is a live block of this allocator.
func (a *bumper) Owns(b Block) bool {
	a.guard.use()
	return a.find(b, a.first, len(a.records)) >= 0
}

// Find returns the live block of this allocator that holds the byte at p. Among n blocks it takes log n steps.
func (a *bumper) Find(p unsafe.Pointer) (Block, bool) {
	a.guard.use()
	return a.holding(uintptr(p), a.first, len(a.records))
}

// holding returns the live block within records[from:to] that holds the byte at addr.
func (a *bumper) holding(addr uintptr, from, to int) (Block, bool) {
	offset := addr - a.memory.Addr()
	i, ok := searchRecords(a.records[from:to], offset)
	if i += from; !ok {
		i--
	}
	if i < from || offset-a.records[i].offset >= a.records[i].size {
		return Block{}, false
	}
	r := &a.records[i]
	return grant(unsafe.Add(a.memory.ptr, r.offset), r.size, r.layout()), true
}

// A Mark is a position in a [Bump] or [Fixed]: Release frees what was allocated since.
type Mark struct {
	bumper *bumper
	depth  int    // how many records there were
	serial uint64 // of the last of them
}

// Mark returns the present position, for Release.
func (a *bumper) Mark() Mark {
	a.guard.use()
	m := Mark{a, len(a.records), 0}
	if m.depth > 0 {
		m.serial = a.records[m.depth-1].serial
	}
	return m
}

// Release frees all blocks that were allocated or moved since m. The mark can be used
// again, until the block beneath it is gone: then Release fails with [ErrDoubleFree].
// The mark of another allocator is [ErrNotOwned].
func (a *bumper) Release(m Mark) error {
	a.guard.use()
	switch {
	case m.bumper != a:
		return fmt.Errorf("blockalloc: %s.Release: %w: the mark is another allocator's: take it with Mark of this one", a.name, ErrNotOwned)
	case a.memory.IsZero():
		return fmt.Errorf("blockalloc: %s.Release: %w", a.name, ErrClosed)
	case m.depth > len(a.records) || m.depth > 0 && a.records[m.depth-1].serial != m.serial:
		return fmt.Errorf("blockalloc: %s.Release: %w: the block beneath the mark is gone, and the mark with it: release marks in the reverse order of Mark", a.name, ErrDoubleFree)
	}
	a.cut(m.depth)
	return nil
}

// Reset frees all blocks.
func (a *bumper) Reset() {
	a.guard.use()
	a.cut(0)
}

// Used returns how many bytes lie beneath the end of the newest block: live
// blocks, padding, and freed blocks whose memory is not back yet.
func (a *bumper) Used() int64 {
	a.guard.use()
	return int64(a.top)
}

// Size returns how many bytes there are, used or not: as many as the parent
// granted, which may be more than was asked for. It is 0 once closed.
func (a *bumper) Size() int64 {
	a.guard.use()
	return int64(a.memory.size)
}

// find returns the index of b's record within records[from:to], -1 if it is not there
// or not live. It looks at the newest first.
func (a *bumper) find(b Block, from, to int) int {
	if i := to - 1; i >= from && a.records[i].is(b, a.memory) {
		return i
	}
	i, ok := searchRecords(a.records[from:to], b.Addr()-a.memory.Addr())
	if i += from; ok && a.records[i].is(b, a.memory) {
		return i
	}
	return -1
}

// is reports whether r is the record of b, which is not empty, in memory.
func (r *bumpRecord) is(b, memory Block) bool {
	return r.offset == b.Addr()-memory.Addr() && r.size == b.size
}

// searchRecords returns the index of the record with this offset and whether there is
// one.
func searchRecords(records []bumpRecord, offset uintptr) (int, bool) {
	return slices.BinarySearchFunc(records, offset, func(r bumpRecord, offset uintptr) int {
		return cmp.Compare(r.offset, offset)
	})
}

// errUnknown says why b is not live.
func (a *bumper) errUnknown(b Block) error {
	offset := b.Addr() - a.memory.Addr()
	if a.memory.IsZero() {
		return fmt.Errorf("%w: %w: its blocks ended with it", ErrNotOwned, ErrClosed)
	}
	if offset >= a.memory.size {
		return fmt.Errorf("%w: free a block with the allocator it came from", ErrNotOwned)
	}
	i, exact := searchRecords(a.records, offset)
	switch {
	case exact && i < a.first:
		return fmt.Errorf("%w: it is of an outer scope: free it there when this one has ended", ErrNotOwned)
	case exact && a.records[i].size != 0:
		return fmt.Errorf("%w: the block at this address has %d B: free the Block that was allocated", ErrNotOwned, a.records[i].size)
	case !exact && i > 0 && offset < a.records[i-1].offset+a.records[i-1].size:
		return fmt.Errorf("%w: it begins inside a live block: free the Block that was allocated", ErrNotOwned)
	}
	return fmt.Errorf("%w: free a block once", ErrDoubleFree)
}

// drop ends the life of the piece with record i.
func (a *bumper) drop(i int) {
	a.records[i].size = 0
	a.cut(len(a.records))
}

// cut removes the records from n on, and the freed ones before them.
func (a *bumper) cut(n int) {
	for n > 0 && a.records[n-1].size == 0 {
		n--
	}
	a.records = a.records[:n]
	a.top = 0
	if n > 0 {
		a.top = a.records[n-1].offset + a.records[n-1].size
	}
}

// close gives the memory back to the parent. The pieces end only if that succeeds.
func (a *bumper) close() error {
	if a.memory.IsZero() {
		return nil
	}
	if err := a.parent.Free(a.memory); err != nil {
		return err
	}
	a.memory, a.records, a.top = Block{}, nil, 0
	return nil
}
