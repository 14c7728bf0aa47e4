package arrowmem_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/arrowmem"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// allocator is memory.Allocator of arrow-go, and what it asks of a test's own.
type allocator interface {
	Allocate(size int) []byte
	Reallocate(size int, b []byte) []byte
	Free(b []byte)
	AssertSize(t testingT, size int)
}

type testingT = interface {
	Errorf(format string, args ...any)
	Helper()
}

var _ allocator = (*arrowmem.Allocator)(nil)

// hasSystem is whether the platform has memory beside the Go heap.
const hasSystem = runtime.GOOS != "js" && runtime.GOOS != "wasip1" && runtime.GOOS != "plan9"

// eachAllocator calls f with the allocators that programs have below Arrow, and checks that nothing of them is left.
func eachAllocator(t *testing.T, f func(t *testing.T, mem blockalloc.Allocator)) {
	slab := func(t *testing.T, parent blockalloc.Allocator) blockalloc.Allocator {
		s, err := blockalloc.NewSlab(parent, 64<<10)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	}
	pool := func(t *testing.T) blockalloc.Allocator {
		p := new(blockalloc.Pool)
		t.Cleanup(func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
		return p
	}
	of := func(mem blockalloc.Allocator) func(*testing.T) blockalloc.Allocator {
		return func(*testing.T) blockalloc.Allocator { return mem }
	}
	all := map[string]func(t *testing.T) blockalloc.Allocator{
		"Heap":    of(new(blockalloc.Heap)),
		"Default": of(blockalloc.Default()),
		"Pool":    pool,
		"Slab":    func(t *testing.T) blockalloc.Allocator { return slab(t, pool(t)) },
		"Limit":   func(t *testing.T) blockalloc.Allocator { return blockalloc.NewLimit(slab(t, pool(t)), 1<<30) },
		"Locked":  func(t *testing.T) blockalloc.Allocator { return blockalloc.NewLocked(slab(t, pool(t))) },
		"Fallback": func(t *testing.T) blockalloc.Allocator {
			return blockalloc.NewFallback(blockalloc.NewLimit(new(blockalloc.Heap), 64<<10), slab(t, pool(t)))
		},
		"Proxy": func(t *testing.T) blockalloc.Allocator {
			return alloctrace.Wrap(slab(t, pool(t))).Child("part").WithContext(context.Background())
		},
	}
	if hasSystem {
		all["System"] = of(new(blockalloc.System))
	}
	for name, inner := range all {
		t.Run(name, func(t *testing.T) {
			f(t, alloctest.New(t, alloctest.WithAllocator(inner(t))))
		})
	}
	t.Run("debug", func(t *testing.T) { f(t, alloctest.New(t)) })
}

func TestBuffers(t *testing.T) {
	eachAllocator(t, func(t *testing.T, mem blockalloc.Allocator) {
		a := arrowmem.New(mem)
		for _, size := range []int{1, 33, 63, 64, 65, 100, 4096, 4097, 8192, 1 << 17} {
			for range 2 { // the second is of memory that was used
				testBuffer(t, a, size)
			}
		}
	})
}

func testBuffer(t *testing.T, a allocator, size int) {
	t.Helper()
	b := a.Allocate(size)
	wantBuffer(t, b, size, 0, 0)
	fill(b)
	half := b[:size/2]
	grown := a.Reallocate(3*size, half)
	wantBuffer(t, grown, 3*size, size/2, 0xff)
	a.AssertSize(t, 3*size)
	fill(grown)

	shorter := a.Reallocate(size, grown)
	if &shorter[0] != &grown[0] || len(shorter) != size || cap(shorter) != 3*size {
		t.Errorf("Reallocate(%d) of %d bytes: %d bytes with room for %d, at another address %t", size, 3*size, len(shorter), cap(shorter), &shorter[0] != &grown[0])
	}
	again := a.Reallocate(2*size, shorter)
	if &again[0] != &grown[0] || bytes.Count(again, []byte{0xff}) != 2*size {
		t.Errorf("Reallocate(%d) within the capacity lost what was in it", 2*size)
	}
	a.AssertSize(t, 3*size)
	longest := a.Reallocate(7*size, again[:size])
	wantBuffer(t, longest, 7*size, size, 0xff)
	a.AssertSize(t, 7*size)
	a.Free(longest[:0])
	a.AssertSize(t, 0)
}

// wantBuffer checks that b has size bytes, of which so many are of one value and the others zero.
func wantBuffer(t *testing.T, b []byte, size, kept int, value byte) {
	t.Helper()
	if len(b) != size || cap(b) != size {
		t.Errorf("%d bytes, room for %d, want %d", len(b), cap(b), size)
	}
	if addr := uintptr(unsafe.Pointer(unsafe.SliceData(b))); addr%64 != 0 {
		t.Errorf("of %d bytes: address %#x is not aligned", size, addr)
	}
	if n := bytes.Count(b[:kept], []byte{value}); n != kept {
		t.Errorf("of %d bytes: %d of %d were kept", size, n, kept)
	}
	if n := bytes.Count(b[kept:], []byte{0}); n != len(b)-kept {
		t.Errorf("of %d bytes: %d of the %d beyond %d are zero", size, n, len(b)-kept, kept)
	}
}

func fill(b []byte) { fillWith(b, 0xff) }

// fillWith has each byte of b be value, by copies: the race detector takes long for a loop.
func fillWith(b []byte, value byte) {
	if len(b) == 0 {
		return
	}
	b[0] = value
	for n := 1; n < len(b); n *= 2 {
		copy(b[n:], b[:n])
	}
}

func TestEmpty(t *testing.T) {
	mem := alloctest.New(t)
	a := arrowmem.New(mem)
	if b := a.Allocate(0); b == nil || len(b) != 0 || cap(b) != 0 {
		t.Errorf("Allocate(0) = %v, want an empty slice that is not nil", b)
	}
	a.Free(a.Allocate(0))
	a.Free(nil)
	b := a.Reallocate(10, a.Reallocate(0, nil))
	wantBuffer(t, b, 10, 0, 0)
	b = a.Reallocate(0, b)
	if b == nil || len(b) != 0 {
		t.Errorf("Reallocate(0) = %v", b)
	}
	alloctest.AssertLive(t, mem, 0, 0)
	a.Free(b)
	a.Free(a.Reallocate(20, b))
	if s := mem.Stats(); s.Failures() != 0 {
		t.Errorf("%d operations failed", s.Failures())
	}
}

// TestRequest: memory is cleared once, and by the allocator, which knows what is clean.
func TestRequest(t *testing.T) {
	var asked []blockalloc.Layout
	mem := alloctest.New(t, alloctest.WithAllocator(failing.If(new(blockalloc.Heap), func(c failing.Call) bool {
		if c.Op != failing.OpFree {
			asked = append(asked, c.Layout)
		}
		return false
	})))
	a := arrowmem.New(mem)
	a.Free(a.Reallocate(300, a.Allocate(100)))
	want := []blockalloc.Layout{{Size: 100, Align: 64, Zeroed: true}, {Size: 300, Align: 64, Zeroed: true}}
	if fmt.Sprint(asked) != fmt.Sprint(want) {
		t.Errorf("asked for %v, want %v", asked, want)
	}
}

// TestOutOfMemory: it panics with the allocator's error, and the buffer stays.
func TestOutOfMemory(t *testing.T) {
	mem := alloctest.New(t, alloctest.WithAllocator(blockalloc.NewLimit(new(blockalloc.Heap), 1<<20)))
	a := arrowmem.New(mem)
	b := a.Allocate(100)
	fill(b)
	wantPanic(t, "arrowmem: Allocate(2097152): ", func() { a.Allocate(2 << 20) }, blockalloc.ErrOutOfMemory, blockalloc.ErrLimit)
	wantPanic(t, "arrowmem: Reallocate(2097152) of 100 bytes at 0x", func() { a.Reallocate(2<<20, b) }, blockalloc.ErrOutOfMemory, blockalloc.ErrLimit)
	wantPanic(t, "arrowmem: Allocate(", func() { a.Allocate(math.MaxInt) }, blockalloc.ErrBadLayout)
	a.AssertSize(t, 100)
	if bytes.Count(b, []byte{0xff}) != 100 {
		t.Error("the buffer is not as it was")
	}
	a.Free(b)
}

// TestFailures: each operation fails once, and can be repeated.
func TestFailures(t *testing.T) {
	fail := false
	mem := alloctest.New(t, alloctest.WithAllocator(failing.If(new(blockalloc.Heap), func(failing.Call) bool { return fail })))
	a := arrowmem.New(mem)
	failed := func(f func()) {
		t.Helper()
		fail = true
		wantPanic(t, "arrowmem: ", f, failing.ErrInjected)
		fail = false
	}
	failed(func() { a.Allocate(10) })
	a.AssertSize(t, 0)
	b := a.Allocate(10)
	failed(func() { a.Reallocate(20, b) })
	a.AssertSize(t, 10)
	b = a.Reallocate(20, b)
	failed(func() { a.Free(b) })
	failed(func() { a.Reallocate(0, b) })
	a.AssertSize(t, 20)
	a.Free(b)
	a.AssertSize(t, 0)
}

// TestMisuse: a slice that is of no live buffer is refused, whatever the allocator is.
func TestMisuse(t *testing.T) {
	own := func(t *testing.T, mem blockalloc.Allocator) {
		a := arrowmem.New(mem)
		b, other := a.Allocate(1000), a.Allocate(300)
		refused := func(what string, target error, slice []byte) {
			t.Helper()
			wantPanic(t, fmt.Sprintf("arrowmem: Free of %d bytes at 0x", cap(slice)), func() { a.Free(slice) }, target)
			wantPanic(t, fmt.Sprintf("arrowmem: Reallocate(5000) of %d bytes at 0x", cap(slice)), func() { a.Reallocate(5000, slice) }, target)
			a.AssertSize(t, 1300)
			if t.Failed() {
				t.Fatalf("%s is above", what)
			}
		}
		foreign := make([]byte, 2000)
		shift := -int(uintptr(unsafe.Pointer(&foreign[0]))) & 63
		refused("a foreign slice", blockalloc.ErrNotOwned, foreign[shift:shift+100:shift+100])
		refused("a foreign slice that is not aligned", blockalloc.ErrNotOwned, foreign[shift+1:])
		refused("the end of a slice", blockalloc.ErrNotOwned, b[64:])
		refused("a slice without its end", blockalloc.ErrNotOwned, b[:64:64])

		if got := a.Reallocate(1000, b); &got[0] != &b[0] {
			t.Error("what was refused is not as it was")
		}
		a.Free(b)
		a.Free(other)
	}
	eachAllocator(t, func(t *testing.T, mem blockalloc.Allocator) {
		if strings.HasSuffix(t.Name(), "/debug") {
			return // which reports it, see TestDebug
		}
		own(t, mem)
	})
}

// TestReplaced: a slice of a buffer in whose place another one is was freed before.
func TestReplaced(t *testing.T) {
	mem := alloctest.New(t)
	bump, err := blockalloc.NewBump(mem, 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	defer bump.Close()
	a := arrowmem.New(bump)
	b := a.Allocate(1000)
	a.Free(b)
	other := a.Allocate(900)
	if &other[0] != &b[0] {
		t.Fatal("a Bump does not allocate again what was freed last")
	}
	wantPanic(t, "arrowmem: Free of 1000 bytes at 0x", func() { a.Free(b) }, blockalloc.ErrDoubleFree)
	wantPanic(t, "arrowmem: Reallocate(5000) of 1000 bytes at 0x", func() { a.Reallocate(5000, b) }, blockalloc.ErrDoubleFree)
	a.AssertSize(t, 900)
	a.Free(other)
}

// TestDoubleFree: the allocator says so, and its Proxy counts it.
func TestDoubleFree(t *testing.T) {
	eachAllocator(t, func(t *testing.T, mem blockalloc.Allocator) {
		if strings.HasSuffix(t.Name(), "/debug") {
			return
		}
		a := arrowmem.New(mem)
		keep, b := a.Allocate(1000), a.Allocate(1000) // keep has whatever they share stay
		a.Free(b)
		wantPanic(t, "arrowmem: Free of 1000 bytes at 0x", func() { a.Free(b) }, blockalloc.ErrDoubleFree)
		again := blockalloc.ErrDoubleFree
		if strings.HasSuffix(t.Name(), "/Limit") || strings.HasSuffix(t.Name(), "/Fallback") {
			again = blockalloc.ErrNotOwned // they ask who owns the block first
		}
		wantPanic(t, "arrowmem: Reallocate(5000) of 1000 bytes at 0x", func() { a.Reallocate(5000, b) }, again)
		if s := mem.(*alloctrace.Proxy).Stats(); s.FailedFrees != 1 || s.FailedReallocations != 1 {
			t.Errorf("counted %d frees and %d reallocations that failed, want one each", s.FailedFrees, s.FailedReallocations)
		}
		a.AssertSize(t, 1000)
		a.Free(keep)
	})
}

// TestArguments: constants of the program.
func TestArguments(t *testing.T) {
	a := arrowmem.New(alloctest.New(t))
	wantPanic(t, "arrowmem: Allocate(-1): ", func() { a.Allocate(-1) }, blockalloc.ErrBadLayout)
	wantPanic(t, "arrowmem: Reallocate(-1): ", func() { a.Reallocate(-1, nil) }, blockalloc.ErrBadLayout)
	wantPanic(t, "arrowmem: New(nil): pass an allocator", func() { arrowmem.New(nil) })
	for _, mem := range []blockalloc.Allocator{noFinder{new(blockalloc.Heap)}, alloctrace.Wrap(noFinder{new(blockalloc.Heap)})} {
		wantPanic(t, fmt.Sprintf("arrowmem: New(%T): ", mem), func() { arrowmem.New(mem) })
	}
}

// noFinder is a wrapper as others may have written it.
type noFinder struct{ blockalloc.Allocator }

func wantPanic(t *testing.T, text string, f func(), targets ...error) {
	t.Helper()
	defer func() {
		t.Helper()
		r := recover()
		err, _ := r.(error)
		if !strings.HasPrefix(fmt.Sprint(r), text) {
			t.Errorf("panic %v, want %s…", r, text)
		}
		for _, target := range targets {
			if !errors.Is(err, target) {
				t.Errorf("panic %v does not wrap %v", r, target)
			}
		}
	}()
	f()
}

// TestDebug: a debug.Allocator tells who freed the buffer before, and reports begin with who called this package.
func TestDebug(t *testing.T) {
	var r recorder
	a := arrowmem.New(alloctest.New(&r))
	b := a.Allocate(100)
	a.Free(b)
	wantPanic(t, "arrowmem: Free of 100 bytes", func() { a.Free(b) }, blockalloc.ErrDoubleFree)
	r.want(t, `(?s)^alloctest: debug: Free\(.*: block already freed: .*
	allocated by
		arrowmem_test.go:\d+ arrowmem_test.TestDebug
.*	freed first by
		arrowmem_test.go:\d+ arrowmem_test.TestDebug
.*	freed again by
		arrowmem_test.go:\d+ arrowmem_test.TestDebug.func`)
	r.end()
}

//go:noinline
func forget(a *arrowmem.Allocator) { a.Reallocate(100, a.Allocate(10)) }

// TestLeak: a report of leaks begins with who called this package.
func TestLeak(t *testing.T) {
	var r recorder
	forget(arrowmem.New(alloctest.New(&r)))
	r.end()
	r.want(t, `^alloctest: Proxy has leaked 100 B in 1 block\n100 B in 1 block is live:\n  100 B in 1 block of 100 B: arrowmem_test.forget \(arrowmem_test.go:\d+\), arrowmem_test.TestLeak \(`)

	profile := heapprofile.New(heapprofile.Options{Rate: 1})
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(profile))
	a := arrowmem.New(mem)
	b := a.Allocate(100)
	if text := profile.Report().String(); !strings.Contains(text, ": arrowmem_test.TestLeak (arrowmem_test.go:") {
		t.Errorf("the report is %s", text)
	}
	a.Free(b)
}

// A recorder is a test that keeps its failures.
type recorder struct {
	errors   []string
	cleanups []func()
}

func (r *recorder) Helper()          {}
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}
func (r *recorder) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (r *recorder) end() {
	for len(r.cleanups) > 0 {
		last := len(r.cleanups) - 1
		f := r.cleanups[last]
		r.cleanups = r.cleanups[:last]
		f()
	}
}

