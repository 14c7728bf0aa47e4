package guard_test

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	rdebug "runtime/debug"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/blockalloc/guard"
	"github.com/alloctrace/alloctrace/internal/pages"
)

//go:noinline
func allocator(t testing.TB, a blockalloc.Allocator, size uintptr) blockalloc.Block {
	return mustAllocate(t, a, size, 1)
}

//go:noinline
func releaser(t testing.TB, a blockalloc.Allocator, b blockalloc.Block) { mustFree(t, a, b) }

//go:noinline
func accessor(p *byte, write bool) byte {
	if write {
		*p = 1
	}
	return *p
}

// atEnd returns a block that ends at an inaccessible page, or one that begins after one.
func atEnd(t testing.TB, a blockalloc.Allocator, size uintptr, end bool) blockalloc.Block {
	for {
		b := allocator(t, a, size)
		if isEnd := b.Addr()&(pages.Size-1) != 0; isEnd == end {
			return b
		}
		mustFree(t, a, b)
	}
}

// A plant is an error that is to be found, and what the report says.
var plants = []struct {
	name        string
	plant       func(t testing.TB, a *guard.Allocator) error
	kind        debug.Kind
	err         error
	fault       bool
	allocated   bool
	freed       bool
	now, offset string
}{
	{"read after free", func(t testing.TB, a *guard.Allocator) error {
		b := allocator(t, a, 100)
		releaser(t, a, b)
		return a.Catch(func() { accessor(pointer(b, 7), false) })
	}, debug.UseAfterFree, blockalloc.ErrUseAfterFree, true, true, true, "accessor", "7"},
	{"write after free", func(t testing.TB, a *guard.Allocator) error {
		b := allocator(t, a, 1_000_000)
		releaser(t, a, b)
		return a.Catch(func() { accessor(pointer(b, 999_999), true) })
	}, debug.UseAfterFree, blockalloc.ErrUseAfterFree, true, true, true, "accessor", "999999"},
	{"overrun by one at the end of the pages", func(t testing.TB, a *guard.Allocator) error {
		b := atEnd(t, a, 100, true)
		defer mustFree(t, a, b)
		return a.Catch(func() { accessor(pointer(b, 100), true) })
	}, debug.Overrun, blockalloc.ErrOverrun, true, true, false, "accessor", "100"},
	{"underrun at the start of the pages", func(t testing.TB, a *guard.Allocator) error {
		b := atEnd(t, a, 100, false)
		defer mustFree(t, a, b)
		return a.Catch(func() { accessor(pointer(b, -1), false) })
	}, debug.Underrun, blockalloc.ErrUnderrun, true, true, false, "accessor", "-1"},
	{"overrun at the start of the pages", func(t testing.TB, a *guard.Allocator) error {
		b := atEnd(t, a, 100, false)
		accessor(pointer(b, 102), true)
		return a.Free(b)
	}, debug.Overrun, nil, false, true, false, "func", "102"},
	{"underrun at the end of the pages", func(t testing.TB, a *guard.Allocator) error {
		b := atEnd(t, a, 100, true)
		accessor(pointer(b, -3), true)
		return a.Free(b)
	}, debug.Underrun, nil, false, true, false, "func", "-3"},
	{"double free", func(t testing.TB, a *guard.Allocator) error {
		b := allocator(t, a, 64)
		releaser(t, a, b)
		return a.Free(b)
	}, debug.DoubleFree, blockalloc.ErrDoubleFree, false, true, true, "func", "0"},
	{"free of a block that was reallocated", func(t testing.TB, a *guard.Allocator) error {
		stale := allocator(t, a, 64)
		n, err := a.Reallocate(stale, 65)
		if err != nil {
			t.Fatal(err)
		}
		defer mustFree(t, a, n)
		return a.Free(stale)
	}, debug.DoubleFree, blockalloc.ErrDoubleFree, false, true, true, "func", "0"},
	{"reallocation of a freed block", func(t testing.TB, a *guard.Allocator) error {
		b := allocator(t, a, 64)
		releaser(t, a, b)
		_, err := a.Reallocate(b, 100)
		return err
	}, debug.DoubleFree, blockalloc.ErrDoubleFree, false, true, true, "func", "0"},
	{"wrong size", func(t testing.TB, a *guard.Allocator) error {
		b := allocator(t, a, 64)
		defer mustFree(t, a, b)
		wrong, err := blockalloc.FromRaw(b.Pointer(), blockalloc.Layout{Size: 65, Align: 1})
		if err != nil {
			t.Fatal(err)
		}
		return a.Free(wrong)
	}, debug.WrongSize, blockalloc.ErrNotOwned, false, true, false, "func", "0"},
	{"free of a part", func(t testing.TB, a *guard.Allocator) error {
		b := allocator(t, a, 64)
		defer mustFree(t, a, b)
		part, err := blockalloc.FromRaw(pointerTo(b, 8), blockalloc.Layout{Size: 8, Align: 1})
		if err != nil {
			t.Fatal(err)
		}
		return a.Free(part)
	}, debug.Interior, blockalloc.ErrNotOwned, false, true, false, "func", "8"},
	{"foreign free", func(t testing.TB, a *guard.Allocator) error {
		b := allocator(t, a, 64)
		defer mustFree(t, a, b)
		foreign, err := blockalloc.FromRaw(pointerTo(b, 3*int(pages.Size)), blockalloc.Layout{Size: 8, Align: 1})
		if err != nil {
			t.Fatal(err)
		}
		return a.Free(foreign)
	}, debug.Foreign, blockalloc.ErrNotOwned, false, false, false, "func", "0"},
}

