package cmem

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// Malloc is a [blockalloc.Allocator] over C's heap. Blocks are as large as C says that they are, where it says so (Linux,
// macOS, FreeBSD), which is up to a few bytes more than was asked for; elsewhere as large as was asked for. Memory is
// zeroed only if the layout says so: by calloc, which does not touch pages that are fresh, or by clearing it if the
// alignment is more than that of malloc, 16 bytes.
//
// A table of live blocks, with 16 locks, makes a foreign free an error, and a second one until the address is in use
// again. C's free never sees such a pointer. What C frees without [IntoC] is not known: it stays live here, as a leak.
//
// A pair costs two calls of C, and as much again for the table: some seven pairs of a Pool.
//
// The zero Malloc is ready, and must not be copied. Several goroutines may use it at once.
type Malloc struct {
	live registry
}

var (
	_ blockalloc.Allocator        = (*Malloc)(nil)
	_ blockalloc.ContextAllocator = (*Malloc)(nil)
	_ blockalloc.Owner            = (*Malloc)(nil)
	_ blockalloc.Finder           = (*Malloc)(nil)
	_ blockalloc.Resizer          = (*Malloc)(nil)
)

// Allocate returns a block of l.Size bytes or a few more.
func (m *Malloc) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if err := l.Check(); err != nil {
		return blockalloc.Block{}, allocateError(l, err)
	}
	if l.Size == 0 {
		return blockalloc.Block{}, nil
	}
	p, granted := malloc(l.Size, l.Align, l.Zeroed)
	if p == nil {
		return blockalloc.Block{}, allocateError(l, noMemory())
	}
	if l.Zeroed {
		clear(unsafe.Slice((*byte)(p), granted)[l.Size:])
	}
	b, err := blockalloc.NewBlock(p, granted, l)
	if err != nil { // C has not kept its word
		free(p)
		return blockalloc.Block{}, allocateError(l, err)
	}
	m.live.add(b)
	return b, nil
}

// AllocateContext is Allocate, or takes the block of [FromC].
func (m *Malloc) AllocateContext(ctx context.Context, l blockalloc.Layout) (blockalloc.Block, error) {
	if from, ok := ctx.Value(fromC{}).(*handover); ok {
		return m.take(from, l)
	}
	return m.Allocate(l)
}

// Reallocate grows and shrinks b by realloc, which may keep it in place, if its alignment is that of malloc. Otherwise it
// copies b into a new block, unless [Malloc.Resize] can do it.
func (m *Malloc) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	n, err := m.reallocate(b, size)
	if err != nil {
		return b, fmt.Errorf("cmem: Malloc.Reallocate(%v, %d): %w", b, size, err)
	}
	return n, nil
}

func (m *Malloc) reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if b.IsZero() {
		return b, fmt.Errorf("%w: the alignment wanted is not known: use Allocate", blockalloc.ErrBadLayout)
	}
	l := b.Layout()
	l.Size = size
	if err := l.Check(); err != nil {
		return b, err
	}
	if size == 0 {
		return blockalloc.Block{}, m.free(b)
	}
	n, err := m.resize(b, l)
	if !errors.Is(err, blockalloc.ErrWouldMove) {
		return n, err
	}
	// Until it has moved, b is not live: its address may be that of another goroutine's block before this returns.
	live, _, err := m.live.take(b)
	if err != nil {
		return b, err
	}
	l.Zeroed = l.Zeroed || live.Layout().Zeroed
	p, granted := realloc(live.Pointer(), live.Size(), size, l.Align)
	if p == nil {
		m.live.add(live)
		return b, noMemory()
	}
	if l.Zeroed && b.Size() < granted {
		clear(unsafe.Slice((*byte)(p), granted)[b.Size():])
	}
	n, err = blockalloc.NewBlock(p, granted, l)
	if err != nil {
		panic(fmt.Sprintf("cmem: realloc of %v to %d bytes has returned %d bytes at %p", live, size, granted, p))
	}
	m.live.add(n)
	return n, nil
}

// Resize keeps b where it is: if what was granted is enough and no more than twice as much, and with the build tag jemalloc or
// mimalloc also if the library can resize it there.
func (m *Malloc) Resize(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	var n blockalloc.Block
	var err error
	l := b.Layout()
	l.Size = size
	switch {
	case b.IsZero():
		err = fmt.Errorf("%w: the alignment wanted is not known: use Allocate", blockalloc.ErrBadLayout)
	case size == 0:
		err = fmt.Errorf("%w: size 0: use Free", blockalloc.ErrBadLayout)
	default:
		if err = l.Check(); err == nil {
			n, err = m.resize(b, l)
		}
	}
	if err != nil {
		return b, fmt.Errorf("cmem: Malloc.Resize(%v, %d): %w", b, size, err)
	}
	return n, nil
}

// resize is Resize to a layout that is right.
func (m *Malloc) resize(b blockalloc.Block, l blockalloc.Layout) (blockalloc.Block, error) {
	// Meanwhile b is not live, so that a free by mistake does not reach C.
	live, _, err := m.live.take(b)
	if err != nil {
		return b, err
	}
	l.Zeroed = l.Zeroed || live.Layout().Zeroed
	granted := live.Size()
	if l.Size > granted || l.Size < granted/2 {
		// C may leave a block that is to shrink as it is: then it is to move.
		if granted = resizeInPlace(live.Pointer(), l.Size, l.Align); granted < l.Size || granted/2 > l.Size {
			m.live.add(live)
			return b, fmt.Errorf("%w: use Reallocate", blockalloc.ErrWouldMove)
		}
	}
	n, err := blockalloc.NewBlock(live.Pointer(), granted, l)
	if err != nil {
		m.live.add(live)
		return b, err
	}
	if l.Zeroed && b.Size() < granted {
		clear(n.Bytes()[b.Size():])
	}
	m.live.add(n)
	return n, nil
}

// Free gives b back to C.
func (m *Malloc) Free(b blockalloc.Block) error {
	if b.IsZero() {
		return nil
	}
	if err := m.free(b); err != nil {
		return fmt.Errorf("cmem: Malloc.Free(%v): %w", b, err)
	}
	return nil
}

func (m *Malloc) free(b blockalloc.Block) error {
	live, isC, err := m.live.take(b)
	if err == nil && !isC {
		free(live.Pointer())
	}
	return err
}

// Owns reports whether b is a live block of m.
func (m *Malloc) Owns(b blockalloc.Block) bool {
	_, err := m.live.check(b)
	return err == nil && !b.IsZero()
}

// Find returns the live block of m that holds the byte at p: in up to three look-ups for each power of two between the
// sizes of the blocks.
func (m *Malloc) Find(p unsafe.Pointer) (blockalloc.Block, bool) { return m.live.find(p) }

// String returns "Malloc", and of which library that is.
func (m *Malloc) String() string { return "Malloc of " + library }

// noMemory is the error of a request that C has refused.
func noMemory() error {
	if library == unsupported {
		return fmt.Errorf("%w on %s/%s without cgo, or on Windows: use blockalloc.Default()", errors.ErrUnsupported, runtime.GOOS, runtime.GOARCH)
	}
	return blockalloc.ErrOutOfMemory
}

// unsupported is the library where there is none.
const unsupported = "no library"

func allocateError(l blockalloc.Layout, err error) error {
	return fmt.Errorf("cmem: Malloc.Allocate(%v): %w", l, err)
}
