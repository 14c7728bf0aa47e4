package typed

import (
	"fmt"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A mapTable is what [Map] and [BytesMap] have in common: all but the keys.
type mapTable struct {
	mem     blockalloc.Allocator // nil after free
	index   mapIndex
	entries mapEntries
}

func newMapTable(mem blockalloc.Allocator, size uintptr) mapTable {
	return mapTable{mem, emptyIndex(), newMapEntries(size)}
}

// add makes an entry for a key with hash h and returns its number. What is in it
// is to be written over. hash returns the hash of the entry with a number. If it
// fails, the table is what it was.
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

// makeRoom makes room for n entries in all, by as much memory for them as room
// entries take.
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
		return t.index.grow(t.mem, n, &t.entries, hash)
	}
	return nil
}

// remove takes out an entry with hash h.
func (t *mapTable) remove(h uint64, number uint32) {
	t.index.remove(h, number)
	t.entries.drop(number)
}

// clear takes all entries out. The memory stays.
func (t *mapTable) clear() {
	if t.entries.live > 0 {
		t.index.clear()
		t.entries.reset()
	}
}

// free gives the memory back. If it fails, the table is what it was or empty, and
// free can be called again.
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
	t.mem = nil
	return nil
}
