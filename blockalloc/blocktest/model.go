package blocktest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// model does operations on an allocator and knows what must come of them: which blocks
// are live, where they are, their content, and their bytes.
type model struct {
	suite
	make    func() (blockalloc.Allocator, error)
	a       blockalloc.Allocator
	owner   blockalloc.Owner  // nil if a is none
	finder  blockalloc.Finder // likewise
	parent  *parent           // nil if a has none of the suite's
	foreign blockalloc.Block

	live       []*modelBlock // in the order in which they were allocated or moved
	places     spans[*modelBlock]
	frozen     int                // how many of the oldest blocks are not freed or reallocated
	shown      []blockalloc.Block // the live blocks, for a Step or Check
	bytes      int64
	gone       []blockalloc.Block // freed not long ago
	number     int                // of the newest block
	steps      int
	disordered bool             // an arena whose blocks were not all freed newest first
	refusals   int              // since then, for want of room
	lifo       bool             // only the newest block is freed and reallocated
	ended      bool             // there is no allocator
	log        *strings.Builder // nil, or gets a line for each operation
}

// modelBlock is a live block. All its bytes, granted ones too, are filled.
type modelBlock struct {
	blockalloc.Block
	number int // names the block and seeds its content
	asked  blockalloc.Layout
}

func (b *modelBlock) String() string { return fmt.Sprintf("b%d", b.number) }

const (
	maxModelLive = 96
	maxGone      = 16
	maxRefusals  = 4
)

// start makes an allocator. If that fails because the parent was made to fail, nothing
// may be left there, and the model has ended.
func (m *model) start() error {
	failures := m.failures()
	a, err := m.make()
	if err != nil {
		if m.ended = true; m.failures() == failures || !errors.Is(err, ErrInjected) {
			return fmt.Errorf("no allocator is made: %w", err)
		}
		m.logf("no allocator is made: %v", err)
		return m.parent.empty()
	}
	m.a = a
	m.owner, _ = blockalloc.OwnerOf(a)
	m.finder, _ = blockalloc.FinderOf(a)
	m.disordered, m.refusals = false, 0
	if m.foreign.IsZero() {
		m.foreign, err = new(blockalloc.Heap).Allocate(blockalloc.BlockLayout(m.size))
	}
	return err
}

// step does one operation and checks what can be checked after each.
func (m *model) step(o operation) error {
	m.steps++
	if err := m.do(o); err != nil || m.ended {
		return err
	}
	if err := m.figures(); err != nil {
		return err
	}
	if m.steps%256 == 0 {
		return m.all()
	}
	if n := len(m.live); n > 0 {
		b := m.live[m.steps%n]
		if m.finder != nil {
			if err := finds(m.finder, b.Block, uintptr(m.steps)*2654435761%b.Size()); err != nil {
				return err
			}
		}
		return sampled(b.Block, b.number, uint(m.steps)*2654435761)
	}
	return nil
}

// figures compares the allocator's own figures with the model.
func (m *model) figures() error {
	if m.LiveBytes != nil {
		if got := m.LiveBytes(m.a); got != m.bytes {
			return fmt.Errorf("the allocator counts %d live bytes, want %d", got, m.bytes)
		}
	}
	return m.check()
}

// all checks every byte of the live blocks.
func (m *model) all() error {
	for _, b := range m.live {
		if err := m.intact(b); err != nil {
			return err
		}
	}
	if m.parent != nil {
		return m.parent.intact()
	}
	return nil
}

func (m *model) intact(b *modelBlock) error {
	if err := filled(b.Block, b.Size(), b.number); err != nil {
		return fmt.Errorf("%v was written over: %w", b, err)
	}
	return nil
}

func (m *model) logf(format string, args ...any) {
	if m.log != nil {
		fmt.Fprintf(m.log, format+"\n", args...)
	}
}

// owns checks the Owner's answer, if there is an Owner.
func (m *model) owns(b blockalloc.Block, want bool) error {
	if m.owner != nil && m.owner.Owns(b) != want {
		return fmt.Errorf("Owns(%v) = %v", b, !want)
	}
	return nil
}

