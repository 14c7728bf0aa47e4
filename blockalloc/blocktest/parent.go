package blocktest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
)

// ErrInjected is wrapped by the errors of the parent that the suite makes fail. If an
// allocation fails, so is ErrOutOfMemory.
var ErrInjected = failing.ErrInjected

// A call is an operation of a parent that can be counted and made to fail.
type call uint8

const (
	callAllocate call = 1 << iota
	callReallocate
	callFree
)

// parent is the allocator below the one under test. It knows what is live, guards it
// with bytes before and after, and fails on demand. It moves every block that it
// reallocates, but resizes some in place, and overwrites what is freed.
type parent struct {
	heap   blockalloc.Heap
	zeroed bool // fresh memory is zero, and not a pattern
	strict bool // freeing what is not live is kept in wrong

	mu    sync.Mutex
	live  spans[grant]
	bytes uintptr
	wrong []error // guards that were overwritten, and, if strict, frees of what is not live

	counted  call // which calls are counted
	calls    int
	fail     int  // the number, from 1, of the call that fails; 0 is none
	onwards  bool // all calls after that one fail too
	how      ending
	injected int // calls that were made to fail
}

// grant is a block of the parent and the memory that it was cut from.
type grant struct{ block, whole blockalloc.Block }

// guardSize is how many bytes after each block are guarded, and before each but
// those that are aligned more strictly than maxFront.
const (
	guardSize = 64
	maxFront  = 4 << 10
	guardByte = 0xfd
	freshByte = 0xa5
	goneByte  = 0x5a

	// maxPainted bounds what is painted of a block's ends.
	maxPainted = 1 << 20
)

var (
	_ blockalloc.Allocator = (*parent)(nil)
	_ blockalloc.Owner     = (*parent)(nil)
	_ blockalloc.Resizer   = (*parent)(nil)
	_ blockalloc.Finder    = (*parent)(nil)
)

func newParent(zeroed bool) *parent {
	return &parent{zeroed: zeroed, counted: callAllocate | callReallocate | callFree}
}

// Allocate returns a block of exactly l.Size bytes.
func (p *parent) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if err := l.Check(); err != nil || l.Size == 0 {
		return blockalloc.Block{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.count(callAllocate); err != nil {
		return blockalloc.Block{}, err
	}
	return p.allocate(l)
}

func (p *parent) allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	align := max(l.Align, guardSize)
	front := align
	if align > maxFront {
		front = 0
	}
	whole, err := p.heap.Allocate(layout(front+l.Size+guardSize, align))
	if err != nil {
		return blockalloc.Block{}, err
	}
	b, err := blockalloc.NewBlock(unsafe.Add(whole.Pointer(), front), l.Size, l)
	if err != nil {
		return blockalloc.Block{}, err
	}
	g := grant{b, whole}
	before, after := g.guards()
	paint(before, guardByte)
	paint(after, guardByte)
	if !p.zeroed && !l.Zeroed {
		paint(b.Bytes(), freshByte)
	}
	if err := p.live.insert(b, g); err != nil {
		return blockalloc.Block{}, err
	}
	p.bytes += l.Size
	return b, nil
}

// Reallocate always moves b.
func (p *parent) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if b.IsZero() {
		return b, blockalloc.ErrBadLayout
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.check(b); err != nil {
		return b, p.blame(err)
	}
	l := b.Layout()
	l.Size = size
	if err := l.Check(); err != nil {
		return b, err
	}
	if err := p.count(callReallocate); err != nil {
		return b, err
	}
	var n blockalloc.Block
	if size > 0 {
		var err error
		if n, err = p.allocate(l); err != nil {
			return b, err
		}
		copy(n.Bytes(), b.Bytes())
	}
	return n, p.free(b)
}

