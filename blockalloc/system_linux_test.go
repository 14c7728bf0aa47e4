package blockalloc_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// mapping returns the lines of /proc/self/smaps on the mapping that holds addr.
func mapping(t *testing.T, addr uintptr) map[string]string {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fields := make(map[string]string)
	inside := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var low, high uintptr
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x ", &low, &high); n == 2 {
			if inside {
				break
			}
			if inside = low <= addr && addr < high; inside {
				fields["size"] = fmt.Sprint(high - low)
				fields["line"] = lines.Text()
			}
			continue
		}
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && inside {
			fields[name] = strings.TrimSpace(value)
		}
	}
	if len(fields) == 0 {
		t.Fatalf("no mapping holds %#x", addr)
	}
	return fields
}

// emulated says that another processor is emulated, whose /proc/self is that of
// the emulator. It hides behind /proc/self/exe, but not behind the thread's.
func emulated() bool {
	exe, err := os.Readlink("/proc/thread-self/exe")
	return err != nil || strings.Contains(exe, "qemu")
}

// TestSystemOptionsTake holds the reports against what the kernel says.
func TestSystemOptionsTake(t *testing.T) {
	s := &blockalloc.System{HugePages: true, Populate: true, Lock: true, NoDump: true, Name: "alloctrace test"}
	b, err := s.Allocate(blockalloc.BlockLayout(4 << 20))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Free(b)
	if emulated() {
		t.Log("emulated: the kernel's word on the mapping cannot be read")
		return
	}
	m := mapping(t, b.Addr())
	flags := strings.Fields(m["VmFlags"])
	has := func(flag string) bool {
		for _, f := range flags {
			if f == flag {
				return true
			}
		}
		return false
	}
	for _, r := range s.Options() {
		var took bool
		switch r.Option {
		case "HugePages":
			took = has("hg")
		case "Populate":
			took = m["Rss"] == "4096 kB"
		case "Lock":
			took = has("lo")
		case "NoDump":
			took = has("dd")
		case "Name":
			took = strings.Contains(m["line"], "[anon:alloctrace test]")
		}
		if took != (r.Taken == 1) {
			t.Errorf("report %+v, but the kernel says %v", r, m)
		}
	}
}

// TestSystemTrims: what is reserved beyond an aligned block is given back, and
// the whole block when it is freed.
func TestSystemTrims(t *testing.T) {
	if emulated() {
		t.Log("emulated: the process's size is that of the emulator")
		return
	}
	var s blockalloc.System
	virtual := func() (pages int64) {
		data, err := os.ReadFile("/proc/self/statm")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscan(string(data), &pages); err != nil {
			t.Fatal(err)
		}
		return pages
	}
	const size, blocks = 1 << 20, 200
	before := virtual()
	held := make([]blockalloc.Block, 0, 2*blocks)
	for range blocks {
		for _, l := range []blockalloc.Layout{blockalloc.BlockLayout(4096), blockalloc.BlockLayout(size)} { // the page puts the next block out of line
			b, err := s.Allocate(l)
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, b)
		}
	}
	const slack = 64 << 20 >> 12 // what the Go runtime may map meanwhile, in pages
	want := int64(blocks * (size + 4096) >> 12)
	if grown := virtual() - before; grown < want || grown > want+slack {
		t.Errorf("%d pages of blocks grew the process by %d pages", want, grown)
	}
	for _, b := range held {
		if err := s.Free(b); err != nil {
			t.Fatal(err)
		}
	}
	if left := virtual() - before; left > slack {
		t.Errorf("after all blocks are freed the process has grown by %d pages", left)
	}
}

// TestSystemShrinksInPlace: the tail's pages go back to the kernel.
func TestSystemShrinksInPlace(t *testing.T) {
	var s blockalloc.System
	b, err := s.Allocate(blockalloc.BlockLayout(1 << 20))
	if err != nil {
		t.Fatal(err)
	}
	n, err := s.Reallocate(b, 64<<10)
	if err != nil || n.Addr() != b.Addr() || n.Size() != 64<<10 {
		t.Fatalf("Reallocate(%v, 64 KiB) = %v, %v; want the same address", b, n, err)
	}
	if err := s.Free(b); !errors.Is(err, blockalloc.ErrNotOwned) {
		t.Errorf("Free of the block as it was: error %v, want ErrNotOwned", err)
	}
	if err := s.Free(n); err != nil {
		t.Fatal(err)
	}
}
