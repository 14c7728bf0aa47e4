package debugpage

import (
	"math/rand/v2"
	"net/http/httptest"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/internal/page"
	"github.com/alloctrace/alloctrace/exporters/internal/pagemap"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// inMemory asks the kernel by another system call whether a page is in memory.
func inMemory(t *testing.T, page uintptr) bool {
	t.Helper()
	var is [1]byte
	if _, _, err := syscall.Syscall(syscall.SYS_MINCORE, page, pagemap.PageSize, uintptr(unsafe.Pointer(&is))); err != 0 {
		t.Fatalf("mincore(%#x): %v", page, err)
	}
	return is[0]&1 != 0
}

// TestIdleHasMemory: what is free in a Slab and in the Pool below it is idle where the kernel has memory behind it, and clean elsewhere, to the byte.
func TestIdleHasMemory(t *testing.T) {
	memory := openMemory()
	memory.close()
	if memory.pages == nil {
		t.Skip("the kernel does not say which pages have memory, as under qemu: run it on Linux itself")
	}
	pool := new(blockalloc.Pool)
	slab, err := blockalloc.NewSlab(pool, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	profile := heapprofile.New(heapprofile.Options{Rate: 1})
	mem := alloctrace.Wrap(slab, alloctrace.WithHooks(profile))
	r := rand.New(rand.NewPCG(18, 2))
	sizes := []uintptr{24, 128, 1000, 5000, 8 << 10, 100 << 10}
	var live []blockalloc.Block
	for i := range 6000 {
		b, err := mem.Allocate(blockalloc.Layout{Size: sizes[r.IntN(len(sizes))], Align: 8})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			// Else there may be memory for all. The kernel may not know it, or have no huge pages.
			_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, b.Addr()&^(64<<10-1), 64<<10, unix.MADV_NOHUGEPAGE)
		}
		if i%3 == 0 {
			b.Bytes()[r.IntN(int(b.Size()))] = 1
		}
		live = append(live, b)
		if i%4 == 3 { // some of which were touched
			at := r.IntN(len(live))
			if err := mem.Free(live[at]); err != nil {
				t.Fatal(err)
			}
			live[at] = live[len(live)-1]
			live = live[:len(live)-1]
		}
	}
	defer func() {
		for _, b := range live {
			if err := mem.Free(b); err != nil {
				t.Error(err)
			}
		}
		if err := slab.Close(); err != nil {
			t.Error(err)
		}
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	}()
	server := httptest.NewServer(Handler(Options{}, mem))
	defer server.Close()
	m := get[page.Map](t, server.URL, "/api/map")
	if len(m.Allocators) != 2 {
		t.Fatalf("the map is of %d allocators, want 2", len(m.Allocators))
	}
	used := make(map[uintptr]int64) // bytes of each page that are in live blocks
	use := func(addr, size uintptr) {
		for at := addr &^ (pagemap.PageSize - 1); at < addr+size; at += pagemap.PageSize {
			used[at] = min(int64(pagemap.PageSize), used[at]+int64(min(at+pagemap.PageSize, addr+size)-max(at, addr)))
		}
	}
	for _, b := range live {
		use(b.Addr(), b.Size())
	}
	var dirty, clean int64
	for _, a := range m.Allocators {
		for i, addr := range a.Spans.Addr {
			start, want := uintptr(a.AddrMin+addr), int64(0)
			for at := start; at < start+uintptr(a.Spans.Size[i]); at += pagemap.PageSize {
				if inMemory(t, at) {
					want += int64(pagemap.PageSize)
				} else {
					want += used[at]
				}
			}
			want = min(want-(a.Spans.Size[i]-a.Spans.Free[i]), a.Spans.Dirty[i]) // live bytes are used or have memory; what the Pool has given back is no more
			if a.Kind == "Slab" && a.Spans.Dirty[i] != want || a.Spans.Dirty[i] > a.Spans.Free[i] {
				t.Errorf("%s: of a span of %d bytes, %d are free, and %d of them idle, want %d", a.Name, a.Spans.Size[i], a.Spans.Free[i], a.Spans.Dirty[i], want)
			}
			dirty, clean = dirty+a.Spans.Dirty[i], clean+a.Spans.Free[i]-a.Spans.Dirty[i]
		}
		for i, addr := range a.Spans.Addr { // of the next one this is in use
			use(uintptr(a.AddrMin+addr), uintptr(a.Spans.Size[i]))
		}
	}
	if dirty == 0 || clean == 0 {
		t.Errorf("%d bytes are idle, and %d clean: the test shows nothing", dirty, clean)
	}
}