// Resize shrinks b in place, and lets it grow to the size that it had before.
func (p *parent) Resize(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	l := b.Layout()
	l.Size = size
	if err := l.Check(); err != nil || b.IsZero() || size == 0 {
		return b, blockalloc.ErrBadLayout
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.check(b); err != nil {
		return b, p.blame(err)
	}
	if err := p.count(callReallocate); err != nil {
		return b, err
	}
	g, _ := p.live.at(b.Addr())
	if b.Addr()-g.whole.Addr()+size+guardSize > g.whole.Size() {
		return b, blockalloc.ErrWouldMove
	}
	n, err := blockalloc.NewBlock(b.Pointer(), size, l)
	if err != nil {
		return b, err
	}
	p.inspect(g)
	old := g.block.Size()
	g.block = n
	if size > old {
		added := byte(freshByte)
		if p.zeroed || l.Zeroed {
			added = 0
		}
		paintAll(n.Bytes()[old:], added)
	}
	_, after := g.guards()
	paintAll(after, guardByte)
	p.live.remove(b.Addr())
	p.bytes += size - old
	return n, p.live.insert(n, g)
}

// Free takes b back.
func (p *parent) Free(b blockalloc.Block) error {
	if b.IsZero() {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.check(b); err != nil {
		return p.blame(err)
	}
	if err := p.count(callFree); err != nil {
		return err
	}
	return p.free(b)
}

func (p *parent) free(b blockalloc.Block) error {
	g, _ := p.live.at(b.Addr())
	p.inspect(g)
	p.live.remove(b.Addr())
	p.bytes -= b.Size()
	paint(b.Bytes(), goneByte)
	return p.heap.Free(g.whole)
}

// Owns reports whether b is live.
func (p *parent) Owns(b blockalloc.Block) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.check(b) == nil
}

// Find returns the live block that holds the byte at ptr.
func (p *parent) Find(ptr unsafe.Pointer) (blockalloc.Block, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	g, ok := p.live.holding(uintptr(ptr))
	return g.block, ok
}

func (p *parent) check(b blockalloc.Block) error {
	if g, ok := p.live.at(b.Addr()); !ok || !b.Is(g.block) {
		return fmt.Errorf("the parent has no such %v: %w", b, blockalloc.ErrNotOwned)
	}
	return nil
}

// blame keeps the error that a block was not live.
func (p *parent) blame(err error) error {
	if p.strict {
		p.wrong = append(p.wrong, err)
	}
	return err
}

// count counts a call, and returns an error if the call is to fail.
func (p *parent) count(c call) error {
	if p.counted&c == 0 {
		return nil
	}
	p.calls++
	if p.fail == 0 || p.calls != p.fail && !(p.onwards && p.calls > p.fail) {
		return nil
	}
	p.injected++
	p.how.end()
	if c == callFree {
		return fmt.Errorf("call %d of the parent, a Free: %w", p.calls, ErrInjected)
	}
	return fmt.Errorf("call %d of the parent: %w: %w", p.calls, ErrInjected, blockalloc.ErrOutOfMemory)
}

// failures is how many calls were made to fail.
func (p *parent) failures() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.injected
}

// holds reports whether b lies within a live block of the parent.
func (p *parent) holds(b blockalloc.Block) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.live.within(b)
}

// intact returns an error if a guard was overwritten, or something else is wrong.
func (p *parent) intact() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.live {
		p.inspect(s.value)
	}
	return errors.Join(p.wrong...)
}

// empty returns intact's error, or one if a block is live.
func (p *parent) empty() error {
	if err := p.intact(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.live) > 0 {
		return fmt.Errorf("%d blocks with %d bytes in all are still live at the parent, among them %v", len(p.live), p.bytes, p.live[0].value.block)
	}
	return nil
}

func (p *parent) inspect(g grant) {
	before, after := g.guards()
	for i, guard := range [][]byte{before, after} {
		if at := overwritten(guard); at >= 0 && len(p.wrong) < 8 {
			p.wrong = append(p.wrong, fmt.Errorf("the parent's memory %s %v was overwritten, at byte %d", [...]string{"before", "after"}[i], g.block, at))
		}
	}
}

// guards returns the guarded bytes before and after g's block.
func (g grant) guards() (before, after []byte) {
	mem := g.whole.Bytes()
	front := g.block.Addr() - g.whole.Addr()
	return mem[:front], mem[front+g.block.Size():]
}

// overwritten returns the index of the first changed byte of a guard, or -1.
func overwritten(guard []byte) int {
	if n := len(guard); n == 0 || guard[0] == guardByte && bytes.Equal(guard[1:], guard[:n-1]) {
		return -1
	}
	return slices.IndexFunc(guard, func(v byte) bool { return v != guardByte })
}

// paint sets every byte of mem, or of its ends if mem is large.
func paint(mem []byte, v byte) {
	if len(mem) > 2*maxPainted {
		paint(mem[:maxPainted], v)
		mem = mem[len(mem)-maxPainted:]
	}
	paintAll(mem, v)
}

// paintAll sets every byte of mem.
func paintAll(mem []byte, v byte) {
	if len(mem) > 0 {
		mem[0] = v
	}
	for n := 1; n < len(mem); n *= 2 {
		copy(mem[n:], mem[:n])
	}
}
