package main

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/tracer"
)

// owners is a hook that knows which region allocated each block, so that a leak
// has a name. One lock is enough for blocks of 64 KiB; it keeps a few dozen bytes
// for each address that was ever in use.
type owners struct {
	mu     sync.Mutex
	blocks map[uintptr]owned // by address
}

type owned struct {
	region   string
	size     uintptr
	released bool
}

func newOwners() *owners { return &owners{blocks: make(map[uintptr]owned)} }

// Observe implements alloctrace.Hook.
func (o *owners) Observe(ctx context.Context, e alloctrace.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch e.Kind {
	case alloctrace.Allocated, alloctrace.Reallocated:
		region := "no region"
		if r := tracer.FromContext(ctx); r != nil {
			region = r.Name()
		}
		o.blocks[e.Addr] = owned{region: region, size: e.Size}
	case alloctrace.Freeing, alloctrace.Reallocating:
		o.release(e, true)
	case alloctrace.FreeFailed, alloctrace.ReallocateFailed:
		// The release is taken back, unless the block was not live before it.
		if !errors.Is(e.Err, blockalloc.ErrDoubleFree) && !errors.Is(e.Err, blockalloc.ErrNotOwned) {
			o.release(e, false)
		}
	}
}

func (o *owners) release(e alloctrace.Event, released bool) {
	if b, ok := o.blocks[e.Addr]; ok && b.size == e.Size {
		b.released = released
		o.blocks[e.Addr] = b
	}
}

// A leak is what one region allocated and nobody freed.
type leak struct {
	Region string `json:"region"`
	Blocks int64  `json:"blocks"`
	Bytes  int64  `json:"bytes"`
}

// leaks returns what is live now, by region.
func (o *owners) leaks() []leak {
	o.mu.Lock()
	defer o.mu.Unlock()
	byRegion := make(map[string]leak)
	for _, b := range o.blocks {
		if !b.released {
			l := byRegion[b.region]
			byRegion[b.region] = leak{b.region, l.Blocks + 1, l.Bytes + int64(b.size)}
		}
	}
	leaks := make([]leak, 0, len(byRegion))
	for _, l := range byRegion {
		leaks = append(leaks, l)
	}
	slices.SortFunc(leaks, func(a, b leak) int { return cmp.Compare(a.Region, b.Region) })
	return leaks
}
