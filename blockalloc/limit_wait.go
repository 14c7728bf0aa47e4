package blockalloc

import (
	"context"
	"fmt"
	"slices"
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
// It costs what Allocate does if nobody waits.
func (l *Limit) AllocateContext(ctx context.Context, layout Layout) (Block, error) {
	if err := layout.Check(); err != nil {
		return Block{}, allocateError("Limit", layout, err)
	}
	if layout.Size == 0 {
		return Block{}, nil
	}
	asked := int64(layout.Size)
	for reserved := asked; ; {
		if err := l.bound.wait(ctx, asked, reserved); err != nil {
			return Block{}, allocateError("Limit", layout, err)
		}
		b, err := AllocateContext(ctx, l.inner, layout)
		if err != nil {
			l.bound.release(reserved)
			return b, err
		}
		granted := int64(b.size)
		if granted <= reserved {
			if granted < reserved {
				l.bound.release(reserved - granted)
			}
			return b, nil
		}
		if _, ok := l.bound.reserve(granted - reserved); ok {
			return b, nil
		}
		if back := l.inner.Free(b); back != nil {
			err := allocateError("Limit", layout, l.bound.refusal(asked, granted, l.bound.free.Load()+reserved))
			return Block{}, bothFailed(err, back) // what was reserved stays so: the block is live
		}
		l.bound.release(reserved)
		reserved = granted
	}
}

// Waiting returns how many calls of AllocateContext wait for the bound.
func (l *Limit) Waiting() int { return int(l.bound.waiting.Load()) }

// A waiter is a request that waits for the bound.
type waiter struct {
	need, have int64 // bytes; have of them are reserved by now
	done       chan struct{}
	refused    bool // when it is done: the bound was too low for it
}

// wait reserves size bytes for a request of so many that were asked for.
//
// Memory ordering: who waits is counted before it looks at what is free, and who
// frees looks for waiters after it has added to that, so that one of the two sees the other.
func (s *bound) wait(ctx context.Context, asked, size int64) error {
	if _, ok := s.reserve(size); ok { // nothing is left while somebody waits
		return nil
	}
	w := &waiter{need: size, done: make(chan struct{})}
	s.mu.Lock()
	fits := size <= s.max
	if fits {
		s.queue = append(s.queue, w)
		s.waiting.Add(1)
		s.serve()
	}
	s.mu.Unlock()
	if !fits {
		return s.refusal(asked, size, s.free.Load())
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		if free, waited := s.leave(w); waited {
			return fmt.Errorf("%w; waited until %w", s.refusal(asked, size, free), context.Cause(ctx))
		}
	}
	if w.refused {
		return s.refusal(asked, size, s.free.Load())
	}
	return nil
}

// serve gives what is free to those who wait, one after the other. s.mu is held.
func (s *bound) serve() {
	for len(s.queue) > 0 {
		w := s.queue[0]
		for w.have < w.need {
			free := s.free.Load()
			if free <= 0 {
				return
			}
			if more := min(free, w.need-w.have); s.free.CompareAndSwap(free, free-more) {
				w.have += more
			}
		}
		s.dismiss(w)
	}
}

// refuse ends the waiting of those who can never be served. s.mu is held.
func (s *bound) refuse() {
	for _, w := range slices.Clone(s.queue) {
		if w.need > s.max {
			w.refused = true
			s.free.Add(w.have)
			s.dismiss(w)
		}
	}
}

// dismiss takes w, which is there, out of the queue. s.mu is held.
func (s *bound) dismiss(w *waiter) {
	i := slices.Index(s.queue, w)
	s.queue = slices.Delete(s.queue, i, i+1)
	s.waiting.Add(-1)
	close(w.done)
}

// leave ends the waiting of w, if it is not over already, and returns what was then free.
func (s *bound) leave(w *waiter) (free int64, waited bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.queue, w) {
		return 0, false
	}
	free = s.free.Add(w.have)
	s.dismiss(w)
	s.serve()
	return free, true
}
