package blockalloc

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// A ContextAllocator can wait for memory that others are to free.
type ContextAllocator interface {
	Allocator
	AllocateContext(ctx context.Context, l Layout) (Block, error)
}

var _ ContextAllocator = (*Limit)(nil)

// AllocateContext allocates from a, and waits until ctx is done if a is a
// [ContextAllocator] that has to: a [Limit], or a Proxy on top of one.
func AllocateContext(ctx context.Context, a Allocator, l Layout) (Block, error) {
	if w, ok := a.(ContextAllocator); ok {
		return w.AllocateContext(ctx, l)
	}
	return a.Allocate(l)
}

// AllocateContext allocates as Allocate does, and where the bound is in the way waits
// until enough is freed or the bound raised, or until ctx is done: then the error wraps
// the cause of that too. What can never fit the bound is refused at once. So producers are
// held back by those who consume what they make, where Allocate would have them fail.
//
// Those who wait are served in the order in which they came, whatever they ask for: what is
// freed is kept for the first of them, so that many small requests, be they by Allocate,
// do not starve a large one. Consumers do not starve each other if each has a Limit of its
// own around the one that all share: the first waits for its own budget and then for
// the shared bound. Whoever waits while it holds memory that others wait for waits for
// its deadline: give it one.
//
// In a testing/synctest bubble, a request waits durably, and the clock of the bubble goes on,
// if the Limit was made in the bubble or ctx has a deadline of the bubble's. A Limit that
// was made outside may be shared by bubbles and others: what they free wakes the request, or
// is found at its deadline. To free outside what a request of the Limit's own bubble waits
// for, without a deadline, panics.
//
// It costs what Allocate does if nobody waits.
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

// allocateContext waits for so many bytes and allocates. If it returns more, the inner
// allocator wants that many, which are not there.
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

// Waiting returns how many calls of AllocateContext wait for the bound.
func (l *Limit) Waiting() int { return int(l.bound.waiting.Load()) }

// A waiter is a request that waits for the bound.
type waiter struct {
	need, have int64 // bytes; have of them are reserved by now
	refused    bool  // the bound was too low for it

	// It is woken by the closing of done, or where that is nil by the unlocking of wake. A
	// channel that was made in a synctest bubble is for that alone: to close it elsewhere
	// ends the process. A mutex is for all, but who waits for it keeps the bubble's clock.
	done     chan struct{}
	bubble   int  // that done was made in
	deadline bool // ctx has one, which wakes it in any case
	wake     sync.Mutex
	awake    atomic.Bool

	gaveUp <-chan struct{} // of ctx
	stop   func() bool     // ends the watch of ctx, where done is nil
}

// outOfReach is what panics: to return an error would say that the operation had failed.
const outOfReach = "blockalloc: Limit: a request of a testing/synctest bubble waits for what was freed or changed outside of it, from where it cannot be woken: make the Limit outside of the bubble"

// newWaiter returns one for the caller. In a bubble it waits durably, as synctest calls it,
// if the Limit was made there too, or if ctx has a deadline by the bubble's clock, which
// would not come while the clock is kept.
func (s *bound) newWaiter(ctx context.Context, need int64) *waiter {
	w := &waiter{need: need, bubble: bubble(), gaveUp: ctx.Done()}
	deadline, ok := ctx.Deadline()
	w.deadline = ok
	if w.bubble == 0 || w.bubble == s.bubble || ok && deadline == deadline.Round(0) {
		w.done = make(chan struct{})
		return w
	}
	w.wake.Lock()
	w.stop = context.AfterFunc(ctx, w.rouse)
	return w
}

// sleep returns when w is roused or its context is done.
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

// reachable reports whether the caller may rouse w.
func (w *waiter) reachable() bool {
	return w.done == nil || w.bubble == 0 || w.bubble == bubble()
}

func (w *waiter) rouse() {
	if w.done != nil {
		close(w.done)
	} else if w.awake.CompareAndSwap(false, true) {
		w.wake.Unlock()
	}
}

// wait reserves size bytes for a request of layout.
//
// Memory ordering: who waits is counted before it looks at what is free, and who
// frees looks for waiters after it has added to that, so that one of the two sees the other.
func (s *bound) wait(ctx context.Context, layout Layout, size int64) error {
	if _, ok := s.reserve(size); ok { // nothing is left while somebody waits
		return nil
	}
	w := s.newWaiter(ctx, size) // calls ctx, which may panic, and so comes before others know w
	if !s.enqueue(w) {
		w.rouse()
	}
	w.sleep()
	free, waited := s.leave(w)
	switch {
	case waited:
		return fmt.Errorf("%w; waited until %w", s.refusal(layout, Block{}, size, free), context.Cause(ctx))
	case w.refused:
		return s.refusal(layout, Block{}, size, s.free.Load())
	}
	return nil
}

// enqueue has w wait, unless it can never be served.
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

// serve gives what is free to those who wait, one after the other. It returns false if one
// of them has all it needs, is out of reach, and not woken by a deadline either: it stays
// until it is served from its own bubble. s.mu is held.
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

// refuse ends the waiting of those who can never be served, and returns what serve does.
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

// dismiss takes w, which is there and has what it needs, out of the queue and rouses it, if
// it is reachable. s.mu is held.
func (s *bound) dismiss(w *waiter) bool {
	if !w.reachable() {
		return false
	}
	s.remove(w)
	w.rouse()
	return true
}

// remove takes w, which is there, out of the queue. s.mu is held.
func (s *bound) remove(w *waiter) {
	i := slices.Index(s.queue, w)
	s.queue = slices.Delete(s.queue, i, i+1)
	s.waiting.Add(-1)
}

// leave ends the waiting of w. If it has waited in vain, it returns what was then free.
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
