package cmem

import (
	"context"
	"fmt"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// IntoC gives b to C: whoever gets the pointer frees it by free(3). For the allocator a, and all that it wraps and all
// hooks, b is freed. a must be the [Malloc] that b is of, or wrap it, as a Proxy or a blockalloc.Limit does.
//
// The error wraps [blockalloc.ErrNotOwned] if b is not of a Malloc that a wraps, and [blockalloc.ErrDoubleFree] if it was
// freed. Then, and if a refuses to free b, it is as live as it was. The empty Block gives nil.
func IntoC(a blockalloc.Allocator, b blockalloc.Block) (unsafe.Pointer, error) {
	if b.IsZero() {
		return nil, nil
	}
	p, err := intoC(a, b)
	if err != nil {
		return nil, fmt.Errorf("cmem: IntoC(%v): %w", b, err)
	}
	return p, nil
}

func intoC(a blockalloc.Allocator, b blockalloc.Block) (unsafe.Pointer, error) {
	mallocs := below(a, nil)
	if len(mallocs) == 0 {
		return nil, fmt.Errorf("%w: %T wraps no cmem.Malloc, or cuts its memory into blocks of its own", blockalloc.ErrNotOwned, a)
	}
	var err error
	for _, m := range mallocs {
		var live blockalloc.Block
		if live, err = m.live.setC(b, true); err != nil {
			continue
		}
		if err = a.Free(b); err != nil {
			_, _ = m.live.setC(live, false)
			return nil, err
		}
		return live.Pointer(), nil
	}
	return nil, err
}

// below appends the Mallocs that a is or wraps.
func below(a blockalloc.Allocator, mallocs []*Malloc) []*Malloc {
	switch a := a.(type) {
	case *Malloc:
		return append(mallocs, a)
	case interface{ Unwrap() blockalloc.Allocator }:
		return below(a.Unwrap(), mallocs)
	case interface{ Unwrap() []blockalloc.Allocator }:
		for _, inner := range a.Unwrap() {
			mallocs = below(inner, mallocs)
		}
	}
	return mallocs
}

// FromC takes size bytes at p over from C, which has allocated them by malloc(3) or one of its kin, and no longer frees them:
// they are a block of a from now on. For a, all that it wraps and all hooks, it is allocated now, in the context ctx. a must
// be a [Malloc], or hand the context of AllocateContext on to one, as a Proxy or a blockalloc.Limit does. A Limit has the call
// wait until there is room, or ctx is done.
//
// If there is an error, p is C's as before. It wraps [blockalloc.ErrBadLayout] if p is nil, size is 0, or C knows of fewer bytes at
// p, [blockalloc.ErrLive] if the memory is of a live block, and [blockalloc.ErrNotOwned] if no Malloc got to see p. What
// is not of C's heap is found out only by chance: to pass such a pointer is an error of the program.
func FromC(ctx context.Context, a blockalloc.Allocator, p unsafe.Pointer, size uintptr) (blockalloc.Block, error) {
	b, err := takeFromC(ctx, a, p, size)
	if err != nil {
		return blockalloc.Block{}, fmt.Errorf("cmem: FromC(%p, %d): %w", p, size, err)
	}
	return b, nil
}

func takeFromC(ctx context.Context, a blockalloc.Allocator, p unsafe.Pointer, size uintptr) (blockalloc.Block, error) {
	from := &handover{p: p, layout: blockalloc.Layout{Size: size, Align: alignOf(p)}}
	if _, err := blockalloc.NewBlock(p, size, from.layout); err != nil {
		return blockalloc.Block{}, err
	}
	b, err := blockalloc.AllocateContext(context.WithValue(ctx, fromC{}, from), a, from.layout)
	if err != nil {
		return b, err
	}
	if from.by == nil || b.Pointer() != p {
		err := fmt.Errorf("%w: %T does not hand the context on to a cmem.Malloc: pass one, or what wraps it", blockalloc.ErrNotOwned, a)
		if back := a.Free(b); back != nil {
			err = fmt.Errorf("%w; then %w", err, back)
		}
		return blockalloc.Block{}, err
	}
	_, err = from.by.live.setC(b, false)
	return b, err
}

// alignOf returns the alignment that p has, no more than that of malloc.
func alignOf(p unsafe.Pointer) uintptr {
	addr := uintptr(p) | maxAlign
	return addr & -addr
}

// maxAlign is the alignment of malloc, for blocks of that size and more.
const maxAlign = 16

// fromC is the key of a context's *handover.
type fromC struct{}

// A handover is what FromC wants of the Malloc below.
type handover struct {
	p      unsafe.Pointer
	layout blockalloc.Layout
	by     *Malloc // which has taken it
}

// take makes the block of a handover. Its memory is C's until FromC knows that nobody above has refused it.
func (m *Malloc) take(from *handover, l blockalloc.Layout) (blockalloc.Block, error) {
	if from.by != nil || l != from.layout {
		return blockalloc.Block{}, allocateError(l, fmt.Errorf("%w: it is not what FromC has, %v: pass FromC what hands blocks on as they are", blockalloc.ErrNotOwned, from.layout))
	}
	if b, ok := m.Find(from.p); ok {
		return blockalloc.Block{}, allocateError(l, fmt.Errorf("%w: %v: C has not allocated it", blockalloc.ErrLive, b))
	}
	granted := usableSize(from.p, l.Size)
	b, err := blockalloc.NewBlock(from.p, granted, l)
	if err != nil {
		return b, allocateError(l, err)
	}
	from.by = m
	m.live.put(entry{block: b, isC: true})
	return b, nil
}
