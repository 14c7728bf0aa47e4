package wazeromem

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
)

const page = 64 << 10 // of WebAssembly

// A memory is one guest's. It is freed once it is closed and no use of it is under way.
type memory struct {
	of    *Allocator
	name  string
	child *alloctrace.Proxy

	capacity, max uint64

	mu       sync.Mutex
	given    bool             // to wazero
	block    blockalloc.Block // empty until wazero has asked for the minimum, and if there is no memory
	refusal  error            // why the minimum was refused
	module   api.Module       // nil before it is instantiated, and if that is not by Instantiate
	uses     []*use           // under way, in the order in which they began
	isClosed bool             // nobody may use it any more
	isFreed  bool
}

var (
	_ experimental.LinearMemory    = (*memory)(nil)
	_ experimental.MemoryAllocator = (*memory)(nil)
)

// A use is a call of Do, Instantiate or Close.
type use struct {
	ctx  context.Context
	view *alloctrace.Proxy // nil until it is needed
}

// Allocate returns m itself, to the module that m is made for. Its start function may instantiate others with the same
// context, and they have memories of their own.
func (m *memory) Allocate(capacity, max uint64) experimental.LinearMemory {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.given {
		return m.of.Allocate(capacity, max)
	}
	m.given, m.capacity, m.max = true, capacity, max
	return m
}

// Reallocate returns size bytes, nil if they were refused.
func (m *memory) Reallocate(size uint64) []byte {
	buf, err := m.reallocate(size)
	m.of.report(err)
	return buf
}

// reallocate returns an error only if nobody should have asked.
func (m *memory) reallocate(size uint64) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.block
	var err error
	switch {
	case m.isFreed:
		return nil, fmt.Errorf("wazeromem: memory.grow to %d B in guest %q: %w: call it by Guest.Do, which keeps its memory", size, m.name, blockalloc.ErrClosed)
	case m.max == 0 && size == 0: // it never has a page
		return []byte{}, nil
	case b.IsZero():
		want := max(size, 1) // a shared memory has its address from the beginning, even if it has no pages yet
		if !m.of.inPlace {
			want = max(want, m.capacity)
		}
		b, err = m.allocate(want)
		m.refusal = err
	case size > uint64(b.Size()):
		b, err = m.grow(size)
	}
	if err != nil {
		return nil, nil
	}
	m.block = b
	return b.Bytes()[:size:size], nil
}

func (m *memory) allocate(size uint64) (blockalloc.Block, error) {
	if size > uint64(^uintptr(0)) {
		return blockalloc.Block{}, fmt.Errorf("%w: the guest's memory has %d B, more than this platform's addresses", blockalloc.ErrOutOfMemory, size)
	}
	return m.proxy().Allocate(blockalloc.Layout{Size: uintptr(size), Align: page, Zeroed: true})
}

// grow resizes the block to size bytes in place if that can be done.
func (m *memory) grow(size uint64) (blockalloc.Block, error) {
	if size > uint64(^uintptr(0)) {
		return m.block, blockalloc.ErrOutOfMemory
	}
	mem := m.proxy()
	b, err := mem.Resize(m.block, uintptr(size))
	if errors.Is(err, blockalloc.ErrWouldMove) {
		return mem.Reallocate(m.block, uintptr(size))
	}
	return b, err
}

// proxy returns the child in the context of the use that began last.
func (m *memory) proxy() *alloctrace.Proxy {
	if len(m.uses) == 0 {
		return m.child
	}
	u := m.uses[len(m.uses)-1]
	if u.view == nil {
		u.view = m.child.WithContext(u.ctx)
	}
	return u.view
}

// Free is called by wazero when it closes the module, and when it closes another one that imports the memory: that is
// passed over.
func (m *memory) Free() {
	m.of.report(m.close(false))
}

// close has the memory freed once no use of it is under way. Unless forced, it does nothing while the module is open.
func (m *memory) close(force bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !force && m.module != nil && !m.module.IsClosed() {
		return nil
	}
	m.isClosed = true
	if len(m.uses) > 0 {
		return nil
	}
	return m.free()
}

// begin begins a use.
func (m *memory) begin(ctx context.Context) (*use, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isClosed || m.module != nil && m.module.IsClosed() {
		return nil, fmt.Errorf("guest %q: %w", m.name, blockalloc.ErrClosed)
	}
	u := &use{ctx: ctx}
	m.uses = append(m.uses, u)
	return u, nil
}

// end ends a use.
func (m *memory) end(u *use) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var err error
	if m.isClosed && len(m.uses) == 1 {
		err = m.free() // in the context of u
	}
	i := slices.Index(m.uses, u)
	m.uses = slices.Delete(m.uses, i, i+1)
	return err
}

// free frees the memory, unless it is freed. If that fails, the next call tries again.
func (m *memory) free() error {
	if m.isFreed {
		return nil
	}
	if err := m.proxy().Free(m.block); err != nil {
		return fmt.Errorf("wazeromem: closing guest %q: %w", m.name, err)
	}
	m.block, m.isFreed = blockalloc.Block{}, true
	return m.child.Close()
}
