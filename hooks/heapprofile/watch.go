package heapprofile

import (
	"context"
	"time"
)

// A Watcher is called for the blocks that a [Profile] samples and remembers, in the goroutine that
// allocates or frees. The calls for one block come one after the other: Sampled; Freeing when a
// release of it is delivered, and again if that has failed and there is another; Freed when a
// release has succeeded. A block whose release was not observed, and whose address is used again, has
// Freed alone. The Profile holds no lock meanwhile. See alloctrace.Hook for what a Watcher must not do.
type Watcher interface {
	Sampled(ctx context.Context, b *Watched)
	Freeing(ctx context.Context, b *Watched)
	Freed(b *Watched)
}

// A Watched is a block that a [Watcher] was called for. It is not to be changed, but for Value.
type Watched struct {
	Size, Align  uintptr
	Weight       float64 // how many blocks of its size it stands for
	Allocated    time.Time
	Proxy, Child string // whose it is
	Value        any    // the Watcher's, which sets it in Sampled

	site *site
}

// Stack returns where the block was allocated: from the function that asked this library for memory
// outwards, those of Options.Skip left out, 32 frames at most. All blocks of one site share it, and it
// must not be changed. The first call for a site costs some microseconds.
func (w *Watched) Stack() []Frame {
	if f := w.site.stack.named.Load(); f != nil {
		return *f
	}
	f := w.site.stack.frames()
	w.site.stack.named.Store(&f)
	return f
}

// A StackID tells the calls that have allocated a block from others.
type StackID struct{ of *stack }

// StackID returns that of the block's calls.
func (w *Watched) StackID() StackID { return StackID{w.site.stack} }

func (p *part) watch(ctx context.Context, b *block) {
	b.watched = &Watched{
		Size: b.size, Align: 1 << b.align, Weight: b.weight(), Allocated: p.start.Add(b.since),
		Proxy: p.proxy, Child: p.child, site: b.site,
	}
	p.watcher.Sampled(ctx, b.watched)
}

func (p *part) freeing(ctx context.Context, w *Watched) {
	if w != nil {
		p.watcher.Freeing(ctx, w)
	}
}

func (p *part) freed(w *Watched) {
	if w != nil {
		p.watcher.Freed(w)
	}
}

// Watched returns the blocks that are live and watched, in no order.
func (p *Profile) Watched() []*Watched {
	var list []*Watched
	p.live.each(func(_ uintptr, b *block) {
		if b.watched != nil {
			list = append(list, b.watched)
		}
	})
	return list
}
