package alloctrace

import (
	"fmt"
	"slices"
	"sync"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
)

// A family is what a Proxy knows of its parent and children.
type family struct {
	parent     *state // nil if it is no child
	ownCounter bool   // its counter is a child of the parent's, and ends with it

	mu        sync.Mutex                  // a parent's is locked before a child's
	groups    map[string]*counter.Counter // of children of one name, which stay when these end
	children  []*Proxy                    // in the order in which they were made, also some that are gone
	closing   []*Proxy                    // closed children that are not gone, for blocks of theirs were live
	sweepAt   int                         // how many closing children make Child look again
	goneCount int                         // of children

	isClosing, gone bool // it is among the parent's closing, it has ended; the parent's mu guards both
}

// Child returns a Proxy for one part of the program. It has counts of its own, which are part
// of p's as well, at no cost to either. It has the inner allocator, the hooks and the context of
// p, and the hooks that opts add. Hooks are given its name, see [Attachment]. [WithInner] gives it a limit of its own.
//
// A block should be freed through the Proxy that allocated it. Otherwise the numbers of the
// children are wrong, and only p's are right.
//
// A child lives until it is closed and has no blocks live. Then its numbers become p's own,
// and p keeps nothing of it. It takes a kilobyte until it is busy, see [counter.Counter].
func (p *Proxy) Child(name string, opts ...Option) *Proxy {
	cfg := configOf(opts)
	if cfg.name != "" {
		name = cfg.name
	}
	c := &Proxy{
		inner:   cfg.inner(p.Unwrap()),
		counter: cfg.counter,
		pending: &nothingPending,
		quiet:   p.quiet,
		state: &state{
			name: name, root: p.root, id: p.id, owner: p.owner, below: p.below, waiting: p.waiting,
			family: family{parent: p.state, ownCounter: cfg.counter == nil},
		},
	}
	if len(cfg.wraps) > 0 {
		c.owner, _ = blockalloc.OwnerOf(c.inner)
		_, c.below = viewed(c.inner, func(p *Proxy) *Proxy { return p })
	}
	c.attach(name, slices.Concat(p.hooks, cfg.hooks))
	c.interpose(p.ctx, p.region())

	p.mu.Lock()
	defer p.mu.Unlock()
	if c.ownCounter {
		c.counter = p.group(name).Child()
	}
	if len(p.closing) >= p.sweepAt {
		p.sweep()
	}
	p.children = append(p.children, c)
	if p.closed.Load() {
		c.closed.Store(true)
		p.ended(c)
	}
	return c
}

// maxGroups bounds how many names of children a Proxy keeps numbers of.
const maxGroups = 64

// group returns the Counter of which that of a new child is a child.
func (p *Proxy) group(name string) *counter.Counter {
	g := p.groups[name]
	if g == nil {
		if name == "" || len(p.groups) == maxGroups {
			return p.counter
		}
		if p.groups == nil {
			p.groups = make(map[string]*counter.Counter)
		}
		g = p.counter.Child()
		p.groups[name] = g
	}
	return g
}

// ChildStats returns the numbers of p's children by name. Children of one name are added up,
// those included that have ended, so that totals never step back. Of more than 64 names, the
// later ones lack the children that have ended. Children without a name are left out, and so
// are those that count in a Counter of [WithCounter] once they have ended.
func (p *Proxy) ChildStats() map[string]counter.Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	stats := make(map[string]counter.Stats)
	for name, g := range p.groups {
		stats[name] = g.Stats()
	}
	for _, c := range p.children {
		if c.name != "" && !c.gone && (p.groups[c.name] == nil || !c.ownCounter) {
			stats[c.name] = stats[c.name].Add(c.Stats())
		}
	}
	return stats
}

// Children returns the children of p in the order in which they were made, but for those that
// were closed and have no blocks live any more.
func (p *Proxy) Children() []*Proxy {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweep()
	return slices.DeleteFunc(slices.Clone(p.children), func(c *Proxy) bool { return c.gone })
}

// Close ends allocation through p, its views and its children: calls of Allocate
// and Reallocate that begin after it fail with blockalloc.ErrClosed. Blocks can
// still be freed. If any are live, Close returns an error that wraps [ErrLive] with
// their number and size; it can be called again to see whether that has changed.
// The inner allocator stays open.
func (p *Proxy) Close() error {
	p.close()
	if s := p.Stats(); s.LiveBlocks > 0 {
		return fmt.Errorf("alloctrace: Close of %s: %w: %d of them, %d bytes in all: free them first", p.text(), ErrLive, s.LiveBlocks, s.LiveBytes)
	}
	return nil
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed.Store(true)
	children := slices.Clone(p.children)
	p.mu.Unlock()
	for _, c := range children {
		c.close()
	}
	if parent := p.parent; parent != nil {
		parent.mu.Lock()
		defer parent.mu.Unlock()
		if !parent.ended(p) && !p.isClosing {
			p.isClosing = true
			parent.closing = append(parent.closing, p)
		}
	}
}

// sweep looks for closing children that have no blocks live any more.
func (s *state) sweep() {
	s.closing = slices.DeleteFunc(s.closing, s.ended)
	s.sweepAt = max(16, 2*len(s.closing))
}

// ended ends c, a closed child of s, if it can, and reports whether it is gone.
func (s *state) ended(c *Proxy) bool {
	if c.gone {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sweep()
	for _, g := range c.groups {
		g.Fold()
	}
	if c.ownCounter && !c.counter.Fold() || c.Stats().LiveBlocks > 0 {
		return false
	}
	c.gone = true
	if s.goneCount++; 2*s.goneCount > len(s.children) {
		s.children = slices.DeleteFunc(s.children, func(c *Proxy) bool { return c.gone })
		s.goneCount = 0
	}
	return true
}
