package blockalloc_test

import (
	"errors"
	"fmt"
	"io"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// placed is a Bump, a Fixed or a Scoped, and its model: pieces from the beginning of
// its memory to the top, of which the last is live. It knows at which address each
// block must be, and when there is no room for one.
type placed struct {
	inner interface {
		blockalloc.Allocator
		blockalloc.Owner
		Used() int64
		Size() int64
	}
	addr, size uintptr // of the memory
	first      int     // the number of pieces that are not to be freed or reallocated
	pieces     []piece
	number     int // of the newest piece
	marks      []placedMark
	wrong      error // what was first not as it ought to be
}

// piece is a block, live or freed.
type piece struct {
	number int
	block  blockalloc.Block
	freed  bool
}

// place makes a placed of an allocator that is new.
func place(p placed) (*placed, error) {
	b, err := p.inner.Allocate(blockalloc.Layout{Size: 1, Align: 1})
	if err != nil {
		return nil, err
	}
	p.addr, p.size = b.Addr(), uintptr(p.inner.Size())
	return &p, p.inner.Free(b)
}

func (p *placed) expect(ok bool, format string, args ...any) {
	if !ok && p.wrong == nil {
		p.wrong = fmt.Errorf("with %d of %d bytes used: %w", p.top(), p.size, fmt.Errorf(format, args...))
	}
}

// top is how far the memory is used.
func (p *placed) top() uintptr {
	if len(p.pieces) == 0 {
		return 0
	}
	b := p.pieces[len(p.pieces)-1].block
	return b.Addr() + b.Size() - p.addr
}

// cut leaves the first n pieces, and fewer if the last of them are freed. It returns the live
// blocks that go.
func (p *placed) cut(n int) (gone []blockalloc.Block) {
	for _, c := range p.pieces[n:] {
		if !c.freed {
			gone = append(gone, c.block)
		}
	}
	for n > 0 && p.pieces[n-1].freed {
		n--
	}
	p.pieces = p.pieces[:n]
	return gone
}

// find returns the place of a live block, -1 if it is none.
func (p *placed) find(b blockalloc.Block) int {
	for i := len(p.pieces) - 1; i >= p.first; i-- {
		if c := p.pieces[i]; !c.freed && c.block.Addr() == b.Addr() && c.block.Size() == b.Size() {
			return i
		}
	}
	return -1
}

func (p *placed) Owns(b blockalloc.Block) bool { return p.inner.Owns(b) }

func (p *placed) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	b, err := p.inner.Allocate(l)
	if l.Check() == nil && l.Size > 0 && p.inner.Size() > 0 {
		p.allocated(l, b, err)
	}
	return b, err
}

// allocated says what came of an allocation.
func (p *placed) allocated(l blockalloc.Layout, b blockalloc.Block, err error) {
	want := (p.addr + p.top() + l.Align - 1) / l.Align * l.Align
	if end := p.addr + p.size; want > end || l.Size > end-want {
		p.expect(errors.Is(err, blockalloc.ErrOutOfMemory), "Allocate(%v) = %v, %v; want ErrOutOfMemory", l, b, err)
		return
	}
	p.expect(err == nil && b.Addr() == want && b.Size() == l.Size, "Allocate(%v) = %v, %v; want it at %#x", l, b, err, want)
	p.number++
	p.pieces = append(p.pieces, piece{p.number, b, false})
}

func (p *placed) Free(b blockalloc.Block) error {
	i := p.find(b)
	err := p.inner.Free(b)
	if i >= 0 && err == nil {
		p.freed(i)
	}
	return err
}

func (p *placed) freed(i int) {
	p.pieces[i].freed = true
	p.cut(len(p.pieces))
}

func (p *placed) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	i := p.find(b)
	n, err := p.inner.Reallocate(b, size)
	l := blockalloc.Layout{Size: size, Align: b.Align()}
	if i < 0 || l.Check() != nil {
		return n, err
	}
	newest := i == len(p.pieces)-1
	switch {
	case size == 0:
		p.expect(err == nil, "Reallocate(%v, 0): %v", b, err)
		p.freed(i)
	case size <= b.Size() || newest && size <= p.addr+p.size-b.Addr():
		p.expect(err == nil && n.Addr() == b.Addr() && n.Size() == size, "Reallocate(%v, %d) = %v, %v; want it where it is", b, size, n, err)
		p.pieces[i].block = n
	case newest:
		p.expect(errors.Is(err, blockalloc.ErrOutOfMemory), "Reallocate(%v, %d) = %v, %v; want ErrOutOfMemory", b, size, n, err)
	default:
		if p.allocated(l, n, err); err == nil {
			p.freed(i)
		}
	}
	return n, err
}

// agree holds the allocator's own figures and the model's blocks against the pieces.
func (p *placed) agree(live []blockalloc.Block) error {
	if used := p.inner.Used(); used != int64(p.top()) {
		p.expect(false, "Used() = %d", used)
	}
	n := 0
	for _, c := range p.pieces {
		if !c.freed {
			n++
		}
	}
	p.expect(n == len(live), "%d blocks are live, want %d", len(live), n)
	return p.wrong
}

// placedBlocks is agree of a placed, and of a Bump or a Fixed also that it owns the live pieces and no others.
func placedBlocks(a blockalloc.Allocator, live []blockalloc.Block) error {
	p := placedOf(a)
	for _, c := range p.pieces {
		if owns := p.Owns(c.block); owns == c.freed && !(c.freed && p.find(c.block) >= 0) {
			return fmt.Errorf("Owns(%v) = %t", c.block, owns)
		}
	}
	return p.agree(live)
}

func (p *placed) self() *placed { return p }

func placedOf(a blockalloc.Allocator) *placed { return a.(interface{ self() *placed }).self() }

// placedCloser is a placed with a Close.
type placedCloser struct{ *placed }

func (p placedCloser) Close() error { return p.inner.(io.Closer).Close() }

// placedMark is a Mark, and where it was taken.
type placedMark struct {
	mark   blockalloc.Mark
	depth  int
	number int // of the newest piece
}
