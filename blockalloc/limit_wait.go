package blockalloc

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alloctrace/alloctrace/internal/waits"
)

// A ContextAllocator is an Allocator that can wait until others have freed memory.
type ContextAllocator interface {
	Allocator
	AllocateContext(ctx context.Context, l Layout) (Block, error)
}

var _ ContextAllocator = (*Limit)(nil)

// AllocateContext allocates from a. If a is a [ContextAllocator], such as a [Limit] or
// a Proxy over one, it may wait until memory is free or ctx is done.
func AllocateContext(ctx context.Context, a Allocator, l Layout) (Block, error) {
	if w, ok := a.(ContextAllocator); ok {
		return w.AllocateContext(ctx, l)
	}
	return a.Allocate(l)
}

// AllocateContext allocates as Allocate does, but waits if the bound is reached: until
// enough is freed, the bound is raised, or ctx is done. Then the error also wraps the
// cause of ctx. A request that can never fit is refused at once. So producers wait for
// consumers, where Allocate would fail.
//
// Requests are served in the order in which they came. Freed bytes are kept for the
// first of them, so that many small requests, also by Allocate, do not starve a large
// one. To keep consumers from starving each other, give each a Limit of its own around
// a shared one: a request waits first for its own budget, then for the shared bound.
// Waiting while holding memory can deadlock: set a deadline.
//
// In a testing/synctest bubble, a request blocks durably if the Limit was made in the
// bubble or ctx has a deadline of the bubble's. A Limit that was made outside can be
// shared with a bubble: frees outside wake the request, or it sees them at its
// deadline. It panics to free outside what a request without a deadline waits for in
// the Limit's own bubble.
//
// Without waiting it costs what Allocate does.
func (l *Limit) AllocateContext(ctx context.Context, layout Layout) (Block, error) {
	if err := layout.Check(); err != nil {
		return Block{}, allocateError("Limit", layout, err)
	}
	if layout.Size == 0 {
		return Block{}, nil
	}
	for reserve := int64(layout.Size); ; {
		b, more, err := l.allocateContext(ctx, layout, reserve)
		if more == 0 {
			return b, err
		}
		reserve = more
	}
}

// allocateContext waits for reserve bytes and allocates. It returns more if the inner
// allocator granted that many and they are not free.
func (l *Limit) allocateContext(ctx context.Context, layout Layout, reserve int64) (b Block, more int64, err error) {
	if err := l.bound.wait(ctx, layout, reserve); err != nil {
		return Block{}, 0, err
	}
	unused := reserve // as in allocate
	defer func() {
		if unused != 0 {
			l.bound.release(unused)
		}
	}()
	b, err = AllocateContext(ctx, l.inner, layout)
	if err != nil {
		return b, 0, err
	}
	granted := int64(b.size)
	if unused = max(0, reserve-granted); granted <= reserve {
		return b, 0, nil
	}
	if _, ok := l.bound.reserve(granted - reserve); ok {
		return b, 0, nil
	}
	if back := l.inner.Free(b); back != nil { // what was reserved stays so: the block is live
		return Block{}, 0, bothFailed(l.bound.refusal(layout, Block{}, granted, l.bound.free.Load()+reserve), back)
	}
	unused = reserve
	return Block{}, granted, nil
}

// Waiting returns how many calls of AllocateContext are waiting.
func (l *Limit) Waiting() int { return int(l.bound.waiting.Load()) }

// A waiter is a request that waits for the bound.
type waiter struct {
	need, have int64 // bytes; have of them are reserved by now
	refused    bool  // the bound was too low for it

	// It is woken by closing done, or if that is nil by unlocking wake. A channel that was
	// made in a synctest bubble must be closed there: elsewhere that ends the process. A
	// mutex can be unlocked anywhere, but waiting for it stops the bubble's clock.
	done     chan struct{}
	bubble   int  // that done was made in
	deadline bool // ctx has one, which wakes it in any case
	wake     sync.Mutex
	awake    atomic.Bool

	gaveUp <-chan struct{} // of ctx
	stop   func() bool     // ends the watch of ctx, where done is nil
}

// outOfReach is the text of a panic: an error would mean that the Free or SetMax had
// failed.
const outOfReach = "blockalloc: Limit: a request of a testing/synctest bubble waits for what was freed or changed outside of it, from where it cannot be woken: make the Limit outside of the bubble"

