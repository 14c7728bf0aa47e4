package heapprofile

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/hidden"
	"github.com/alloctrace/alloctrace/internal/text"
)

// A ForeignFree is a block that was freed or reallocated through another Proxy or child than the
// one that allocated it. The numbers of both are wrong then.
type ForeignFree struct {
	Addr      uintptr `json:"addr"`
	Size      uintptr `json:"size"`                // bytes
	Allocated *Call   `json:"allocated,omitempty"` // nil if no Proxy has that this Profile observes
	Freed     Call    `json:"freed"`
}

// A Call is by whom and through which Proxy a block was allocated or freed.
type Call struct {
	Proxy string  `json:"proxy,omitempty"` // its name, "" if it has none
	Child string  `json:"child,omitempty"` // likewise; "" if it is no child
	Stack []Frame `json:"stack"`           // from the function that called this library outwards, 32 frames at most; see Options.Skip

	shown int // how many of them String shows
}

// maxForeign is how many foreign frees are kept.
const maxForeign = 50

// foreignFrees are the first foreign frees.
type foreignFrees struct {
	all atomic.Int64

	mu   sync.Mutex
	kept []foreignFree
}

// A foreignFree is a ForeignFree whose texts are still to be made.
type foreignFree struct {
	addr      hidden.Addr
	size      uintptr
	by        *part // nil if it is not known
	allocated *stack
	through   *part
	freed     *stack
}

// add adds a release of p's that has succeeded.
func (f *foreignFrees) add(p *part, r *releasing) {
	if f.all.Add(1) > maxForeign {
		return
	}
	free := foreignFree{addr: r.addr, size: r.size, through: p, freed: p.stacks.caller()}
	if r.known {
		free.by, free.allocated = r.by, r.site.stack
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept = append(f.kept, free)
}

func (f *foreignFrees) number() int64 { return f.all.Load() }

// bytes returns what f holds on the Go heap beside itself.
func (f *foreignFrees) bytes() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int64(cap(f.kept)) * int64(unsafe.Sizeof(foreignFree{}))
}

// ForeignFrees returns the first 50 blocks that were freed, or reallocated, through another Proxy
// or child than the one that allocated them: through the parent of a child, or a sibling, too.
// [Stats].ForeignFrees counts them all. Views of one Proxy are the same Proxy.
//
// They can be told only if every block is known: there are none from when the rate was other
// than 1, or a block was Untracked, see [Stats]. A Proxy that has a quiet view, whose blocks are
// not known, has none but those that others have allocated. A release that fails is none, nor is
// what was freed past the Proxies with this Profile. A [hooks.Filter] before the Profile must
// choose by size, or not at all.
func (p *Profile) ForeignFrees() []ForeignFree {
	p.foreign.mu.Lock()
	kept := slices.Clone(p.foreign.kept)
	p.foreign.mu.Unlock()
	var list []ForeignFree
	for _, f := range kept {
		free := ForeignFree{Addr: f.addr.Addr(), Size: f.size, Freed: callOf(f.through, f.freed)}
		if f.by != nil {
			allocated := callOf(f.by, f.allocated)
			free.Allocated = &allocated
		}
		list = append(list, free)
	}
	distinguishFrees(list)
	return list
}

// distinguishFrees sets how many calls the lines of foreign frees show: each call as many as tell it
// from those of other lines.
func distinguishFrees(list []ForeignFree) {
	for _, of := range []func(*ForeignFree) *Call{
		func(f *ForeignFree) *Call { return f.Allocated },
		func(f *ForeignFree) *Call { return &f.Freed },
	} {
		var known []*Call
		var stacks [][]Frame
		for i := range list {
			if c := of(&list[i]); c != nil {
				known, stacks = append(known, c), append(stacks, c.Stack)
			}
		}
		for i, most := range shown(stacks) {
			known[i].shown = most
		}
	}
}

func callOf(p *part, s *stack) Call {
	return Call{text.Name(p.proxy), text.Name(p.child), s.frames(), 0}
}

// String returns a line, for example
//
//	64 B at 0x7f0000400000: allocated through Proxy "db", child "index", by index.New (index.go:17), main.main (main.go:9); freed through Proxy "db" by main.main (main.go:12)
func (f ForeignFree) String() string {
	allocated := "through no Proxy that is observed"
	if f.Allocated != nil {
		allocated = f.Allocated.String()
	}
	return fmt.Sprintf("%s at %#x: allocated %s; freed %s", counter.FormatBytes(int64(f.Size)), f.Addr, allocated, f.Freed)
}

// String returns, for example, `through Proxy "db" by main.main (main.go:12)`.
func (c Call) String() string {
	through := "through a Proxy without a name"
	switch {
	case c.Proxy != "" && c.Child != "":
		through = fmt.Sprintf("through Proxy %q, child %q,", c.Proxy, c.Child)
	case c.Proxy != "":
		through = fmt.Sprintf("through Proxy %q", c.Proxy)
	case c.Child != "":
		through = fmt.Sprintf("through child %q", c.Child)
	}
	if len(c.Stack) == 0 {
		return through + " by unknown calls"
	}
	return through + " by " + calls(c.Stack, c.shown, false)
}

// writeForeign writes the foreign frees of which there are so many.
func writeForeign(to *strings.Builder, list []ForeignFree, all int64) {
	if all == 0 {
		return
	}
	verb, them := "were", "them"
	if all == 1 {
		verb, them = "was", "it"
	}
	fmt.Fprintf(to, "%s %s freed through another Proxy or child than the one that allocated %s, and the numbers of both are wrong:\n", number(all, "block"), verb, them)
	for _, f := range list {
		fmt.Fprintf(to, "  %s\n", f)
	}
	if more := all - int64(len(list)); more > 0 {
		fmt.Fprintf(to, "  and %d more\n", more)
	}
}