// excused returns nil if err is allowed: the parent was made to fail meanwhile, or
// there may be no room for l.
func (m *model) excused(err error, failures int, l blockalloc.Layout, replaced *modelBlock) error {
	if m.parent != nil && m.parent.failures() > failures {
		if !errors.Is(err, ErrInjected) {
			return fmt.Errorf("%w: it does not wrap the error of the parent, which was made to fail", err)
		}
		return nil
	}
	if m.injected(err, failures) || outOfRoom(err) && !m.promised(l, replaced) {
		return nil
	}
	return err
}

// injected reports whether err comes from a parent that was made to fail: by the suite
// since it had so many failures, or by a step.
func (m *model) injected(err error, failures int) bool {
	return errors.Is(err, ErrInjected) && (m.failures() > failures || len(m.Steps) > 0)
}

func (m *model) failures() int {
	if m.parent == nil {
		return 0
	}
	return m.parent.failures()
}

// add adds a new block as the newest.
func (m *model) add(b *modelBlock) error {
	if err := mismatch(b.Block, b.asked); err != nil {
		return err
	}
	if err := m.places.insert(b.Block, b); err != nil {
		return err
	}
	if m.parent != nil && !m.parent.holds(b.Block) {
		return fmt.Errorf("%v is not in memory of the parent", b.Block)
	}
	m.live = append(m.live, b)
	m.bytes += int64(b.Size())
	fill(b.Block, b.Size(), b.number)
	return m.owns(b.Block, true)
}

// remove forgets a block.
func (m *model) remove(b *modelBlock) {
	at := slices.Index(m.live, b)
	m.live = slices.Delete(m.live, at, at+1)
	m.places.remove(b.Addr())
	m.bytes -= int64(b.Size())
}

func (m *model) bury(b blockalloc.Block) {
	if len(m.gone) == maxGone {
		m.gone = slices.Delete(m.gone, 0, 1)
	}
	m.gone = append(m.gone, b)
}

// units is how many usual blocks l counts as.
func (s suite) units(l blockalloc.Layout) uintptr {
	n := l.Size
	if l.Align > s.size {
		n += l.Align
	}
	return max(1, (n+s.size-1)/s.size)
}

// promised reports whether the Config promises room for l beside what is live, without
// the block that it replaces.
func (m *model) promised(l blockalloc.Layout, replaced *modelBlock) bool {
	if m.disordered {
		return false
	}
	if len(m.live) == 0 && l.Size+l.Align <= m.MaxSize {
		return true
	}
	units, usual := m.units(l), max(l.Size, l.Align) <= m.size
	for _, b := range m.live {
		if b != replaced {
			units += m.units(b.asked)
			usual = usual && max(b.asked.Size, b.Align()) <= m.size
		}
	}
	switch {
	case usual || m.Arena:
		return units <= uintptr(m.MaxLive)
	case m.Bounded:
		return false // blocks of several sizes may not fit each other's places
	}
	return 2*units <= uintptr(m.MaxLive)
}

// restart continues with a fresh arena, or ends if the parent has no memory for it.
func (m *model) restart() error {
	m.logf("the arena is full of holes: a new one")
	if err := m.finish(); err != nil {
		return err
	}
	return m.start()
}

// empty frees all that is live and not frozen, newest first.
func (m *model) empty() error {
	for tries := 0; len(m.live) > m.frozen; tries++ {
		b, n := m.live[len(m.live)-1], len(m.live)
		if err := m.release(b, false); err != nil {
			return err
		}
		switch {
		case len(m.live) < n:
			tries = 0
		case tries > 2:
			return fmt.Errorf("%v cannot be freed while the parent refuses allocations", b.Block)
		}
	}
	return nil
}

// finish frees all that is live and gives the memory back to the parent.
func (m *model) finish() error {
	if err := m.all(); err != nil {
		return err
	}
	if err := m.empty(); err != nil {
		return err
	}
	if err := m.figures(); err != nil {
		return fmt.Errorf("with all blocks freed: %w", err)
	}
	m.live, m.places, m.bytes, m.frozen, m.gone = nil, nil, 0, 0, nil
	if m.parent == nil {
		return nil
	}
	failures := m.failures()
	if err := closeAll(m.a); err != nil {
		if m.failures() == failures || !errors.Is(err, ErrInjected) {
			return fmt.Errorf("closing: %w", err)
		}
		m.logf("Close refused: %v", err)
		if err := closeAll(m.a); err != nil {
			return fmt.Errorf("closing again, after the parent failed once: %w", err)
		}
	}
	return m.parent.empty()
}
