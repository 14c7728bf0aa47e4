package history

import (
	"encoding/binary"
	"time"

	"github.com/alloctrace/alloctrace/exporters/recording"
)

// An Amount is how many blocks, and their granted bytes.
type Amount struct {
	Blocks int64 `json:"blocks"`
	Bytes  int64 `json:"bytes"`
}

func (a *Amount) add(blocks, bytes int64) {
	a.Blocks += blocks
	a.Bytes += bytes
}

// Sub returns a less b.
func (a Amount) Sub(b Amount) Amount { return Amount{a.Blocks - b.Blocks, a.Bytes - b.Bytes} }

// A Site is a place that allocates: a stack, and the Proxy and the child that were asked. What Reallocate returns is a new
// block, of the stack that called it.
type Site struct {
	Proxy string            `json:"proxy,omitempty"`
	Child string            `json:"child,omitempty"`
	Stack []recording.Frame `json:"stack"` // the innermost call first; empty if it is not known

	Live      Amount `json:"live"`
	Allocated Amount `json:"allocated"`
	Freed     Amount `json:"freed"` // without those whose release is not in the recording

	// Longest is the longest life of a block that was released, in nanoseconds.
	Longest time.Duration `json:"longest_ns"`

	kept   Amount // live, when epoch was that of the History
	epoch  int64
	number int // in History.sites
	owner  *owner
}

// An owner is a Proxy, or a child of it.
type owner struct {
	Owner
	seen bool // one of its events was counted
}

// sites finds the Site of an event.
type sites struct {
	list   []*Site
	byName map[string]*Site
	recent map[siteKey]*Site // by the pointer that a segment of the recording has, to be fast
	owners map[ownerKey]*owner
	order  []*owner
	name   []byte
}

type ownerKey struct{ proxy, child string }

type siteKey struct {
	stack *recording.Stack
	ownerKey
}

func newSites() sites {
	return sites{byName: make(map[string]*Site), recent: make(map[siteKey]*Site), owners: make(map[ownerKey]*owner)}
}

// of returns the Site of a stack and an owner.
func (s *sites) of(stack *recording.Stack, by ownerKey) *Site {
	key := siteKey{stack, by}
	if site := s.recent[key]; site != nil {
		return site
	}
	if len(s.recent) > 2*len(s.list)+1024 { // segments that have ended
		clear(s.recent)
	}
	frames := []recording.Frame{} // in JSON an empty list
	if stack != nil {
		frames = stack.Frames
	}
	s.name = s.name[:0]
	s.text(by.proxy)
	s.text(by.child)
	for _, f := range frames {
		s.text(f.Function)
		s.text(f.File)
		s.name = binary.AppendVarint(s.name, int64(f.Line))
	}
	site := s.byName[string(s.name)]
	if site == nil {
		site = &Site{Proxy: by.proxy, Child: by.child, Stack: frames, number: len(s.list), owner: s.owner(by)}
		s.list = append(s.list, site)
		s.byName[string(s.name)] = site
	}
	s.recent[key] = site
	return site
}

func (s *sites) owner(by ownerKey) *owner {
	o := s.owners[by]
	if o == nil {
		o = &owner{Owner: Owner{Proxy: by.proxy, Child: by.child}}
		s.owners[by] = o
		s.order = append(s.order, o)
	}
	return o
}

func (s *sites) text(t string) {
	s.name = append(binary.AppendUvarint(s.name, uint64(len(t))), t...)
}
