package ring

import (
	"context"
	"sync"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/internal/stored"
)

// children are the names of child Proxies that a Ring observes, by number. Children of one
// name have one number. Number 0 is that of no child.
type children struct {
	mu      sync.Mutex
	names   []string
	numbers map[string]uint64
	storage stored.Storage // nil if nobody else keeps the names
}

// number returns the number of name, 0 if there are too many names.
func (c *children) number(name string) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.numbers[name]
	if !ok && len(c.names) < 1<<childBits-1 && (c.storage == nil || c.storage.Name(name)) {
		if c.numbers == nil {
			c.numbers = make(map[string]uint64)
		}
		c.names = append(c.names, name)
		n = uint64(len(c.names))
		c.numbers[name] = n
	}
	return n
}

func (c *children) name(number uint64) string {
	if number == 0 {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.names[number-1]
}

// Attach implements [alloctrace.Attacher].
func (r *Ring) Attach(to *alloctrace.Attachment) alloctrace.Hook {
	if to.Child == "" {
		return r
	}
	return &childRing{r, to.Child, r.children.number(to.Child)}
}

// childRing is the part of a Ring for a child Proxy.
type childRing struct {
	ring   *Ring
	name   string
	number uint64 // 0 if there are too many names: then they are kept with the events
}

func (c *childRing) Observe(_ context.Context, e alloctrace.Event, err error) {
	r := c.ring
	rest := packed(e) | c.number<<childShift
	if err != nil || c.number == 0 || needsOverflow(e) {
		rest = r.overflow.keep(e, err, c.name)
	}
	r.observe(uint64(e.Addr), rest, r.now())
}
