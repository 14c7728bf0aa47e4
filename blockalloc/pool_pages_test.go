package blockalloc

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"
)

// A PoolCall is a call of a Pool to what its memory comes from.
type PoolCall struct {
	Name string // reserve, commit, purge or release
	Addr uintptr
	Size uintptr
}

// PoolPages is a pageSource for tests. It passes calls on to the real one, checks that
// the Pool keeps the rules, and spoils what is purged, so that a live block there is
// noticed.
type PoolPages struct {
	// Before is called before each call, if it is not nil. If it returns an error, that
	// is the call's. The Pool holds its lock meanwhile.
	Before func(PoolCall) error

	inner pageSource

	mu        sync.Mutex
	arenas    map[uintptr]uintptr // size by address
	committed map[uintptr]uintptr // size by the address of a chunk
	wrong     []error
}

// NewPool returns a Pool over pages.
func NewPool(pages *PoolPages, maxCached int64) *Pool {
	p := &Pool{MaxCached: maxCached}
	pages.inner = p.newPageSource()
	pages.arenas = make(map[uintptr]uintptr)
	pages.committed = make(map[uintptr]uintptr)
	p.pages = pages
	return p
}

// Sizes returns how much is reserved and committed, or what the Pool did wrong.
func (s *PoolPages) Sizes() (reserved, committed int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, size := range s.arenas {
		reserved += int64(size)
	}
	for _, size := range s.committed {
		committed += int64(size)
	}
	return reserved, committed, errors.Join(s.wrong...)
}

func (s *PoolPages) before(name string, p unsafe.Pointer, size uintptr) error {
	if size == 0 || size%pageSize != 0 || uintptr(p)%pageSize != 0 {
		s.report("%s of %d B at %#x: no whole pages", name, size, uintptr(p))
	}
	if s.Before == nil {
		return nil
	}
	return s.Before(PoolCall{name, uintptr(p), size})
}

func (s *PoolPages) report(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrong = append(s.wrong, fmt.Errorf(format, args...))
}

func (s *PoolPages) reserve(size uintptr) (unsafe.Pointer, error) {
	if err := s.before("reserve", nil, size); err != nil {
		return nil, err
	}
	p, err := s.inner.reserve(size)
	if err == nil {
		if uintptr(p)%chunkSize != 0 || size%chunkSize != 0 {
			s.report("%d B reserved at %#x", size, uintptr(p))
		}
		s.mu.Lock()
		s.arenas[uintptr(p)] = size
		s.mu.Unlock()
	}
	return p, err
}

func (s *PoolPages) commit(p unsafe.Pointer, size uintptr) error {
	if err := s.before("commit", p, size); err != nil {
		return err
	}
	if err := s.inner.commit(p, size); err != nil {
		return err
	}
	chunk := uintptr(p) &^ (chunkSize - 1)
	s.mu.Lock()
	start, reserved := s.committed[chunk], s.reserved(chunk)
	s.committed[chunk] = start + size
	s.mu.Unlock()
	if !reserved || uintptr(p)-chunk != start || start+size > chunkSize {
		s.report("commit of %d B at %#x, where %d B of the chunk are committed; reserved: %v", size, uintptr(p), start, reserved)
	}
	return nil
}

// reserved reports whether a chunk is.
func (s *PoolPages) reserved(chunk uintptr) bool {
	for addr, size := range s.arenas {
		if addr <= chunk && chunk < addr+size {
			return true
		}
	}
	return false
}

func (s *PoolPages) purge(p unsafe.Pointer, size uintptr) error {
	if err := s.before("purge", p, size); err != nil {
		return err
	}
	chunk := uintptr(p) &^ (chunkSize - 1)
	s.mu.Lock()
	committed := s.committed[chunk]
	s.mu.Unlock()
	if uintptr(p)-chunk+size > committed {
		s.report("purge of %d B at %#x, where %d B of the chunk are committed", size, uintptr(p), committed)
		return nil
	}
	for i := uintptr(0); i < size; i += max(pageSize, size/64) { // in each block
		*(*uint64)(unsafe.Add(p, i)) = 0xdbdbdbdbdbdbdbdb
	}
	return s.inner.purge(p, size)
}

func (s *PoolPages) release(p unsafe.Pointer, size uintptr) error {
	if err := s.before("release", p, size); err != nil {
		return err
	}
	s.mu.Lock()
	known := s.arenas[uintptr(p)]
	if known == size {
		delete(s.arenas, uintptr(p))
		for chunk := uintptr(p); chunk < uintptr(p)+size; chunk += chunkSize {
			delete(s.committed, chunk)
		}
	}
	s.mu.Unlock()
	if known != size {
		s.report("release of %d B at %#x, where %d B were reserved", size, uintptr(p), known)
		return nil
	}
	return s.inner.release(p, size)
}