// TestErrors plants each error, which is reported once, with the block, the byte, and the stacks of who
// allocated, freed and accessed it.
func TestErrors(t *testing.T) {
	if !pages.Supported {
		return
	}
	for _, p := range plants {
		t.Run(p.name, func(t *testing.T) {
			a, list := reports(t)
			err := p.plant(t, a)
			if !errors.Is(err, p.err) {
				t.Errorf("error %v, want %v", err, p.err)
			}
			if len(*list) != 1 || a.Stats().Reports != 1 {
				t.Fatalf("%d reports, and %d are counted, want 1", len(*list), a.Stats().Reports)
			}
			r := (*list)[0]
			if p.err != nil && err != error(r) {
				t.Errorf("the error is not the report")
			}
			if r.By != "guard" || r.Kind != p.kind || r.Fault != p.fault || fmt.Sprint(r.Offset) != p.offset || (r.Block.Layout.Size > 0) != p.allocated {
				t.Errorf("the report is %+v", r)
			}
			freer := "releaser"
			if strings.Contains(p.name, "reallocated") {
				freer = "init"
			}
			wantFrame(t, "allocated", r.Allocated, p.allocated, "allocator")
			wantFrame(t, "freed", r.Freed, p.freed, freer)
			wantFrame(t, "now", r.Now, true, p.now)
			if t.Failed() {
				t.Log(r)
			}
		})
	}
}

// wantFrame checks that the innermost frame of a stack, if there is to be one, is of a function of that name. Those of
// functions without a name of their own are of this package's init.
func wantFrame(t *testing.T, which string, s debug.Stack, want bool, function string) {
	t.Helper()
	frames := s.Frames()
	switch {
	case !want && len(s) > 0:
		t.Errorf("%s: there is a stack, want none:\n%v", which, s)
	case want && (len(frames) == 0 || !containsFrame(frames, function)):
		t.Errorf("%s: %s is not in the stack:\n%v", which, function, s)
	}
}

// containsFrame looks at the innermost frames, the first of which may be a helper of these tests.
func containsFrame(frames []runtime.Frame, function string) bool {
	for _, f := range frames[:min(len(frames), 2)] {
		if strings.Contains(f.Function[strings.LastIndexByte(f.Function, '/')+1:], "guard_test."+function) || function == "func" && strings.Contains(f.Function, "guard_test.init.func") {
			return true
		}
	}
	return false
}

// TestText is what an operator reads.
func TestText(t *testing.T) {
	if !pages.Supported {
		return
	}
	a, _ := reports(t)
	b := allocator(t, a, 100)
	releaser(t, a, b)
	err := a.Catch(func() { accessor(pointer(b, 7), false) })
	want := []string{fmt.Sprintf("guard: Catch: block used after it was freed: at byte 7 of block %#x of 100 B aligned to 1", b.Addr()),
		"allocated by", "guard_test.mustAllocate", "guard_test.allocator", "freed by", "guard_test.releaser", "accessed by", "guard_test.accessor"}
	text := err.Error()
	for _, w := range want {
		_, after, ok := strings.Cut(text, w)
		if !ok {
			t.Fatalf("%q is not in the report, or not where it belongs:\n%v", w, err)
		}
		text = after
	}
}

