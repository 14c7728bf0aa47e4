package typed_test

import (
	"errors"
	"math"
	"slices"
	"sync"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
)

func newVec[T any](t testing.TB, a blockalloc.Allocator, items ...T) *typed.Vec[T] {
	t.Helper()
	v := typed.NewVec[T](a)
	must(t, v.Append(items...))
	return v
}

// exact grants just what is asked for, and records it.
type exact struct {
	*alloctrace.Proxy
	asked []uintptr
}

func (e *exact) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	e.asked = append(e.asked, l.Size)
	return e.Proxy.Allocate(l)
}

func (e *exact) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	e.asked = append(e.asked, size)
	return e.Proxy.Reallocate(b, size)
}

// TestVecGrowth holds the growth policy to what the comment says.
func TestVecGrowth(t *testing.T) {
	a := &exact{Proxy: alloctest.New(t)}
	v := newVec[byte](t, a)
	for some := make([]byte, 64); v.Len() < 3<<20; {
		must(t, v.Append(some...))
	}
	want := []uintptr{}
	for size := uintptr(64); size < 1<<20; size *= 2 {
		want = append(want, size)
	}
	want = append(want, 1<<20, 5<<18, 25<<16, 125<<14, 625<<12, 3125<<10)
	if !slices.Equal(a.asked, want) {
		t.Errorf("asked for %v, want %v", a.asked, want)
	}
	must(t, v.Free())

	a.asked = nil
	words := newVec[[3]uint64](t, a, make([][3]uint64, 5)...)
	must(t, words.Reserve(7))
	must(t, words.Reserve(3))
	must(t, words.Grow(2))
	must(t, words.Grow(3))
	words.Truncate(1)
	must(t, words.Shrink())
	must(t, words.Shrink())
	if want := []uintptr{120, 168, 336, 24}; !slices.Equal(a.asked, want) {
		t.Errorf("asked for %v, want %v", a.asked, want)
	}
	must(t, words.Free())
}

// TestVecUsesAllThatIsGranted: no page that System gives is asked for twice.
func TestVecUsesAllThatIsGranted(t *testing.T) {
	a := newChecked(t)
	a.slack = 4096 - 64
	v := newVec(t, a, uint32(1))
	if v.Cap() != 1024 {
		t.Errorf("room for %d elements in 4096 B, want 1024", v.Cap())
	}
	must(t, v.Append(make([]uint32, 1023)...))
	if a.calls != 1 {
		t.Errorf("%d allocations for what fits the first", a.calls)
	}
	must(t, v.Free())
}

func TestVecAlignment(t *testing.T) {
	a := alloctest.New(t)
	for range 20 {
		odd := newVec(t, a, byte(1))
		words := newVec(t, a, uint64(1))
		if p := unsafe.Pointer(unsafe.SliceData(words.Slice())); uintptr(p)%unsafe.Alignof(uint64(0)) != 0 {
			t.Errorf("words at %p", p)
		}
		defer odd.Free()
		defer words.Free()
	}
}

func TestVecTooLarge(t *testing.T) {
	a := newChecked(t)
	v := newVec(t, a, uint64(7))
	pairs := newVec[[2]uint64](t, a)
	none := newVec(t, a, struct{}{})
	for name, err := range map[string]error{
		"Reserve":           v.Reserve(math.MaxInt),
		"Grow":              v.Grow(math.MaxInt),
		"Grow(-1)":          v.Grow(-1),
		"Resize":            v.Resize(math.MaxInt/8 + 1),
		"Reserve round 0":   pairs.Reserve(math.MaxInt/8 + 1), // times 16 is 0
		"Grow of no size":   none.Grow(math.MaxInt),
		"Resize in a Block": v.Resize(math.MaxInt / 8),
	} {
		if !errors.Is(err, blockalloc.ErrBadLayout) {
			t.Errorf("%s: error %v, want ErrBadLayout", name, err)
		}
	}
	if v.Len() != 1 || v.At(0) != 7 || none.Len() != 1 {
		t.Errorf("the Vecs changed: %v, %v", v.Slice(), none.Slice())
	}
	must(t, none.Resize(math.MaxInt))
	if none.Len() != math.MaxInt {
		t.Errorf("%d elements of no size, want %d", none.Len(), math.MaxInt)
	}
	if err := none.Append(struct{}{}); !errors.Is(err, blockalloc.ErrBadLayout) {
		t.Errorf("Append: error %v, want ErrBadLayout", err)
	}
	must(t, v.Free())
	must(t, none.Free())
	must(t, pairs.Free())
}

