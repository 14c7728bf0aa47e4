package blocktest

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// An ending is what a call of a parent does instead of returning.
type ending uint8

const (
	returns ending = iota // it does return
	panics
	exits // runtime.Goexit ends the goroutine, as t.FailNow does
)

func (e ending) String() string { return [...]string{"returns", "panics", "ends its goroutine"}[e] }

// parentEndings has the parent panic, and end the goroutine, in one of its calls a run.
// Nothing may stay locked, and the call's block must be live or freed. No other block
// may be damaged, and none may be left at the parent.
func (s suite) parentEndings(t *testing.T) {
	calls, err := s.endure(t, 0, returns)
	if err != nil {
		t.Error(err)
		return
	}
	for _, how := range []ending{panics, exits} {
		for i := 1; i <= calls; i++ {
			if !longRun && calls > 2*s.many() && i < 2*s.many() && i%5 != 0 {
				continue // each block is a call of the parent: one is like another
			}
			if !longRun && how == exits && i%3 != 0 {
				continue // to an allocator an exit is a panic that nobody can recover
			}
			if _, err := s.endure(t, i, how); err != nil {
				t.Errorf("where call %d of the parent %v: %v", i, how, err)
				return
			}
		}
	}
}

// many is how many blocks are live at once: enough that an allocator gives back empty
// ones.
func (s suite) many() int { return min(36, s.MaxLive/2) }

// An endurance is a run in which a call of the parent does not return. It frees and
// reallocates the newest block first.
type endurance struct {
	suite
	a     blockalloc.Allocator
	owner blockalloc.Owner // nil if a is none
	live  []filledBlock
	doubt []blockalloc.Block // blocks that no Owner says to be live or not
	gone  int64              // bytes of blocks that were freed by a call that did not return
	seed  int
}

// endure returns how many calls of the parent there were.
func (s suite) endure(t testing.TB, fail int, how ending) (calls int, err error) {
	p := newParent(s.Zeroed)
	p.fail, p.how = fail, how
	e := &endurance{suite: s}
	err = try(t, func(t testing.TB) error {
		if e.run(func() { e.a, err = s.NewOver(t, p) }); err != nil || e.a == nil {
			return err
		}
		e.owner, _ = blockalloc.OwnerOf(e.a)
		return e.script()
	})
	return p.calls, errors.Join(err, p.empty())
}

// run runs an operation and reports whether it returned.
func (e *endurance) run(op func()) (returned bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if r := recover(); r != nil && r != any(panics) {
				panic(r)
			}
		}()
		op()
		returned = true
	}()
	<-done
	return returned
}

func (e *endurance) script() error {
	large := e.fit(32 << 10)
	for range e.many() {
		if err := e.allocate(e.size); err != nil {
			return err
		}
	}
	if err := e.free(e.many()); err != nil {
		return err
	}
	for range 2 {
		for _, size := range []uintptr{e.size, large} {
			err := errors.Join(e.allocate(1), e.allocate(size), e.reallocate(1), e.reallocate(large), e.reallocate(e.size), e.reallocate(large),
				e.reallocate(0), e.allocate(size))
			if err != nil {
				return err
			}
		}
	}
	if err := e.free(len(e.live)); err != nil {
		return err
	}
	for _, b := range e.doubt {
		if err := e.a.Free(b); err != nil && !notLive(err) {
			return fmt.Errorf("Free(%v), which may be live: %w", b, err)
		}
	}
	if e.LiveBytes != nil {
		if got := e.LiveBytes(e.a); got != 0 && got != e.gone {
			return fmt.Errorf("with nothing live the allocator counts %d live bytes", got)
		}
	}
	var err error
	if !e.run(func() { err = closeAll(e.a) }) {
		err = closeAll(e.a)
	}
	return err
}

func (e *endurance) allocate(size uintptr) error {
	var b blockalloc.Block
	var err error
	if e.run(func() { b, err = e.a.Allocate(layout(size, 8)) }) {
		if err != nil {
			return e.excused(err)
		}
		e.seed++
		fill(b, b.Size(), e.seed)
		e.live = append(e.live, filledBlock{b, b.Size(), e.seed})
	}
	return e.intact()
}

// reallocate reallocates the newest block.
func (e *endurance) reallocate(size uintptr) error {
	if len(e.live) == 0 {
		return nil
	}
	var n blockalloc.Block
	var err error
	last := &e.live[len(e.live)-1]
	if !e.run(func() { n, err = e.a.Reallocate(last.block, size) }) {
		e.settle()
		return e.intact()
	}
	if err != nil {
		return e.excused(err)
	}
	if err := filled(n, min(n.Size(), last.size), last.seed); err != nil {
		return fmt.Errorf("Reallocate(%v, %d) lost content: %w", last.block, size, err)
	}
	if n.IsZero() {
		e.live = e.live[:len(e.live)-1]
		return e.intact()
	}
	fill(n, n.Size(), last.seed)
	last.block, last.size = n, n.Size()
	return e.intact()
}

// free frees the n newest blocks.
func (e *endurance) free(n int) error {
	for range min(n, len(e.live)) {
		var err error
		b := e.live[len(e.live)-1].block
		switch returned := e.run(func() { err = e.a.Free(b) }); {
		case err != nil:
			return fmt.Errorf("Free(%v): %w", b, err)
		case returned:
			e.live = e.live[:len(e.live)-1]
		default:
			if e.settle(); len(e.live) > 0 && e.live[len(e.live)-1].block == b {
				if err := e.a.Free(b); err != nil {
					return fmt.Errorf("Free(%v) again, which is live: %w", b, err)
				}
				e.live = e.live[:len(e.live)-1]
			}
		}
		if err := e.intact(); err != nil {
			return err
		}
	}
	return nil
}

// settle finds out whether the newest block, whose operation did not return, is live.
func (e *endurance) settle() {
	last := len(e.live) - 1
	b := e.live[last].block
	if e.owner == nil {
		e.doubt = append(e.doubt, b)
		e.live = e.live[:last]
	} else if !e.owner.Owns(b) {
		e.gone += int64(b.Size()) // a count above the allocator may still have it
		e.live = e.live[:last]
	}
}

// excused returns nil if err is for want of room, which parts of the script may lack.
func (e *endurance) excused(err error) error {
	if outOfRoom(err) || errors.Is(err, blockalloc.ErrUnsupportedAlign) {
		return nil
	}
	return err
}

// intact checks the newest blocks, and that all are owned.
func (e *endurance) intact() error {
	for _, b := range slices.Backward(e.live[max(0, len(e.live)-4):]) {
		if err := filled(b.block, b.size, b.seed); err != nil {
			return fmt.Errorf("%v was written over: %w", b.block, err)
		}
		if e.owner != nil && !e.owner.Owns(b.block) {
			return fmt.Errorf("Owns(%v) = false", b.block)
		}
	}
	return nil
}

// end ends a call that does not return.
func (e ending) end() {
	switch e {
	case panics:
		panic(panics)
	case exits:
		runtime.Goexit()
	}
}
