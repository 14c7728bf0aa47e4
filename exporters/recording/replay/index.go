package replay

import (
	"slices"
	"sort"
	"sync"
)

// An index has the addresses of live blocks in order: in chunks, each of which is in order and not empty.
type index struct {
	mu     sync.Mutex
	chunks [][]entry
}

// An entry is a block: its bytes begin at addr and end before end.
type entry struct {
	addr, end uintptr
	operation int
}

// mostEntries is how many a chunk has at most.
const mostEntries = 512

// add adds a block, unless it overlaps another: then it returns that one.
func (x *index) add(e entry) (other entry, overlaps bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.chunks) == 0 {
		x.chunks = append(x.chunks, []entry{e})
		return entry{}, false
	}
	c, i := x.find(e.addr)
	chunk := x.chunks[c]
	next, has := entry{}, false // the block that begins after e, or where e does
	if i < len(chunk) {
		next, has = chunk[i], true
	} else if c+1 < len(x.chunks) {
		next, has = x.chunks[c+1][0], true
	}
	if has && next.addr < e.end {
		return next, true
	}
	if i > 0 && chunk[i-1].end > e.addr {
		return chunk[i-1], true
	}
	chunk = slices.Insert(chunk, i, e)
	x.chunks[c] = chunk
	if len(chunk) > mostEntries {
		half := len(chunk) / 2
		x.chunks = slices.Insert(x.chunks, c+1, slices.Clone(chunk[half:]))
		x.chunks[c] = chunk[:half]
	}
	return entry{}, false
}

// remove removes the block at addr that an operation acquired, if it is there.
func (x *index) remove(addr uintptr, operation int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.chunks) == 0 {
		return
	}
	c, i := x.find(addr)
	if i == len(x.chunks[c]) || x.chunks[c][i].addr != addr || x.chunks[c][i].operation != operation {
		return
	}
	x.chunks[c] = slices.Delete(x.chunks[c], i, i+1)
	if len(x.chunks[c]) == 0 {
		x.chunks = slices.Delete(x.chunks, c, c+1)
	}
}

// find returns the chunk in which a block at addr is or would be, and where in it.
func (x *index) find(addr uintptr) (c, i int) {
	c = max(0, sort.Search(len(x.chunks), func(c int) bool { return x.chunks[c][0].addr > addr })-1)
	i, _ = slices.BinarySearchFunc(x.chunks[c], addr, func(e entry, addr uintptr) int {
		switch {
		case e.addr < addr:
			return -1
		case e.addr > addr:
			return 1
		}
		return 0
	})
	return c, i
}