// newWaiter returns a waiter for the caller. In a bubble it blocks durably if the Limit
// was made there too, or if ctx has a deadline by the bubble's clock. Otherwise that
// clock would stand still.
func (s *bound) newWaiter(ctx context.Context, need int64) *waiter {
	w := &waiter{need: need, bubble: bubble(), gaveUp: ctx.Done()}
	deadline, ok := ctx.Deadline()
	w.deadline = ok
	if w.bubble == 0 || w.bubble == s.bubble || ok && deadline == deadline.Round(0) {
		w.done = make(chan struct{})
		return w
	}
	w.wake.Lock()
	w.stop = context.AfterFunc(ctx, w.wakeUp)
	return w
}

// sleep returns when w is woken or its context is done.
func (w *waiter) sleep() {
	if w.done == nil {
		w.wake.Lock()
		w.stop()
		return
	}
	select {
	case <-w.done:
	case <-w.gaveUp:
	}
}

// reachable reports whether the caller may wake w.
func (w *waiter) reachable() bool {
	return w.done == nil || w.bubble == 0 || w.bubble == bubble()
}

func (w *waiter) wakeUp() {
	if w.done != nil {
		close(w.done)
	} else if w.awake.CompareAndSwap(false, true) {
		w.wake.Unlock()
	}
}

// wait reserves size bytes for a request of layout.
//
// Memory ordering: a waiter is counted before it looks at the free bytes. A free adds
// them before it looks for waiters. So one of the two sees the other.
func (s *bound) wait(ctx context.Context, layout Layout, size int64) error {
	if _, ok := s.reserve(size); ok { // nothing is left while somebody waits
		return nil
	}
	w := s.newWaiter(ctx, size) // calls ctx, which may panic, and so comes before others know w
	start := time.Now()
	queued := s.enqueue(w)
	if !queued {
		w.wakeUp()
	}
	w.sleep()
	if queued {
		waits.Done(ctx, start)
	}
	free, waited := s.leave(w)
	switch {
	case waited:
		return fmt.Errorf("%w; waited until %w", s.refusal(layout, Block{}, size, free), context.Cause(ctx))
	case w.refused:
		return s.refusal(layout, Block{}, size, s.free.Load())
	}
	return nil
}

// enqueue has w wait, and returns false if it can never be served.
func (s *bound) enqueue(w *waiter) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.refused = w.need > s.max; w.refused {
		return false
	}
	s.queue = append(s.queue, w)
	s.waiting.Add(1)
	s.serve()
	return true
}

// serve gives the free bytes to the waiters in order. It returns false if one of them
// has all it needs, cannot be woken from here and has no deadline: it stays until its
// own bubble serves it. s.mu is held.
func (s *bound) serve() (reached bool) {
	reached = true
	for i := 0; i < len(s.queue); {
		w := s.queue[i]
		for w.have < w.need {
			free := s.free.Load()
			if free <= 0 {
				return reached
			}
			if more := min(free, w.need-w.have); s.free.CompareAndSwap(free, free-more) {
				w.have += more
			}
		}
		if s.dismiss(w) {
			continue
		}
		reached = reached && w.deadline
		i++
	}
	return reached
}

// refuse ends the waiting of those who can never be served. It returns what serve does.
// s.mu is held.
func (s *bound) refuse() (reached bool) {
	reached = true
	for _, w := range slices.Clone(s.queue) {
		if w.need > s.max {
			s.free.Add(w.have)
			w.refused, w.need, w.have = true, 0, 0
			reached = (s.dismiss(w) || w.deadline) && reached
		}
	}
	return reached
}

// dismiss removes w, which has what it needs, from the queue and wakes it, if it is
// reachable. s.mu is held.
func (s *bound) dismiss(w *waiter) bool {
	if !w.reachable() {
		return false
	}
	s.remove(w)
	w.wakeUp()
	return true
}

// remove removes w from the queue. s.mu is held.
func (s *bound) remove(w *waiter) {
	i := slices.Index(s.queue, w)
	s.queue = slices.Delete(s.queue, i, i+1)
	s.waiting.Add(-1)
}

// leave ends the waiting of w. If it was not served, waited is true, and free is what
// is then free.
func (s *bound) leave(w *waiter) (free int64, waited bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.queue, w) {
		return 0, false
	}
	s.remove(w)
	if w.have < w.need {
		free, waited = s.free.Add(w.have), true
	}
	s.serve()
	return free, waited
}
