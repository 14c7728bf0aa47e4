package typed_test

import (
	"errors"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
)

type page struct {
	Number uint64
	Data   [1 << 20]byte
}

func TestBox(t *testing.T) {
	// Without a Debug, which would say that the Free of the copy is one too many.
	a := checkedOver(alloctest.New(t, alloctest.WithAllocator(new(blockalloc.Heap))))
	b, err := typed.NewBox(a, [3]int64{1, 2, 3})
	must(t, err)
	if uintptr(unsafe.Pointer(b.Pointer()))%unsafe.Alignof(int64(0)) != 0 {
		t.Errorf("the place is at %p", b.Pointer())
	}
	b.Pointer()[1] = 20
	copied := b
	if got := copied.Get(); got != [3]int64{1, 20, 3} {
		t.Errorf("Get = %v", got)
	}
	copied.Set([3]int64{4})
	got, err := b.Take()
	if err != nil || got != [3]int64{4} || a.live != 0 {
		t.Errorf("Take = %v, %v with %d blocks live", got, err, a.live)
	}
	must(t, b.Free()) // after Take it does nothing
	if err := copied.Free(); !errors.Is(err, blockalloc.ErrDoubleFree) {
		t.Errorf("Free of a copy: error %v, want the allocator's", err)
	}
}

// TestBoxOfNoSize: a value without size takes no memory, but is there.
func TestBoxOfNoSize(t *testing.T) {
	b, err := typed.NewBox(blockalloc.Null{}, struct{}{})
	must(t, err)
	b.Set(b.Get())
	_, err = b.Take()
	must(t, err)
	wantPanic(t, "use of a Box after Free", func() { b.Get() })
}

func TestBoxFunc(t *testing.T) {
	a := newChecked(t)
	var place *page
	b, err := typed.NewBoxFunc(a, func(p *page) error {
		if *p != (page{}) {
			t.Error("the place is not zeroed")
		}
		place = p
		p.Number, p.Data[1<<20-1] = 7, 8
		return nil
	})
	must(t, err)
	if p := b.Pointer(); p != place || p.Number != 7 || p.Data[1<<20-1] != 8 {
		t.Error("the value is not what was filled in")
	}
	must(t, b.Free())

	none, err := typed.NewBoxFunc(a, func(*page) error { return errInjected })
	if err != errInjected || a.live > 0 {
		t.Errorf("a fill that fails: error %v and %d blocks, want its error and none", err, a.live)
	}
	wantPanic(t, "use of a Box after Free", func() { none.Get() })
	wantPanic(t, "NewBoxFunc: fill is nil: pass a function", func() { _, _ = typed.NewBoxFunc[int](a, nil) })
	wantPanic(t, "filling", func() {
		_, _ = typed.NewBoxFunc(a, func(*page) error { panic("filling") })
	})
	if a.live > 0 {
		t.Errorf("a fill that panics leaves %d blocks", a.live)
	}

	failed := errors.New("fill failed")
	a.free = errInjected
	half, err := typed.NewBoxFunc(a, func(*page) error { return failed })
	if !errors.Is(err, failed) || !errors.Is(err, errInjected) {
		t.Errorf("a fill and a Free that fail: error %v, want both", err)
	}
	a.free = nil
	must(t, half.Free())
}

func TestBoxEveryFailure(t *testing.T) {
	everyFailure(t, func(a *checked) error {
		b, err := typed.NewBox(a, 1)
		if err != nil {
			return err
		}
		c, err := typed.NewBoxFunc(a, func(p *int) error { *p = b.Get(); return nil })
		must(t, b.Free())
		must(t, c.Free())
		return err
	})
	a := newChecked(t)
	b, err := typed.NewBox(a, 5)
	must(t, err)
	a.free = errInjected
	if v, err := b.Take(); err != errInjected || v != 0 || b.Get() != 5 {
		t.Errorf("Take = %d, %v; want the allocator's error and the value still in", v, err)
	}
	a.free = nil
	must(t, b.Free())
}

func TestBoxSetAllocator(t *testing.T) {
	a := newChecked(t)
	b, err := typed.NewBox(a, 1)
	must(t, err)
	b.SetAllocator(blockalloc.Null{})
	if err := b.Free(); !errors.Is(err, blockalloc.ErrNotOwned) {
		t.Errorf("Free through Null: error %v, want ErrNotOwned", err)
	}
	b.SetAllocator(a)
	must(t, b.Free())
	wantPanic(t, "Box.SetAllocator(nil): pass an allocator", func() { b.SetAllocator(nil) })
}

func TestBoxAfterFree(t *testing.T) {
	b, err := typed.NewBox(newChecked(t), 1)
	must(t, err)
	wantFreed(t, "Box", b.Free, map[string]func(){
		"Get":          func() { b.Get() },
		"Set":          func() { b.Set(1) },
		"Pointer":      func() { b.Pointer() },
		"Take":         func() { b.Take() },
		"SetAllocator": func() { b.SetAllocator(blockalloc.Null{}) },
		"the zero Box": func() { new(typed.Box[int]).Get() },
	})
}

func TestBoxAllocatesNothing(t *testing.T) {
	mem := newBump(t, 1<<20)
	b, err := typed.NewBox(mem, 1)
	must(t, err)
	wantAllocs(t, "Get and Set", func() { b.Set(b.Get() + 1) })
	wantAllocs(t, "NewBox and Free", func() {
		b, err := typed.NewBox(mem, [5]int{1, 2})
		must(t, err)
		must(t, b.Free())
	})
	must(t, b.Free())
}

// A bump allocator that takes nothing from the Go heap once it is made.
type bump struct {
	base blockalloc.Block
	used uintptr
}

func newBump(t *testing.T, size uintptr) *bump {
	mem := alloctest.New(t)
	b, err := mem.Allocate(blockalloc.Layout{Size: size, Align: 64})
	must(t, err)
	t.Cleanup(func() { must(t, mem.Free(b)) })
	return &bump{base: b}
}

func (b *bump) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	at := (b.used + l.Align - 1) &^ (l.Align - 1)
	if at+l.Size > b.base.Size() {
		return blockalloc.Block{}, blockalloc.ErrOutOfMemory
	}
	b.used = at + l.Size
	n, err := blockalloc.FromRaw(unsafe.Add(b.base.Pointer(), at), l)
	if l.Zeroed {
		clear(n.Bytes())
	}
	return n, err
}

func (b *bump) Reallocate(old blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	l := old.Layout()
	l.Size = size
	n, err := b.Allocate(l)
	if err != nil {
		return old, err
	}
	copy(n.Bytes(), old.Bytes())
	return n, nil
}

func (*bump) Free(blockalloc.Block) error { return nil }
