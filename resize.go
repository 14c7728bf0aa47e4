package alloctrace

import (
	"errors"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/recursion"
)

// Resize resizes b in place by the inner allocator, if that is a [blockalloc.Resizer]. It counts as
// Reallocate does, and hooks observe the same events: Reallocating and Reallocated, of one address.
// A block that would have to move to grow is no failure: it is neither counted nor delivered, and
// the error wraps blockalloc.ErrWouldMove. After [Proxy.Close] it fails with blockalloc.ErrClosed,
// and b stays live.
func (p *Proxy) Resize(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	given := b
	if b.IsRaw() {
		var err error
		if b, err = blockalloc.Granted(p.inner, b); err != nil {
			return given, p.refuseReallocate(b, size, p.rawError("Resize", b, err))
		}
	}
	if p.closed.Load() {
		return given, p.refuseReallocate(b, size, p.closedError("Resize"))
	}
	// What a block gives back may be another's before the inner allocator returns. A block that grows in place
	// releases nothing, so that its events can wait until it is known whether it does.
	grows := size > b.Size()
	if !grows {
		p.reallocating(b)
	}
	in, _ := p.inner.(*between)
	var n blockalloc.Block
	var err error
	if in != nil && !grows {
		n, err = in.reallocate(b, size, in.resize)
	} else {
		n, err = blockalloc.Resize(p.Unwrap(), b, size)
	}
	if err != nil && n == b {
		n = given
	}
	if grows {
		if errors.Is(err, blockalloc.ErrWouldMove) {
			return n, err
		}
		p.reallocating(b)
		if in != nil {
			_, _ = in.reallocate(b, size, func(blockalloc.Block, uintptr) (blockalloc.Block, error) { return n, err })
		}
	}
	if err != nil {
		return n, p.reallocateFailed(b, err)
	}
	p.reallocated(b, size, n)
	return n, nil
}

func (b *between) resize(old blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	return blockalloc.Resize(b.inner, old, size)
}

// reallocating delivers that b is about to be reallocated.
func (p *Proxy) reallocating(b blockalloc.Block) {
	if p.hook != nil && !b.IsZero() {
		recursion.Check()
		p.hook.Observe(p.ctx, Event{Reallocating, b.Addr(), b.Size(), b.Align()}, nil)
	}
}
