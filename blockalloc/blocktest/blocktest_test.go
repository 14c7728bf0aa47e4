package blocktest_test

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
)

// broken is a Heap with one defect.
type broken struct {
	blockalloc.Heap
	allocate   func(*blockalloc.Heap, blockalloc.Layout) (blockalloc.Block, error)
	reallocate func(*blockalloc.Heap, blockalloc.Block, uintptr) (blockalloc.Block, error)
	free       func(*blockalloc.Heap, blockalloc.Block) error
	owns       func(blockalloc.Block) bool
}

func (b *broken) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if b.allocate != nil {
		return b.allocate(&b.Heap, l)
	}
	return b.Heap.Allocate(l)
}

func (b *broken) Reallocate(old blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if b.reallocate != nil {
		return b.reallocate(&b.Heap, old, size)
	}
	return b.Heap.Reallocate(old, size)
}

func (b *broken) Free(old blockalloc.Block) error {
	if b.free != nil {
		return b.free(&b.Heap, old)
	}
	return b.Heap.Free(old)
}

func (b *broken) Owns(old blockalloc.Block) bool {
	if b.owns != nil {
		return b.owns(old)
	}
	return b.Heap.Owns(old)
}

// defects are named after the subtest that must find them.
func defects() map[string]*broken {
	var given blockalloc.Block
	return map[string]*broken{
		"Alignment": {allocate: func(h *blockalloc.Heap, l blockalloc.Layout) (blockalloc.Block, error) {
			if l.Check() == nil && l.Align > 64 {
				l.Align = 64
			}
			return h.Allocate(l)
		}},
		"NoOverlap": {allocate: func(h *blockalloc.Heap, l blockalloc.Layout) (blockalloc.Block, error) {
			if given.IsZero() || l.Size > given.Size() || l.Align != given.Align() || l.Size == 0 {
				b, err := h.Allocate(l)
				given = b
				return b, err
			}
			return given, nil
		}, free: func(*blockalloc.Heap, blockalloc.Block) error { return nil }},
		"ZeroSize": {free: func(h *blockalloc.Heap, b blockalloc.Block) error {
			if b.IsZero() {
				return blockalloc.ErrNotOwned
			}
			return h.Free(b)
		}},
		"BadLayout": {allocate: func(h *blockalloc.Heap, l blockalloc.Layout) (blockalloc.Block, error) {
			if l.Align == 999 {
				l.Align = 1024
			}
			return h.Allocate(l)
		}},
		"OutOfMemory": {allocate: func(h *blockalloc.Heap, l blockalloc.Layout) (blockalloc.Block, error) {
			if l.Size > 1<<30-1 && l.Check() == nil {
				return blockalloc.Block{}, nil
			}
			return h.Allocate(l)
		}},
		"ReallocateKeepsContent": {reallocate: func(h *blockalloc.Heap, b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
			n, err := h.Reallocate(b, size)
			if err == nil && size > 1 {
				n.Bytes()[min(size, b.Size())-1]++
			}
			return n, err
		}},
		"ReallocateToZero": {reallocate: func(h *blockalloc.Heap, b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
			if size == 0 && h.Owns(b) {
				return blockalloc.Block{}, nil // leaks it
			}
			return h.Reallocate(b, size)
		}},
		"FailedReallocate": {reallocate: func(h *blockalloc.Heap, b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
			n, err := h.Reallocate(b, size)
			if err != nil && h.Owns(b) {
				return n, h.Free(b)
			}
			return n, err
		}},
		"DoubleFree":  {free: func(h *blockalloc.Heap, b blockalloc.Block) error { _ = h.Free(b); return nil }},
		"ForeignFree": {free: func(h *blockalloc.Heap, b blockalloc.Block) error { _ = h.Free(b); return nil }},
		"WrongSizeFree": {free: func(h *blockalloc.Heap, b blockalloc.Block) error {
			if whole, err := blockalloc.FromRaw(b.Pointer(), blockalloc.BlockLayout(4<<10)); err == nil && h.Owns(whole) {
				b = whole
			}
			return h.Free(b)
		}},
		"Owns": {owns: func(b blockalloc.Block) bool { return !b.IsZero() }},
		"Zeroed": {allocate: func(h *blockalloc.Heap, l blockalloc.Layout) (blockalloc.Block, error) {
			b, err := h.Allocate(l)
			if err == nil && l.Size == 64<<10 {
				b.Bytes()[l.Size-1] = 1
			}
			return b, err
		}},
	}
}

// small is a Heap of 64 blocks of up to 1 KiB.
type small struct {
	blockalloc.Heap
	live atomic.Int64
}

func (s *small) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if l.Check() != nil || l.Size == 0 {
		return s.Heap.Allocate(l)
	}
	if l.Size > 1024 || l.Align > 1024 {
		return blockalloc.Block{}, blockalloc.ErrOutOfMemory
	}
	if s.live.Add(1) > 64 {
		s.live.Add(-1)
		return blockalloc.Block{}, blockalloc.ErrOutOfMemory
	}
	return s.Heap.Allocate(l)
}

// Reallocate does not need a place for the new block beside that of the old one.
func (s *small) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if size > 1024 && s.Owns(b) && (blockalloc.Layout{Size: size, Align: b.Align()}).Check() == nil {
		return b, blockalloc.ErrOutOfMemory
	}
	n, err := s.Heap.Reallocate(b, size)
	if err == nil && n.IsZero() {
		s.live.Add(-1)
	}
	return n, err
}

func (s *small) Free(b blockalloc.Block) error {
	err := s.Heap.Free(b)
	if err == nil && !b.IsZero() {
		s.live.Add(-1)
	}
	return err
}

// TestSmallAllocator: the suite asks for no more than what Config says.
func TestSmallAllocator(t *testing.T) {
	blocktest.Run(t, blocktest.Config{
		New:     func(testing.TB) blockalloc.Allocator { return new(small) },
		MaxSize: 1024,
		MaxLive: 64,
		Zeroed:  true,
	})
}

// TestTinyAllocator runs the suite with the least that Config allows.
func TestTinyAllocator(t *testing.T) {
	blocktest.Run(t, blocktest.Config{
		New:     func(testing.TB) blockalloc.Allocator { return new(blockalloc.Heap) },
		MaxSize: 2,
		MaxLive: 2,
		Zeroed:  true,
	})
}

// TestSuiteFindsDefects runs the suite, in processes of its own, over allocators
// that each break one clause of the contract, and expects the clause's subtest to
// say so.
func TestSuiteFindsDefects(t *testing.T) {
	const variable = "ALLOCTRACE_TEST_DEFECT"
	if name := os.Getenv(variable); name != "" {
		blocktest.Run(t, blocktest.Config{
			New:     func(testing.TB) blockalloc.Allocator { return defects()[name] },
			MaxSize: 16 << 20,
			Zeroed:  true,
		})
		return
	}
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		t.Skip("platform cannot start a process: GOOS=" + runtime.GOOS)
	}
	if exe, _ := os.Readlink("/proc/thread-self/exe"); strings.Contains(exe, "qemu") {
		t.Log("emulated: a process cannot start another for the processor that is emulated")
		return
	}
	for name := range defects() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestSuiteFindsDefects$")
			cmd.Env = append(os.Environ(), variable+"="+name)
			out, err := cmd.CombinedOutput()
			if want := "--- FAIL: TestSuiteFindsDefects/" + name + " "; err == nil || !strings.Contains(string(out), want) {
				t.Errorf("the suite passes (%v), want %q:\n%s", err, want, out)
			}
		})
	}
}
