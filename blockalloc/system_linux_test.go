package blockalloc_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/internal/process"
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

// TestSystemOptionsTake holds the reports against what the kernel says.
func TestSystemOptionsTake(t *testing.T) {
	s := &blockalloc.System{HugePages: true, Populate: true, Lock: true, NoDump: true, Name: "alloctrace test"}
	b, err := s.Allocate(blockalloc.BlockLayout(4 << 20))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Free(b)
	if process.Emulated() {
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

// virtualAtStart is measure.Virtual for the start of a test. It first gives the Go heap room and starts threads, so that the test
// makes the runtime map neither an arena with its tables nor the stack of a thread and what the C library gives it.
func virtualAtStart(t *testing.T) int64 {
	t.Helper()
	runtime.KeepAlive(make([]byte, 8<<20))
	var threads sync.WaitGroup
	there := make(chan struct{})
	for range runtime.GOMAXPROCS(0) + 4 {
		threads.Add(1)
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			threads.Done()
			<-there
		}()
	}
	threads.Wait()
	close(there)
	debug.FreeOSMemory()
	return measure.Virtual(t)
}

// runtimeMaps is what the Go runtime may map during a test, in bytes: stacks of threads, and an arena of 64 MiB.
const runtimeMaps = 64 << 20

// TestSystemTrims: what is reserved beyond an aligned block is given back, and
// the whole block when it is freed.
func TestSystemTrims(t *testing.T) {
	if process.Emulated() {
		t.Log("emulated: the process's size is that of the emulator")
		return
	}
	const size = 1 << 20
	for name, layouts := range map[string][]blockalloc.Layout{
		"out of line":   {blockalloc.BlockLayout(4096), blockalloc.BlockLayout(size)}, // the page puts the next block out of line
		"never in line": {{Size: size + 4096, Align: size}},                           // nor is the neighbour of an aligned block
	} {
		t.Run(name, func(t *testing.T) {
			var s blockalloc.System
			var held []blockalloc.Block
			var want int64
			before := virtualAtStart(t)
			for range 200 {
				for _, l := range layouts {
					b, err := s.Allocate(l)
					if err != nil {
						t.Fatal(err)
					}
					held = append(held, b)
					want += int64(b.Size())
				}
			}
			if grown := measure.Virtual(t) - before; grown < want || grown > want+runtimeMaps {
				t.Errorf("%d bytes of blocks grew the process by %d bytes", want, grown)
			}
			for _, b := range held {
				if err := s.Free(b); err != nil {
					t.Fatal(err)
				}
			}
			if left := measure.Virtual(t) - before; left > runtimeMaps {
				t.Errorf("after all blocks are freed the process has grown by %d bytes", left)
			}
		})
	}
}

// TestSystemShrinksInPlace: the tail's pages go back to the kernel.
func TestSystemShrinksInPlace(t *testing.T) {
	const blocks, size, small = 200, 1 << 20, 64 << 10
	var s blockalloc.System
	before := virtualAtStart(t)
	for range blocks {
		b, err := s.Allocate(blockalloc.BlockLayout(size))
		if err != nil {
			t.Fatal(err)
		}
		n, err := s.Reallocate(b, small)
		if err != nil || n.Addr() != b.Addr() || n.Layout() != (blockalloc.Layout{Size: small, Align: size}) {
			t.Fatalf("Reallocate(%v, 64 KiB) = %v, %v; want the same address and alignment", b, n, err)
		}
		if err := s.Free(b); !errors.Is(err, blockalloc.ErrNotOwned) {
			t.Errorf("Free of the block as it was: error %v, want ErrNotOwned", err)
		}
		defer func() {
			if err := s.Free(n); err != nil {
				t.Error(err)
			}
		}()
	}
	if process.Emulated() {
		t.Log("emulated: the process's size is that of the emulator")
		return
	}
	if grown := measure.Virtual(t) - before; grown > blocks*small+runtimeMaps {
		t.Errorf("%d bytes of blocks left the process grown by %d bytes", blocks*small, grown)
	}
}
