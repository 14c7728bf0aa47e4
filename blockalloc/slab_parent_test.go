package blockalloc_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// A slabParent has memory of alloctest, knows what is live, and can be set to refuse.
type slabParent struct {
	*alloctrace.Proxy
	mu                sync.Mutex
	live              map[blockalloc.Block]bool
	allocates         int  // calls so far
	limit             int  // of live blocks; zero for none
	failAt            int  // which call of Allocate fails; zero for none
	failFree          bool // every Free fails
	failReallocate    bool // every Reallocate fails
	larger            uintptr
	reallocated, size int
}

var errSlabInjected = errors.New("injected")

func newSlabParent(t testing.TB) *slabParent { return slabParentOf(alloctest.New(t)) }

func slabParentOf(mem *alloctrace.Proxy) *slabParent {
	return &slabParent{Proxy: mem, live: make(map[blockalloc.Block]bool)}
}

func (p *slabParent) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.allocates++
	if p.allocates == p.failAt {
		return blockalloc.Block{}, errSlabInjected
	}
	if p.limit > 0 && len(p.live) >= p.limit {
		return blockalloc.Block{}, blockalloc.ErrOutOfMemory
	}
	l.Size += p.larger
	b, err := p.Proxy.Allocate(l)
	if err == nil {
		p.live[b] = true
		p.size += int(b.Size())
	}
	return b, err
}

func (p *slabParent) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reallocated++
	if p.failReallocate {
		return b, errSlabInjected
	}
	n, err := p.Proxy.Reallocate(b, size)
	if err == nil {
		delete(p.live, b)
		p.live[n] = true
		p.size += int(n.Size()) - int(b.Size())
	}
	return n, err
}

func (p *slabParent) Free(b blockalloc.Block) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failFree {
		return errSlabInjected
	}
	if p.live[b] {
		delete(p.live, b)
		p.size -= int(b.Size())
	}
	return p.Proxy.Free(b)
}

// blocks returns how many of its blocks are live.
func (p *slabParent) blocks() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.live)
}
