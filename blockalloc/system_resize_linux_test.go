package blockalloc_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/process"
)

// TestSystemWouldMove: a block grows in place while nothing is mapped behind it, and is moved by Reallocate if something is.
func TestSystemWouldMove(t *testing.T) {
	for _, align := range []uintptr{4096, 64 << 10, 4 << 20} {
		var s blockalloc.System
		// The first half of a block has the other half behind it until that is given back.
		whole := mustAllocate(t, &s, 2<<20, align)
		paint(whole.Bytes(), 1)
		half, err := s.Resize(whole, 1<<20)
		if err != nil || half.Addr() != whole.Addr() || half.Size() != 1<<20 {
			t.Fatalf("Resize(%v, 1 MiB) = %v, %v", whole, half, err)
		}
		end := unsafe.Add(half.Pointer(), half.Size())
		occupied, err := unix.MmapPtr(-1, 0, end, 4096, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_FIXED_NOREPLACE)
		if err != nil || occupied != end {
			t.Fatalf("another thread has mapped what was given back: %v", err)
		}
		for range 2 {
			if n, err := s.Resize(half, 1<<20+1); !errors.Is(err, blockalloc.ErrWouldMove) || n != half {
				t.Errorf("Resize beside another mapping = %v, %v; want %v and ErrWouldMove", n, err, half)
			}
		}
		moved, err := s.Reallocate(half, 1<<20+1)
		if err != nil || moved.Addr() == half.Addr() {
			t.Fatalf("Reallocate = %v, %v", moved, err)
		}
		if err := growingAlone(&s, half, moved, 1<<20+1, 1); err != nil {
			t.Error(err)
		}
		if err := unix.MunmapPtr(occupied, 4096); err != nil {
			t.Error(err)
		}
		mustFree(t, &s, moved)
	}
}

// TestSystemOptionsStay: what is added to a block is treated as the rest of it, in place and elsewhere.
func TestSystemOptionsStay(t *testing.T) {
	if process.Emulated() {
		t.Skip("emulated: the kernel's word on the mapping cannot be read")
	}
	s := &blockalloc.System{HugePages: true, Populate: true, Lock: true, NoDump: true, Name: "alloctrace test"}
	b := mustAllocate(t, s, 64<<10, 64<<10)
	moves := 0
	for size := uintptr(128 << 10); size <= 4<<20; size *= 2 {
		n, err := s.Reallocate(b, size)
		if err != nil {
			t.Fatal(err)
		}
		if n.Addr() != b.Addr() {
			moves++
		}
		b = n
		m := mapping(t, b.Addr()+b.Size()-1)
		flags := strings.Fields(m["VmFlags"])
		for _, r := range s.Options() {
			var takes bool
			switch r.Option {
			case "HugePages":
				takes = slices.Contains(flags, "hg")
			case "Populate":
				takes = isResident(t, b)
			case "Lock":
				takes = slices.Contains(flags, "lo")
			case "NoDump":
				takes = slices.Contains(flags, "dd")
			case "Name":
				takes = strings.Contains(m["line"], "[anon:alloctrace test]")
			}
			if r.Err == nil && !takes {
				t.Errorf("%v has lost the option %+v: the kernel says %v", b, r, m)
			}
		}
	}
	if moves == 0 {
		t.Log("the block has never moved")
	}
	mustFree(t, s, b)
}

// isResident reports whether all pages of b are in memory.
func isResident(t *testing.T, b blockalloc.Block) bool {
	t.Helper()
	in := make([]byte, b.Size()/uintptr(unix.Getpagesize()))
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, b.Addr(), b.Size(), uintptr(unsafe.Pointer(&in[0]))); errno != 0 {
		t.Fatal(errno)
	}
	return !slices.ContainsFunc(in, func(v byte) bool { return v&1 == 0 })
}

// TestSystemSealed: a block that the kernel will not change is not grown, and what was mapped for it is gone. It cannot be
// copied either, for then it would have to be freed.
func TestSystemSealed(t *testing.T) {
	var s blockalloc.System
	b := mustAllocate(t, &s, 4096, 64<<10)
	if _, _, errno := unix.Syscall(unix.SYS_MSEAL, b.Addr(), b.Size(), 0); errno != 0 {
		t.Logf("mappings cannot be sealed here, which takes Linux 6.10 with 64 bits: mseal: %v", errno)
		mustFree(t, &s, b)
		return
	}
	if n, err := s.Resize(b, 1<<20); !errors.Is(err, blockalloc.ErrWouldMove) || !errors.Is(err, unix.EPERM) || n != b || !s.Owns(b) {
		t.Errorf("Resize = %v, %v; want %v, ErrWouldMove and EPERM", n, err, b)
	}
}
