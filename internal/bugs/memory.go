package bugs

import (
	"sync"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// Memory is an allocator that uses nothing twice and leaves room around each block, so
// that a bug planted there harms nobody. The zero Memory is ready; it may be used by
// several goroutines at once.
type Memory struct {
	mu    sync.Mutex
	arena []byte
	used  int
}

var _ blockalloc.Allocator = (*Memory)(nil)

const (
	arenaSize = 256 << 10
	room      = 2 * pageSize
)

// Allocate fails when the arena is used up, after some ten blocks.
func (m *Memory) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.arena == nil {
		m.arena = make([]byte, arenaSize)
	}
	arena := unsafe.Pointer(unsafe.SliceData(m.arena))
	start := m.used + room
	start += int(-(uintptr(arena) + uintptr(start)) & (l.Align - 1))
	end := start + int(l.Size)
	if end+room > arenaSize {
		return blockalloc.Block{}, blockalloc.ErrOutOfMemory
	}
	m.used = end
	return blockalloc.NewBlock(unsafe.Add(arena, start), l.Size, l)
}

// Reallocate always moves.
func (m *Memory) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	l := b.Layout()
	l.Size = size
	n, err := m.Allocate(l)
	if err != nil {
		return b, err
	}
	copy(n.Bytes(), b.Bytes())
	return n, nil
}

// Free does nothing.
func (m *Memory) Free(blockalloc.Block) error { return nil }
