package blockalloc

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/pages"
)

// System is an [Allocator] that maps each block from the operating system: by mmap on
// Unix, by VirtualAlloc on Windows. Blocks are always zeroed, and their size is rounded up to
// whole pages. If the first mapping is not aligned, System reserves twice the alignment
// and trims, so that a block never costs more memory than its size. On other platforms
// (js/wasm, wasip1, plan9) every request is refused with [errors.ErrUnsupported]: use
// [Heap], or [Default], which chooses.
//
// An allocation costs one to six system calls, some microseconds, and a mapping of the
// process: Linux allows 65,530 (vm.max_map_count). There a block that grows is not copied,
// see [System.Reallocate]. System is for few large blocks, and for other allocators to carve. Its table of live blocks makes a foreign free an
// error, and a second one until the address is in use again.
//
// The fields ask for more than plain memory. Each is best effort: a block is granted
// even if an option fails, and [System.Options] reports how often and why. Do not
// change them once System is in use.
//
// The zero System is ready, and must not be copied. Several goroutines may use it at
// once.
type System struct {
	HugePages bool   // ask for huge pages (Linux: transparent huge pages; blocks of 2 MiB and more profit)
	Populate  bool   // touch every page at once, so that later accesses do not fault
	Lock      bool   // keep the block out of swap; bounded by RLIMIT_MEMLOCK or the working set
	NoDump    bool   // leave the block out of core dumps (Linux, FreeBSD)
	Name      string // name the mapping in /proc/self/maps (Linux with CONFIG_ANON_VMA_NAME); at most 79 bytes without brackets

	live registry[struct{}]

	mu      sync.Mutex
	reports [len(systemOptions)]OptionReport
}

var (
	_ Allocator = (*System)(nil)
	_ Owner     = (*System)(nil)
	_ Resizer   = (*System)(nil)
)

// The options of System, in the order in which they are applied to a block: memory is
// named and advised before it is touched.
const (
	optionName = iota
	optionNoDump
	optionHugePages
	optionPopulate
	optionLock
)

var systemOptions = [...]string{"Name", "NoDump", "HugePages", "Populate", "Lock"}

// An OptionReport says how often an option of [System] took effect.
type OptionReport struct {
	Option  string // the field's name
	Taken   int64  // blocks on which it took
	Refused int64  // blocks on which it did not
	Err     error  // why it was refused last; errors.ErrUnsupported where the platform has no such thing
}

var pageSize = pages.Size

// Allocate maps a zeroed block of l.Size bytes, rounded up to whole pages.
func (s *System) Allocate(l Layout) (Block, error) {
	if err := l.Check(); err != nil {
		return Block{}, allocateError("System", l, err)
	}
	if l.Size == 0 {
		return Block{}, nil
	}
	size := roundUp(l.Size, pageSize)
	p, err := pages.Map(size, max(l.Align, pageSize))
	if errors.Is(err, errors.ErrUnsupported) {
		return Block{}, allocateError("System", l, fmt.Errorf("%w on %s/%s: use Heap or Default", err, runtime.GOOS, runtime.GOARCH))
	}
	if err != nil {
		return Block{}, allocateError("System", l, fmt.Errorf("%w: %w", ErrOutOfMemory, err))
	}
	b := grant(p, size, l)
	s.apply(b)
	s.live.add(b, struct{}{})
	return b, nil
}

// Free unmaps b.
func (s *System) Free(b Block) error {
	if b.IsZero() {
		return nil
	}
	live, err := s.live.take(b)
	if err != nil {
		return freeError("System", b, err)
	}
	if err := pages.Unmap(b.ptr, live.size); err != nil {
		s.live.add(live, struct{}{}) // it is still mapped, so nobody else has its address
		return freeError("System", b, err)
	}
	return nil
}

// Owns reports whether b is a live block of this System.
func (s *System) Owns(b Block) bool { return !b.IsZero() && s.live.owns(b) }

// Find returns the live block of this System that holds the byte at p. It takes up to three look-ups for each power of
// two between the sizes of the blocks, and one if p's block is aligned to its size and all are of a size.
func (s *System) Find(p unsafe.Pointer) (Block, bool) { return s.live.find(p) }

// Options returns a report on each option that is set.
func (s *System) Options() []OptionReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	var reports []OptionReport
	for i, name := range systemOptions {
		if s.wants(i) {
			r := s.reports[i]
			r.Option = name
			reports = append(reports, r)
		}
	}
	return reports
}

func (s *System) wants(option int) bool {
	switch option {
	case optionName:
		return s.Name != ""
	case optionNoDump:
		return s.NoDump
	case optionHugePages:
		return s.HugePages
	case optionPopulate:
		return s.Populate
	}
	return s.Lock
}

// apply tries on b the options that were asked for.
func (s *System) apply(b Block) {
	for i := range systemOptions {
		if s.wants(i) {
			s.applyOne(i, b)
		}
	}
}

func (s *System) applyOne(option int, b Block) {
	err := applyOption(option, b.Bytes(), s.Name)
	if option == optionPopulate && errors.Is(err, errors.ErrUnsupported) {
		err = touch(b.Bytes())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := &s.reports[option]; err == nil {
		r.Taken++
	} else {
		r.Refused++
		r.Err = err
	}
}

// touch writes to every page of fresh memory, which is zero.
func touch(mem []byte) error {
	for i := uintptr(0); i < uintptr(len(mem)); i += pageSize {
		mem[i] = 0
	}
	return nil
}
