package blockalloc_test

import (
	"errors"
	"math/bits"
	"os"
	"runtime"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
)

// reservedMax leaves room for the suite's blocks where addresses have 32 bits.
const reservedMax = 2<<20 + 62<<20*(bits.UintSize/64)

func TestReservedConforms(t *testing.T) {
	if !hasSystem {
		t.Skip("Reserved does not serve " + runtime.GOOS)
	}
	t.Parallel()
	c := wide
	c.MaxSize = min(c.MaxSize, reservedMax)
	c.New = func(testing.TB) blockalloc.Allocator { return &blockalloc.Reserved{Max: reservedMax} }
	blocktest.Run(t, c)
}

// TestReservedStays: a block keeps its address while it grows to Max, shrinks and grows again. What it gave back is
// zero then.
func TestReservedStays(t *testing.T) {
	if !hasSystem {
		t.Skip("Reserved does not serve " + runtime.GOOS)
	}
	const last = 4 << 20
	r := &blockalloc.Reserved{Max: last}
	for _, align := range []uintptr{64, 64 << 10, 2 << 20} {
		first := mustAllocate(t, r, 1, align)
		b := first
		paint(b.Bytes(), 1)
		for _, size := range []uintptr{1, 64 << 10, 1 << 20, last - 1, last, 3 << 20, 100, 2 << 20, last, 70 << 10} {
			resize := r.Resize
			if size > 1<<20 {
				resize = r.Reallocate
			}
			n, err := resize(b, size)
			if err != nil {
				t.Fatal(err)
			}
			if err := growingAlone(r, b, n, size, 1); err != nil {
				t.Fatal(err)
			}
			if n.Addr() != first.Addr() || n.Requested() != size {
				t.Fatalf("%v became %v, of %d bytes", b, n, n.Requested())
			}
			b = n
		}
		for _, resize := range []func(blockalloc.Block, uintptr) (blockalloc.Block, error){r.Resize, r.Reallocate} {
			if n, err := resize(b, last+1); !errors.Is(err, blockalloc.ErrOutOfMemory) || n != b || painted(b.Bytes(), 1) >= 0 {
				t.Errorf("to more than Max: %v, %v; want %v as it was and ErrOutOfMemory", n, err, b)
			}
		}
		if m := r.Mappings(); len(m) != 1 || m[0] != (blockalloc.Mapping{Addr: b.Addr(), Size: last}) {
			t.Errorf("the mappings are %v", m)
		}
		mustFree(t, r, b)
	}
	if r.String() != "Reserved 4.0 MiB" {
		t.Errorf("%v", r)
	}
}

func TestReservedRefuses(t *testing.T) {
	type request struct{ max, size uintptr }
	requests := []request{{0, 1}, {4096, 4097}, {^uintptr(0), 1}}
	if bits.UintSize == 64 {
		requests = append(requests, request{^uintptr(0) >> 17, 1}) // all the address space that there is
	}
	for _, c := range requests {
		want := blockalloc.ErrOutOfMemory
		if !hasSystem {
			want = errors.ErrUnsupported
		}
		r := &blockalloc.Reserved{Max: c.max}
		b, err := r.Allocate(blockalloc.Layout{Size: c.size, Align: 1})
		if !errors.Is(err, want) || !b.IsZero() {
			t.Errorf("with Max %d, Allocate of %d B = %v, %v; want %v", c.max, c.size, b, err, want)
		}
	}
}

// TestReservedBehindLimit: a Limit counts only what is accessible, to the last page.
func TestReservedBehindLimit(t *testing.T) {
	if !hasSystem {
		t.Skip("Reserved does not serve " + runtime.GOOS)
	}
	const max, page = 1 << 20, 64 << 10
	l := blockalloc.NewLimit(&blockalloc.Reserved{Max: reservedMax}, max)
	b := mustAllocate(t, l, page, page)
	other := mustAllocate(t, l, page, page)
	for size := uintptr(2 * page); size <= max-page; size += page {
		n, err := l.Reallocate(b, size)
		if err != nil || n.Addr() != b.Addr() {
			t.Fatalf("Reallocate(%v, %d) = %v, %v", b, size, n, err)
		}
		b = n
	}
	if n, err := l.Reallocate(b, max); !errors.Is(err, blockalloc.ErrLimit) || n != b || l.Used() != max {
		t.Errorf("beyond the limit: %v, %v, with %d bytes used", n, err, l.Used())
	}
	mustFree(t, l, other)
	b, err := l.Resize(b, max)
	if err != nil || l.Used() != max {
		t.Errorf("with the other freed: %v, with %d bytes used", err, l.Used())
	}
	b, err = l.Resize(b, 1)
	if pageSize := int64(os.Getpagesize()); err != nil || l.Used() != pageSize {
		t.Errorf("shrunk: %v, with %d bytes used", err, l.Used())
	}
	mustFree(t, l, b)
	if l.Used() != 0 {
		t.Errorf("in the end %d bytes are used", l.Used())
	}
}