// want checks that there is one failure, of that form.
func (r *recorder) want(t *testing.T, form string) {
	t.Helper()
	if len(r.errors) != 1 || !regexp.MustCompile(form).MatchString(r.errors[0]) {
		t.Errorf("failures are %q, want one of the form %s", r.errors, form)
	}
}

func TestAssertSize(t *testing.T) {
	a := arrowmem.New(alloctest.New(t))
	b := a.Allocate(100)
	var r recorder
	a.AssertSize(&r, 100)
	a.AssertSize(&r, 0)
	r.want(t, `^arrowmem: 100 bytes are live, want 0$`)
	a.Free(b)
}

// TestNoAllocations: buffers take nothing of the Go heap.
func TestNoAllocations(t *testing.T) {
	slab, err := blockalloc.NewSlab(blockalloc.Default(), 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	defer slab.Close()
	mem := alloctest.New(t, alloctest.WithAllocator(slab), alloctest.WithStacks(alloctest.Off))
	a := arrowmem.New(mem)
	measure.WantAllocs(t, 0, func() {
		b := a.Allocate(100)
		a.Free(a.Reallocate(200, b))
	})
}

func ExampleNew() {
	mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithName("arrow"))
	a := arrowmem.New(mem) // a memory.Allocator: array.NewInt64Builder(a), file.WithReadProps(parquet.NewReaderProperties(a))
	buffer := a.Allocate(1000)
	s := mem.Stats()
	fmt.Println(s.LiveBlocks, "buffer of", s.LiveRequestedBytes, "bytes is live")
	a.Free(buffer)
	fmt.Println(mem.Close())
	// Output:
	// 1 buffer of 1000 bytes is live
	// <nil>
}
