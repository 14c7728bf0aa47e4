package blockalloc_test

import (
	"errors"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// carverTest has what the tests of Bump, Fixed, Scoped and FreeList share.
type carverTest struct{ testing.TB }

func (t carverTest) allocate(a blockalloc.Allocator, size, align uintptr) blockalloc.Block {
	t.Helper()
	l := blockalloc.Layout{Size: size, Align: align}
	b, err := a.Allocate(l)
	if err != nil {
		t.Fatalf("Allocate(%v): %v", l, err)
	}
	if b.Size() != size || b.Align() != align || b.Addr()&(align-1) != 0 {
		t.Fatalf("Allocate(%v) = %v", l, b)
	}
	return b
}

func (t carverTest) free(a blockalloc.Allocator, blocks ...blockalloc.Block) {
	t.Helper()
	for _, b := range blocks {
		if err := a.Free(b); err != nil {
			t.Fatalf("Free(%v): %v", b, err)
		}
	}
}

func (t carverTest) reallocate(a blockalloc.Allocator, b blockalloc.Block, size uintptr) blockalloc.Block {
	t.Helper()
	n, err := a.Reallocate(b, size)
	if err != nil || n.Size() != size || size != 0 && n.Align() != b.Align() {
		t.Fatalf("Reallocate(%v, %d) = %v, %v", b, size, n, err)
	}
	return n
}

// fails checks that err is want.
func (t carverTest) fails(err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

// refuses checks that a neither owns b nor takes it, with the given error.
func (t carverTest) refuses(a blockalloc.Allocator, b blockalloc.Block, reason error) {
	t.Helper()
	if a.(blockalloc.Owner).Owns(b) {
		t.Errorf("Owns(%v)", b)
	}
	t.fails(a.Free(b), reason)
	for _, size := range []uintptr{0, 1, b.Size(), b.Size() + 1} {
		n, err := a.Reallocate(b, size)
		if t.fails(err, reason); n != b {
			t.Errorf("Reallocate(%v, %d) = %v, want the block as it was", b, size, n)
		}
	}
}

// part returns size bytes of b from an offset on, as a block of its own.
func (t carverTest) part(b blockalloc.Block, offset, size uintptr) blockalloc.Block {
	t.Helper()
	p, err := blockalloc.FromRaw(unsafe.Pointer(&b.Bytes()[offset]), blockalloc.Layout{Size: size, Align: 1})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (t carverTest) fill(b blockalloc.Block, seed byte) {
	for i := range b.Bytes() {
		b.Bytes()[i] = byte(i) + seed
	}
}

// filled checks that the first size bytes of b are as fill made them.
func (t carverTest) filled(b blockalloc.Block, size uintptr, seed byte) {
	t.Helper()
	for i, got := range b.Bytes()[:size] {
		if want := byte(i) + seed; got != want {
			t.Fatalf("byte %d of %v is %#x, want %#x", i, b, got, want)
		}
	}
}

func (t carverTest) noGoAllocations(f func()) {
	t.Helper()
	if raceEnabled {
		return // the race detector allocates
	}
	if n := testing.AllocsPerRun(100, f); n != 0 {
		t.Errorf("%v allocations on the Go heap, want 0", n)
	}
}

// lender is a parent that can be set to fail and to grant more than asked for. It
// guards the bytes before and after its blocks.
type lender struct {
	t        testing.TB
	mem      blockalloc.Allocator
	extra    uintptr
	refusal  error // of Allocate
	after    int   // how many more Allocates are served before that
	keeping  error // the refusal of Free
	lent     map[uintptr]loan
	history  []uintptr // the addresses lent, in order
	returned []uintptr // the addresses given back, in order
}

type loan struct{ block, around blockalloc.Block }

const moat = 64

func newLender(t testing.TB) *lender { return lenderOf(t, alloctest.New(t)) }

func lenderOf(t testing.TB, mem blockalloc.Allocator) *lender {
	return &lender{t: t, mem: mem, lent: make(map[uintptr]loan)}
}

func (p *lender) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if p.refusal != nil {
		if p.after == 0 {
			return blockalloc.Block{}, p.refusal
		}
		p.after--
	}
	front := max(moat, l.Align)
	around, err := p.mem.Allocate(blockalloc.Layout{Size: front + l.Size + p.extra + moat, Align: l.Align})
	if err != nil {
		return around, err
	}
	for i := range around.Bytes() {
		around.Bytes()[i] = 0xa5
	}
	b, err := blockalloc.NewBlock(unsafe.Pointer(&around.Bytes()[front]), l.Size+p.extra, l)
	if err != nil {
		p.t.Fatal(err)
	}
	if l.Zeroed {
		clear(b.Bytes())
	}
	p.lent[b.Addr()] = loan{b, around}
	p.history = append(p.history, b.Addr())
	return b, nil
}

func (p *lender) Reallocate(b blockalloc.Block, _ uintptr) (blockalloc.Block, error) {
	return b, blockalloc.ErrOutOfMemory
}

func (p *lender) Free(b blockalloc.Block) error {
	if p.keeping != nil {
		return p.keeping
	}
	loan, ok := p.lent[b.Addr()]
	if !ok || !b.Is(loan.block) {
		p.t.Errorf("the parent was given %v back, which it did not lend", b)
		return blockalloc.ErrNotOwned
	}
	start := b.Addr() - loan.around.Addr()
	for i, v := range loan.around.Bytes() {
		if i := uintptr(i); (i < start || i >= start+b.Size()) && v != 0xa5 {
			p.t.Errorf("byte %d of %v was written, outside %v", i, loan.around, b)
			break
		}
	}
	if err := p.mem.Free(loan.around); err != nil {
		return err
	}
	delete(p.lent, b.Addr())
	p.returned = append(p.returned, b.Addr())
	return nil
}

// has checks how many blocks are lent.
func (p *lender) has(n int) {
	p.t.Helper()
	if len(p.lent) != n {
		p.t.Errorf("the parent has lent %d blocks, want %d", len(p.lent), n)
	}
}