func TestVecEveryFailure(t *testing.T) {
	everyFailure(t, func(a *checked) error {
		v := newVec[uint32](t, a)
		defer func() { must(t, v.Free()) }()
		want := []uint32{}
		for i := range uint32(100) {
			if err := v.Append(i); err != nil {
				return unchanged(t, v, want, err)
			}
			want = append(want, i)
		}
		if err := v.Insert(50, v.Slice()...); err != nil {
			return unchanged(t, v, want, err)
		}
		want = slices.Insert(slices.Clone(want), 50, want...)
		if err := v.Append(v.Slice()...); err != nil {
			return unchanged(t, v, want, err)
		}
		v.Truncate(len(want))
		if err := v.Shrink(); err != nil {
			return unchanged(t, v, want, err)
		}
		if err := v.Reserve(1000); err != nil {
			return unchanged(t, v, want, err)
		}
		if err := v.Grow(2000); err != nil {
			return unchanged(t, v, want, err)
		}
		if err := v.Resize(5000); err != nil {
			return unchanged(t, v, want, err)
		}
		v.Truncate(len(want))
		c, err := v.Clone()
		if err != nil {
			return unchanged(t, v, want, err)
		}
		must(t, unchanged(t, c, want, nil))
		return c.Free()
	})
}

func unchanged(t *testing.T, v *typed.Vec[uint32], want []uint32, err error) error {
	if !slices.Equal(v.Slice(), want) {
		t.Errorf("after %v: %v, want %v", err, v.Slice(), want)
	}
	return err
}

func TestVecFailedFree(t *testing.T) {
	a := newChecked(t)
	v := newVec(t, a, 1, 2, 3)
	a.free = errInjected
	if err := v.Free(); err != errInjected || v.Len() != 3 || v.At(2) != 3 {
		t.Errorf("Free = %v and %d elements, want the allocator's error and no change", err, v.Len())
	}
	v.Clear()
	if err := v.Shrink(); err != errInjected || v.Cap() == 0 {
		t.Errorf("Shrink = %v, want the allocator's error and no change", err)
	}
	a.free = nil
	must(t, v.Free())
}

func TestVecAfterFree(t *testing.T) {
	v := newVec(t, newChecked(t), 1, 2, 3)
	wantFreed(t, "Vec", v.Free, map[string]func(){
		"Len":          func() { v.Len() },
		"Cap":          func() { v.Cap() },
		"At":           func() { v.At(0) },
		"Set":          func() { v.Set(0, 1) },
		"Slice":        func() { v.Slice() },
		"Append":       func() { v.Append(1) },
		"Insert":       func() { v.Insert(0, 1) },
		"Delete":       func() { v.Delete(0, 0) },
		"Pop":          func() { v.Pop() },
		"Truncate":     func() { v.Truncate(0) },
		"Clear":        func() { v.Clear() },
		"Resize":       func() { v.Resize(0) },
		"Grow":         func() { v.Grow(0) },
		"Reserve":      func() { v.Reserve(0) },
		"Shrink":       func() { v.Shrink() },
		"Clone":        func() { v.Clone() },
		"SetAllocator": func() { v.SetAllocator(&blockalloc.Heap{}) },
		"All":          func() { v.All()(func(int, int) bool { return true }) },
		"Values":       func() { v.Values()(func(int) bool { return true }) },
		"Backward":     func() { v.Backward()(func(int, int) bool { return true }) },
		"the zero Vec": func() { new(typed.Vec[int]).Append(1) },
	})
}

func TestVecSetAllocator(t *testing.T) {
	a := newChecked(t)
	v := newVec(t, a, 1)
	view := &struct{ blockalloc.Allocator }{a}
	v.SetAllocator(view)
	view.Allocator = blockalloc.Null{}
	if err := v.Append(make([]int, 100)...); !errors.Is(err, blockalloc.ErrNotOwned) || v.Len() != 1 {
		t.Errorf("Append through another allocator: error %v, want its", err)
	}
	view.Allocator = a
	must(t, v.Free())
	wantPanic(t, "Vec.SetAllocator(nil): pass an allocator", func() { v.SetAllocator(nil) })
}

