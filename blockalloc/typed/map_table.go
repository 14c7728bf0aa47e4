package typed

import (
	"fmt"
	"sync"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A mapTable is what [Map] and [BytesMap] have in common: all but the keys.
type mapTable struct {
	mem     blockalloc.Allocator // nil after free
	index   mapIndex
	entries mapEntries
	refused refusedBlocks
}

func newMapTable(mem blockalloc.Allocator, size uintptr) mapTable {
	return mapTable{mem: mem, index: emptyIndex(), entries: newMapEntries(size)}
}

// refusedBlocks are blocks of a larger index or clone that failed, which the allocator
// refused to take back. They are offered again before the map grows and when it is
// freed. They have a lock, because goroutines that read a map at once may also clone
// it.
type refusedBlocks struct {
	mu     sync.Mutex
	blocks []blockalloc.Block
}

// giveBack frees blocks and those that were refused before. It keeps what is not taken
// back, and then returns the error, or panics as the allocator does.
func (r *refusedBlocks) giveBack(mem blockalloc.Allocator, blocks ...blockalloc.Block) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range blocks {
		if !b.IsZero() {
			r.blocks = append(r.blocks, b)
		}
	}
	for n := len(r.blocks); n > 0; n-- {
		if err := mem.Free(r.blocks[n-1]); err != nil {
			return err
		}
		r.blocks = r.blocks[:n-1]
	}
	return nil
}

// add makes an entry for a key with hash h and returns its number. The caller writes
// the entry. hash returns the hash of the entry with a number. If add fails, the table
// is unchanged.
func (t *mapTable) add(h uint64, hash func(uint32) uint64) (uint32, error) {
	n := t.entries.live + 1
	if n > t.index.limit || n > t.entries.room {
		least := min(8, 1024/int(min(t.entries.stride, 1024))) // for the first
		if err := t.makeRoom(n, max(n+n/2, min(2*n, 256), least), hash); err != nil {
			return 0, err
		}
	}
	number := t.entries.take()
	t.index.insert(h, number)
	return number, nil
}

// makeRoom makes room for n entries in all. If it needs memory for entries, it asks for
// that of room entries.
func (t *mapTable) makeRoom(n, room int, hash func(uint32) uint64) error {
	if int64(n) > maxEntries {
		return fmt.Errorf("blockalloc/typed: a map of %d entries: %w: a map holds up to %d: use several", n, blockalloc.ErrLimit, int64(maxEntries))
	}
	if n > t.entries.room {
		if err := t.entries.grow(t.mem, room); err != nil {
			return err
		}
	}
	if n > t.index.limit {
		return t.growIndex(n, hash)
	}
	return nil
}

// growIndex makes room in the index for n entries in all, and inserts the present ones.
// If it fails, the index is unchanged.
func (t *mapTable) growIndex(n int, hash func(number uint32) uint64) error {
	if err := t.refused.giveBack(t.mem); err != nil { // so that they do not get more
		return err
	}
	grown, err := newMapIndex(t.mem, n)
	if err != nil {
		return err
	}
	replaced := false
	defer func() {
		if !replaced { // also if the allocator or hash panics or ends the goroutine
			_ = t.refused.giveBack(t.mem, grown.block) // the first error is the one to return
		}
	}()
	for i, ok := t.entries.next(0); ok; i, ok = t.entries.next(i + 1) {
		grown.insert(hash(uint32(i)), uint32(i))
	}
	if err := t.mem.Free(t.index.block); err != nil {
		return err
	}
	t.index, replaced = grown, true
	return nil
}

// remove removes an entry with hash h.
func (t *mapTable) remove(h uint64, number uint32) {
	t.index.remove(h, number)
	t.entries.drop(number)
}

// clear removes all entries and keeps the memory.
func (t *mapTable) clear() {
	if t.entries.live > 0 {
		t.index.clear()
		t.entries.reset()
	}
}

// free gives the memory back. If it fails, the table is unchanged or empty, and free
// can be called again.
func (t *mapTable) free() error {
	if t.mem == nil {
		return nil
	}
	if err := t.entries.free(t.mem); err != nil {
		return err
	}
	if err := t.index.free(t.mem); err != nil {
		return err
	}
	if err := t.refused.giveBack(t.mem); err != nil {
		return err
	}
	t.mem = nil
	return nil
}
