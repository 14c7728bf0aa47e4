package blockalloc

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

// refill replaces the current run by one with free blocks of 1<<shift bytes, if it has
// none itself. If there is none to be had, it returns a block of another shard's run, and
// whether that is zero.
func (p *Pool) refill(current *atomic.Pointer[run], shift int) (stolen unsafe.Pointer, zero bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, false, ErrClosed
	}
	if r := current.Load(); r != nil && !p.exhausted(r) {
		return nil, false, nil // a block was freed meanwhile, or another goroutine was here
	}
	current.Store(nil)
	p.shed(nil) // what is live now may be what was kept in its stead
	r := p.popPartial(shift)
	if r == nil && runBlocks(shift) == 1 {
		r = p.adopt(shift)
	}
	if r == nil {
		var err error
		if r, err = p.carve(shift); err != nil {
			if r = p.popPartial(shift); r == nil { // one that another shard has left
				if ptr, zero := p.steal(shift); ptr != nil {
					return ptr, zero, nil
				}
				return nil, false, fmt.Errorf("%w: %w", ErrOutOfMemory, err)
			}
		}
	}
	current.Store(r)
	return nil, false, nil
}

// exhausted reports whether r has no free block, and if so marks it as full, until one
// is freed. p.mu is held.
func (p *Pool) exhausted(r *run) bool {
	if r.free.Load() != 0 {
		return false
	}
	// Say that r is full before looking again: a free at the same time is either seen
	// here, or sees that r is full. (qemu does not keep a Store of arm64 before a Load.)
	r.full.Swap(true)
	if r.free.Load() != 0 {
		r.full.Store(false)
		return false
	}
	p.report(r)
	p.demand(r)
	return true
}

// adopt takes the current run of a shard that is not using its one block: large blocks cost more than the lock does.
func (p *Pool) adopt(shift int) *run {
	for i := range p.shards {
		current := &p.shards[i].current[shift-minPoolShift]
		if r := current.Load(); r != nil && r.free.Load() != 0 {
			current.Store(nil)
			return r
		}
	}
	return nil
}

// steal takes a block from the current runs of other shards, as a last resort.
func (p *Pool) steal(shift int) (stolen unsafe.Pointer, zero bool) {
	for i := range p.shards {
		if r := p.shards[i].current[shift-minPoolShift].Load(); r != nil {
			if ptr, zero := r.take(); ptr != nil {
				return ptr, zero
			}
		}
	}
	return nil, false
}

// pushPartial and popPartial keep the list of runs that have free blocks and are no
// shard's current one. p.mu is held.
func (p *Pool) pushPartial(r *run) {
	head := &p.partial[int(r.shift)-minPoolShift]
	r.prev, r.next, r.listed = nil, *head, true
	if r.next != nil {
		r.next.prev = r
	}
	*head = r
}

func (p *Pool) popPartial(shift int) *run {
	for r := p.partial[shift-minPoolShift]; r != nil; r = p.partial[shift-minPoolShift] {
		p.unlist(r)
		if !p.exhausted(r) { // by a goroutine that found it when it was current
			return r
		}
	}
	return nil
}

func (p *Pool) unlist(r *run) {
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		p.partial[int(r.shift)-minPoolShift] = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	}
	r.prev, r.next, r.listed = nil, nil, false
}
