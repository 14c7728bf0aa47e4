package guard_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/guard"
	"github.com/alloctrace/alloctrace/internal/pages"
	"github.com/alloctrace/alloctrace/internal/process"
)

// TestMemory: with as many blocks live as there are slots for, the kernel has no more of the slots in memory than
// Stats says, which is within the bound, and as few mappings as the doc comment promises. When they are freed it has none.
func TestMemory(t *testing.T) {
	if process.Emulated() {
		t.Log("emulated: the kernel knows the emulator's memory")
		return
	}
	a := newAllocator(t, new(blockalloc.Heap), guard.Options{Rate: 1})
	m := a.Mappings()[0]
	rnd := rand.New(rand.NewPCG(3, 3))
	sizes := []uintptr{1, 3000, pages.Size + 1, 17*pages.Size + 1} // the worst: each leaves nearly a page
	if unsafe.Sizeof(uintptr(0)) == 8 {
		sizes = append(sizes, 300*pages.Size+1)
	}
	var blocks []blockalloc.Block
	for round := range 3 {
		for _, size := range sizes {
			for full := a.Stats().Full; a.Stats().Full == full; {
				b := mustAllocate(t, a, size, 1<<rnd.IntN(10))
				for i := range b.Bytes() {
					b.Bytes()[i] = 1
				}
				blocks = append(blocks, b)
			}
		}
		s := a.Stats()
		resident, used := residentIn(t, m), touched(blocks, m)
		t.Logf("round %d: %+v; %d bytes are resident, of them %d in pages of blocks", round, s, resident, used)
		if s.Memory > 1<<20 || s.LiveBlocks < int64(s.Slots)/3 {
			t.Errorf("%+v, want 1 MiB at most, and most of half the slots live", s)
		}
		if resident > used || used-s.LiveBytes > s.Memory {
			t.Errorf("%d bytes are resident, %d of them in pages of blocks", resident, used)
		}
		if n := mappingsIn(t, m); n > 2*int(s.LiveBlocks)+1 {
			t.Errorf("%d mappings for %d blocks", n, s.LiveBlocks)
		}
		for _, b := range blocks {
			mustFree(t, a, b)
		}
		blocks = nil
		if resident, n := residentIn(t, m), mappingsIn(t, m); resident != 0 || n != 1 {
			t.Errorf("in the end %d bytes are resident, in %d mappings", resident, n)
		}
	}
}

// touched returns how many bytes of pages the guarded ones of blocks lie in.
func touched(blocks []blockalloc.Block, m blockalloc.Mapping) (sum int64) {
	for _, b := range blocks {
		if b.Addr()-m.Addr < m.Size {
			sum += int64(pages.RoundUp(b.Size(), pages.Size))
		}
	}
	return sum
}

// resident returns how many bytes of a's slots are in memory.
func resident(t *testing.T, a *guard.Allocator) (sum int64) {
	t.Helper()
	if process.Emulated() {
		return 0 // the kernel knows the emulator's memory
	}
	for _, m := range a.Mappings() {
		sum += residentIn(t, m)
	}
	return sum
}

// residentIn returns how many bytes of a mapping are in memory.
func residentIn(t *testing.T, m blockalloc.Mapping) (sum int64) {
	t.Helper()
	const step = 1 << 30
	for at := uintptr(0); at < m.Size; at += step {
		size := min(step, m.Size-at)
		in := make([]byte, size/pages.Size)
		_, _, err := unix.Syscall(unix.SYS_MINCORE, m.Addr+at, size, uintptr(unsafe.Pointer(unsafe.SliceData(in))))
		if err != 0 {
			t.Fatal(err)
		}
		for _, v := range in {
			sum += int64(v&1) * int64(pages.Size)
		}
	}
	return sum
}

// mappingsIn returns how many mappings of the kernel's there are in m.
func mappingsIn(t *testing.T, m blockalloc.Mapping) (n int) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var from, to uintptr
		if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err == nil && from < m.Addr+m.Size && to > m.Addr {
			n++
		}
	}
	return n
}
