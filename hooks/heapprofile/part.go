package heapprofile

import (
	"context"
	"math/bits"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/internal/random"
)

// A part is what observes the events of one Proxy, or of one child, and of its views.
type part struct {
	filter, bounds unsafe.Pointer // to live.filter and to likely[1], which saves some instructions an event
	*Profile
	to           *alloctrace.Attachment // which tells it from others; nil for events that no Proxy delivers
	id           uint32                 // of the Proxy, 0 if there is none
	proxy, child string
	peak         *Peak         // the innermost that its blocks are part of, nil without Options.Peak
	pending      *atomic.Int64 // nil if no Proxy delivers events
	quiet        atomic.Bool   // the Proxy has a view whose operations are not observed
}

func (p *Profile) newPart(to *alloctrace.Attachment) *part {
	part := &part{filter: unsafe.Pointer(&p.live.filter), bounds: unsafe.Pointer(&p.likely[1]), Profile: p, to: to, peak: p.peaks.of(to)}
	if to != nil {
		part.id, part.proxy, part.child = to.ID, to.Proxy, to.Child
	}
	return part
}

func (p *part) Observe(ctx context.Context, e alloctrace.Event, _ error) {
	if e.Kind > alloctrace.Reallocated { // a release, or a failure
		if (*atomic.Int32)(unsafe.Add(p.filter, filterOf(e.Addr)*4)).Load() > 0 {
			p.release(ctx, e)
		}
	} else if drawn := random.Uint32(); drawn <= (*atomic.Uint32)(unsafe.Add(p.bounds, (sizeClass(e.Size)-1)*4)).Load() {
		p.acquire(ctx, e.Addr, e.Size, e.Align, drawn)
	}
}

// acquire remembers a block if it is chosen by the number that was drawn, which is again compared
// with the bound: the rate may have changed.
func (p *part) acquire(ctx context.Context, addr, size, align uintptr, drawn uint32) {
	s := p.sampler.Load()
	if drawn > s.bound(size) || !s.chosen(drawn, size) {
		return
	}
	b := block{
		size: size, align: uint8(bits.TrailingZeros64(uint64(align))),
		by: p, site: p.site(ctx, p.stacks.caller()),
		since: time.Since(p.start), serial: p.serial.Add(1),
		sampler: s,
	}
	if p.live.end != nil {
		b.allocatedBy, b.allocatedOn = goroutine32(), processor16()
	}
	p.begin(&b)
	if p.inUse.Add(1) > p.maxBlocks {
		p.live.setIncomplete()
		p.untracked.Add(1)
		p.forget(&b)
		return
	}
	if p.watcher != nil {
		p.watch(ctx, &b)
	}
	if was, ok := p.live.add(addr, &b); ok {
		p.forget(&was)
		p.freed(was.watched)
	}
}

// site returns the site of a stack and a context.
func (p *part) site(ctx context.Context, of *stack) *site {
	var owner *string
	if p.owner != nil {
		text := p.owner(ctx)
		owner = &text
	}
	return p.sites.of(of, ctx, p.child, owner)
}

// forget takes a block out of what is in use.
func (p *Profile) forget(b *block) {
	p.leave(b, 1)
	p.inUse.Add(-1)
}

// release forgets a block, or knows it again when its release has failed.
func (p *part) release(ctx context.Context, e alloctrace.Event) {
	if e.Kind.Failed() {
		b, ok, kept := p.live.failed(e.Addr, e.Size, p)
		if ok {
			p.leave(&b, -1)
			p.inUse.Add(1)
		} else {
			p.freed(b.watched)
		}
		if kept && p.pending != nil {
			p.pending.Add(-1)
		}
		return
	}
	b, ok, waits := p.live.release(e.Addr, e.Size, p)
	if ok {
		p.forget(&b)
		p.freeing(ctx, b.watched)
	}
	if waits && p.pending != nil {
		p.pending.Add(1)
	} else {
		p.freed(b.watched) // nobody delivers the end
	}
}

// released is called when a release has succeeded.
func (p *part) released(addr, size uintptr) {
	foreign, freed, kept := p.live.ended(addr, size, p)
	if kept {
		p.pending.Add(-1)
	}
	p.freed(freed)
	if foreign != nil {
		p.foreign.add(p, foreign)
	}
}
