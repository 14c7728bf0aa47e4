package blockalloc_test

import (
	"errors"
	"math/bits"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

func TestSystemElsewhere(t *testing.T) {
	if hasSystem {
		return
	}
	_, err := new(blockalloc.System).Allocate(blockalloc.BlockLayout(4096))
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "use Heap or Default") {
		t.Errorf("Allocate: error %v, want ErrUnsupported with the remedy", err)
	}
}

// TestSystemRoundsToPages: granted is whole pages, and a reallocation within the
// last page stays where it is.
func TestSystemRoundsToPages(t *testing.T) {
	if !hasSystem {
		return
	}
	var s blockalloc.System
	b, err := s.Allocate(blockalloc.Layout{Size: 5000, Align: 64})
	if err != nil {
		t.Fatal(err)
	}
	if b.Size() < 5000 || b.Size()%4096 != 0 || b.Align() != 64 {
		t.Errorf("Allocate of 5000 B aligned to 64 = %v", b)
	}
	if n, err := s.Reallocate(b, b.Size()); err != nil || n.Addr() != b.Addr() || n.Layout() != b.Layout() || n.Requested() != b.Size() {
		t.Errorf("Reallocate within the last page = %v, %v; want %v", n, err, b)
	}
	if err := s.Free(b); err != nil {
		t.Fatal(err)
	}
}

// TestLargestBlock: the largest size that is a valid layout is served or refused,
// with the strictest alignments too.
func TestLargestBlock(t *testing.T) {
	largest := ^uintptr(0) >> 16 // 48 bits
	if bits.UintSize == 32 {
		largest = 1<<31 - 1<<16 - 1
	}
	if err := (blockalloc.Layout{Size: largest + 1, Align: 1}).Check(); !errors.Is(err, blockalloc.ErrBadLayout) {
		t.Errorf("Check of %d bytes: error %v, want ErrBadLayout", largest+1, err)
	}
	for name, a := range map[string]blockalloc.Allocator{"Heap": &blockalloc.Heap{}, "Default": blockalloc.Default()} {
		for _, align := range []uintptr{1, 1 << 20, 1 << 30} {
			b, err := a.Allocate(blockalloc.Layout{Size: largest, Align: align})
			if err != nil {
				if !errors.Is(err, blockalloc.ErrOutOfMemory) {
					t.Errorf("%s: error %v, want ErrOutOfMemory", name, err)
				}
				continue
			}
			if n := uintptr(len(b.Bytes())); n < largest || n != b.Size() || b.Addr()%align != 0 {
				t.Errorf("%s: %v has %d bytes, want %d", name, b, n, largest)
			}
			if err := a.Free(b); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestConcurrentDoubleFree: of many that free one block at once, one succeeds.
func TestConcurrentDoubleFree(t *testing.T) {
	for name, a := range map[string]blockalloc.Allocator{"Heap": &blockalloc.Heap{}, "Default": blockalloc.Default()} {
		t.Run(name, func(t *testing.T) {
			for range 200 {
				b, err := a.Allocate(blockalloc.BlockLayout(4096))
				if err != nil {
					t.Fatal(err)
				}
				var freed atomic.Int64
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() {
						err := a.Free(b)
						if err == nil {
							freed.Add(1)
						} else if !errors.Is(err, blockalloc.ErrDoubleFree) {
							t.Errorf("Free: error %v, want ErrDoubleFree", err)
						}
					})
				}
				wg.Wait()
				if n := freed.Load(); n != 1 {
					t.Fatalf("%d of 4 frees of one block succeeded, want 1", n)
				}
			}
		})
	}
}

// TestSystemOptions asks for everything. Each option must say what became of it,
// and the block must be good either way.
func TestSystemOptions(t *testing.T) {
	if !hasSystem {
		return
	}
	s := &blockalloc.System{HugePages: true, Populate: true, Lock: true, NoDump: true, Name: "alloctrace test"}
	b, err := s.Allocate(blockalloc.BlockLayout(64 << 10))
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(b.Bytes(), func(v byte) bool { return v != 0 }) {
		t.Error("the block is not zeroed")
	}
	reports := s.Options()
	if len(reports) != 5 {
		t.Fatalf("%d reports, want 5: %+v", len(reports), reports)
	}
	for _, r := range reports {
		if r.Taken+r.Refused != 1 || (r.Refused == 1) != (r.Err != nil) {
			t.Errorf("report %+v; want one block, taken or refused with an error", r)
		}
		if r.Option == "Populate" && r.Taken != 1 {
			t.Errorf("Populate works everywhere: %+v", r)
		}
		t.Logf("%s/%s: %+v", runtime.GOOS, runtime.GOARCH, r)
	}
	if err := s.Free(b); err != nil {
		t.Fatal(err)
	}
	if got := new(blockalloc.System).Options(); len(got) != 0 {
		t.Errorf("reports without options: %+v", got)
	}
}