func TestVecAllocatesNothing(t *testing.T) {
	v := newVec(t, newChecked(t), 3, 1, 2)
	must(t, v.Reserve(1000))
	sum := 0
	wantAllocs(t, "Append", func() { must(t, v.Append(4)) })
	wantAllocs(t, "Append of several", func() { must(t, v.Append(4, 5, 6)) })
	wantAllocs(t, "Insert", func() { must(t, v.Insert(1, 9)) })
	wantAllocs(t, "Delete", func() { v.Delete(1, 2) })
	wantAllocs(t, "Pop", func() { v.Pop() })
	wantAllocs(t, "Set and At", func() { v.Set(1, v.At(0)) })
	wantAllocs(t, "Sort", func() { slices.Sort(v.Slice()) })
	wantAllocs(t, "All", func() {
		for i, x := range v.All() {
			sum += i * x
		}
	})
	wantAllocs(t, "Values", func() {
		for x := range v.Values() {
			sum += x
		}
	})
	wantAllocs(t, "Backward", func() {
		for i, x := range v.Backward() {
			sum += i * x
		}
	})
	if sum == 0 {
		t.Error("the iterators saw nothing")
	}
	must(t, v.Free())
}

func TestVecIteratorsStop(t *testing.T) {
	v := newVec(t, newChecked(t), 10, 20, 30, 40)
	var got []int
	for i, x := range v.All() {
		if got = append(got, i, x); i == 1 {
			break
		}
	}
	for x := range v.Values() {
		if got = append(got, x); x == 20 {
			break
		}
	}
	for i, x := range v.Backward() {
		if got = append(got, i, x); i == 2 {
			break
		}
	}
	if want := []int{0, 10, 1, 20, 10, 20, 3, 40, 2, 30}; !slices.Equal(got, want) {
		t.Errorf("the iterators gave %v, want %v", got, want)
	}
	must(t, v.Free())
}

// TestVecsShareAnAllocator: Vecs of several goroutines over one allocator, read by
// others at once: for the race detector.
func TestVecsShareAnAllocator(t *testing.T) {
	mem := alloctest.New(t)
	shared := newVec(t, mem, 1, 2, 3)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			v := typed.NewVec[int](mem)
			for i := range 1000 {
				if err := v.Append(i + shared.At(i%3)); err != nil {
					t.Error(err)
				}
				for _, x := range shared.All() {
					v.Set(i, v.At(i)+x)
				}
			}
			if got := v.At(999); got != 999+shared.At(0)+6 {
				t.Errorf("element 999 is %d", got)
			}
			if err := v.Free(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	must(t, shared.Free())
}

// TestVecResizeIsZeroed: only the first block of a Vec that Resize makes is asked for as zeroed, and it stays so. What was
// used, given back by Shrink and had again is zero.
func TestVecResizeIsZeroed(t *testing.T) {
	var asked []bool
	mem := failing.If(alloctest.New(t), func(c failing.Call) bool {
		asked = append(asked, c.Op != failing.OpFree && c.Layout.Zeroed)
		return false
	})
	resized, appended := typed.NewVec[[3]uint16](mem), typed.NewVec[[3]uint16](mem)
	must(t, resized.Resize(10))
	must(t, resized.Resize(1000))
	must(t, appended.Append([3]uint16{1, 2, 3}))
	must(t, appended.Resize(1000))
	if want := []bool{true, true, false, false}; !slices.Equal(asked, want) {
		t.Errorf("zeroed memory is asked for %v, want %v", asked, want)
	}
	for i := range resized.Len() {
		resized.Set(i, [3]uint16{7, 7, 7})
	}
	resized.Truncate(2)
	must(t, resized.Shrink())
	must(t, resized.Resize(2000))
	for i, x := range resized.All() {
		if want := ([3]uint16{7, 7, 7}); i < 2 && x != want || i >= 2 && x != [3]uint16{} {
			t.Fatalf("element %d is %v", i, x)
		}
	}
	must(t, resized.Free())
	must(t, appended.Free())
}
