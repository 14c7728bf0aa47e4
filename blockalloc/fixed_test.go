package blockalloc_test

import (
	"runtime"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

func newFixed(t testing.TB, buf []byte) *blockalloc.Fixed {
	t.Helper()
	f, err := blockalloc.NewFixed(buf)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestNewFixedRefuses(t *testing.T) {
	for _, buf := range [][]byte{nil, {}, make([]byte, 0, 8)} {
		f, err := blockalloc.NewFixed(buf)
		if want := "blockalloc: NewFixed of an empty buffer: pass a slice with a length of 1 or more"; f != nil || err == nil || err.Error() != want {
			t.Errorf("NewFixed(%v) = %v, %v; want %q", buf, f, err, want)
		}
	}
}

// TestFixedEnds: neither the byte in front of the buffer nor that behind it, which
// the slice's capacity has, is the Fixed's.
func TestFixedEnds(t *testing.T) {
	at := carverTest{t}
	around := borrow(t, 128, 64)
	f := newFixed(t, around.Bytes()[32:96])
	if f.Size() != 64 {
		t.Fatalf("Size() = %d, want 64", f.Size())
	}
	b := at.allocate(f, 64, 1)
	if &b.Bytes()[0] != &around.Bytes()[32] {
		t.Errorf("the first block begins at %#x, want %#x", b.Addr(), around.Addr()+32)
	}
	for _, offset := range []uintptr{0, 31, 96, 127} {
		at.refuses(f, at.part(around, offset, 1), blockalloc.ErrNotOwned)
	}
	at.free(f, b)
	for _, offset := range []uintptr{0, 31, 96, 127} {
		at.refuses(f, at.part(around, offset, 1), blockalloc.ErrNotOwned)
	}
}

// TestFixedAligns: a buffer may begin anywhere.
func TestFixedAligns(t *testing.T) {
	at := carverTest{t}
	buf := borrow(t, 256, 256).Bytes()
	for start := range 64 {
		f := newFixed(t, buf[start:])
		b := at.allocate(f, 16, 64)
		if want := int64(-start & 63); f.Used() != want+16 || b.Addr()&63 != 0 {
			t.Errorf("from byte %d on: %v with %d bytes used, want %d", start, b, f.Used(), want+16)
		}
	}
}

// TestFixedOnALocalArray: the goroutine's stack grows and moves, the buffer does
// not.
func TestFixedOnALocalArray(t *testing.T) {
	at := carverTest{t}
	var buf [4096]byte
	f := newFixed(t, buf[:])
	b := at.allocate(f, 1000, 1024)
	at.fill(b, 1)
	addr := b.Addr()
	deepStack(1000)
	if uintptr(b.Pointer()) != addr {
		t.Error("the block has moved")
	}
	at.filled(b, 1000, 1)
	at.allocate(f, 1000, 1024) // checks the alignment
}

//go:noinline
func deepStack(n int) byte {
	var frame [1024]byte
	if n > 0 {
		frame[n%1024] = deepStack(n - 1)
	}
	return frame[n*7%1024]
}

// TestFixedKeepsItsBuffer: neither the Fixed nor a block of it lets the buffer go.
func TestFixedKeepsItsBuffer(t *testing.T) {
	for name, keep := range map[string]func(*blockalloc.Fixed, blockalloc.Block) any{
		"the Fixed": func(f *blockalloc.Fixed, _ blockalloc.Block) any { return f },
		"a block":   func(_ *blockalloc.Fixed, b blockalloc.Block) any { return b },
	} {
		gone := make(chan struct{})
		collect := func() bool {
			runtime.GC()
			select {
			case <-gone:
				return true
			default:
				return false
			}
		}
		build := func() any {
			buf := new([1 << 16]byte)
			runtime.AddCleanup(buf, func(gone chan struct{}) { close(gone) }, gone)
			f := newFixed(t, buf[:])
			carverTest{t}.allocate(f, 100, 8)
			return keep(f, carverTest{t}.allocate(f, 100, 8))
		}
		func() {
			kept := build()
			for range 3 {
				if collect() {
					t.Errorf("the buffer was collected while %s was held", name)
				}
			}
			runtime.KeepAlive(kept)
		}()
		for !t.Failed() && !collect() { // and now it goes: the test sees what it claims to see
			runtime.Gosched()
		}
	}
}