// TestDescribe: code that recovers from a fault itself learns the same, and no hook is called. Other
// addresses are nobody's.
func TestDescribe(t *testing.T) {
	if !pages.Supported {
		return
	}
	a, list := reports(t)
	b := allocator(t, a, 100)
	releaser(t, a, b)
	var report *debug.Report
	func() {
		defer rdebug.SetPanicOnFault(rdebug.SetPanicOnFault(true))
		defer func() {
			report, _ = a.Describe(recover().(interface{ Addr() uintptr }).Addr())
		}()
		accessor(pointer(b, 99), true)
	}()
	if report == nil || !errors.Is(report, blockalloc.ErrUseAfterFree) || report.Offset != 99 || report.Block.Addr != b.Addr() {
		t.Fatalf("Describe: %v", report)
	}
	wantFrame(t, "now", report.Now, true, "accessor")
	wantFrame(t, "freed", report.Freed, true, "releaser")
	if len(*list) != 0 || a.Stats().Reports != 0 {
		t.Errorf("%d reports were delivered, want none", len(*list))
	}
	c := allocator(t, a, 100)
	m := a.Mappings()[0]
	for _, addr := range []uintptr{0, 1, m.Addr - 1, m.Addr + m.Size + pages.Size, ^uintptr(0), c.Addr(), c.Addr() + 99} {
		if r, ok := a.Describe(addr); ok {
			t.Errorf("Describe(%#x): %v; want nothing", addr, r)
		}
	}
	for _, addr := range []uintptr{c.Addr() - pages.Size, c.Addr() + pages.Size} {
		if r, ok := a.Describe(addr); !ok || r.Block.Addr != c.Addr() || len(r.Now) != 0 {
			t.Errorf("Describe(%#x) = %v, %t; want the block %v, and no stack of an access", addr, r, ok, c)
		}
	}
	mustFree(t, a, c)
}

// TestCatchPassesOn what is none of its business.
func TestCatchPassesOn(t *testing.T) {
	a := newAllocator(t, new(blockalloc.Heap), guard.Options{})
	panics := func(f func()) (r any) {
		defer func() { r = recover() }()
		if err := a.Catch(f); err != nil {
			t.Errorf("Catch: %v", err)
		}
		return nil
	}
	value := errors.New("unlucky")
	if r := panics(func() { panic(value) }); r != any(value) {
		t.Errorf("panic %v, want %v", r, value)
	}
	var nobody *[10]int
	if r, ok := panics(func() { nobody[3] = 1 }).(runtime.Error); !ok || !strings.Contains(r.Error(), "nil pointer") {
		t.Errorf("panic %v, want a nil dereference", r)
	}
	if r := panics(func() {}); r != nil {
		t.Errorf("panic %v, want none", r)
	}
	if pages.Supported {
		other, _ := reports(t)
		b := allocator(t, other, 64)
		mustFree(t, other, b)
		fault, ok := panics(func() { accessor(pointer(b, 5), false) }).(interface{ Addr() uintptr })
		if !ok || fault.Addr() != b.Addr()+5 {
			t.Errorf("panic %v, want a fault at byte 5 of %v, which is another Allocator's", fault, b)
		}
	}
}

// TestDetection: as many of the errors are found as the rate makes one expect, within 4.2 standard deviations, which
// chance exceeds in one of 12,000 runs of this test. The draws cannot be seeded.
func TestDetection(t *testing.T) {
	if !pages.Supported {
		return
	}
	const rate = 64 << 10
	n := 20_000
	if !testing.Short() {
		n = 200_000
	}
	for _, c := range []struct {
		size     uintptr
		maxDrawn int
	}{{1000, 0}, {4096, 8192}, {100_000, 0}, {100_000, 8192}} {
		size, found := c.size, 0
		a := newAllocator(t, &once{}, guard.Options{Rate: rate, MaxDrawn: c.maxDrawn, OnReport: func(r *debug.Report) {
			if r.Kind == debug.DoubleFree && r.Block.Layout.Size == size {
				found++
			}
		}})
		for range n {
			b := mustAllocate(t, a, size, 8)
			mustFree(t, a, b)
			_ = a.Free(b)
		}
		drawn := float64(size)
		if c.maxDrawn > 0 {
			drawn = min(drawn, float64(c.maxDrawn))
		}
		p := 1 - math.Exp(-drawn/rate)
		expected, deviation := float64(n)*p, math.Sqrt(float64(n)*p*(1-p))
		if math.Abs(float64(found)-expected) > 4.2*deviation {
			t.Errorf("%d of %d double frees of %d bytes are found, want %.0f ± %.0f", found, n, size, expected, deviation)
		}
		t.Logf("%d of %d double frees of %d bytes are found; expected %.0f ± %.0f", found, n, size, expected, deviation)
		if s := a.Stats(); s.Guarded != int64(found) || s.Full != 0 {
			t.Errorf("%+v", s)
		}
	}
}

// once is an allocator with one block, which it takes back again and again.
type once struct{ block blockalloc.Block }

func (o *once) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if o.block.Size() < l.Size {
		o.block, _ = new(blockalloc.Heap).Allocate(l)
	}
	return o.block, nil
}

func (o *once) Reallocate(b blockalloc.Block, _ uintptr) (blockalloc.Block, error) { return b, nil }
func (o *once) Free(blockalloc.Block) error                                        { return nil }
