package region

import "sync/atomic"

// maxChildren is how many children a region keeps numbers of. What others do is in its own alone.
const maxChildren = 8

// children are those that have operated in a region, in the order in which they came. A name is
// nil until it is needed, and stays what it is from then on.
type children [maxChildren]atomic.Pointer[string]

// A share is what a child has done, in the cell of one processor.
type share struct{ in, out atomic.Int64 }

// child returns the number of the child of a name, -1 for nil and if there is no room for another.
func (r *Region) child(name *string) int {
	if name == nil {
		return -1
	}
	list := &r.withMore().children
	for i := range list {
		has := list[i].Load()
		if has == nil {
			if list[i].CompareAndSwap(nil, name) {
				return i
			}
			has = list[i].Load()
		}
		if has == name || *has == *name {
			return i
		}
	}
	return -1
}

// A Share is what a child has allocated and freed.
type Share struct {
	Name                       string
	AllocatedBytes, FreedBytes int64
}

// Shares returns what children have done, in the order in which they came.
func (r *Region) Shares() []Share {
	list := &r.hasMore().children
	var shares []Share
	for i := range list {
		name := list[i].Load()
		if name == nil {
			break
		}
		s := Share{Name: *name}
		r.each(func(c *cell) {
			if of := c.shares.Load(); of != nil {
				s.AllocatedBytes += of[i].in.Load()
				s.FreedBytes += of[i].out.Load()
			}
		})
		shares = append(shares, s)
	}
	return shares
}
