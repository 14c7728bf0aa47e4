package blockalloc_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
)

func newFreeList(t testing.TB, parent blockalloc.Allocator, block blockalloc.Layout, max int) *blockalloc.FreeList {
	t.Helper()
	f, err := blockalloc.NewFreeList(parent, block, max)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// TestFreeListRunsOut: 64 blocks of 1024 bytes are taken, the next fails, all come
// back.
func TestFreeListRunsOut(t *testing.T) {
	at, parent := carverTest{t}, newLender(t)
	f := newFreeList(t, parent, blockalloc.BlockLayout(1024), 64)
	parent.has(0)
	if err := f.Reserve(64); err != nil {
		t.Fatal(err)
	}
	parent.has(64)
	var freed []blockalloc.Block
	for range 3 {
		var taken []blockalloc.Block
		for range 64 {
			taken = append(taken, at.allocate(f, 1024, 1024))
		}
		if slices.Reverse(freed); freed != nil && !slices.Equal(taken, freed) {
			t.Error("blocks do not come back in the reverse order of their frees")
		}
		for range 2 {
			b, err := f.Allocate(blockalloc.BlockLayout(1024))
			if at.fails(err, blockalloc.ErrOutOfMemory); !b.IsZero() {
				t.Fatalf("the 65th block is %v", b)
			}
		}
		at.free(f, taken[10])
		if b := at.allocate(f, 1024, 1024); b != taken[10] {
			t.Errorf("Allocate = %v, want the only block at hand, %v", b, taken[10])
		}
		at.free(f, taken...)
		freed = taken
	}
	parent.has(64)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	parent.has(0)
}

// TestFreeListTakesOnDemand: without Reserve the parent is asked when a block is
// needed, and its own error comes back.
func TestFreeListTakesOnDemand(t *testing.T) {
	at, parent := carverTest{t}, newLender(t)
	f := newFreeList(t, parent, blockalloc.BlockLayout(64), 0)
	var blocks []blockalloc.Block
	for i := range 1000 {
		parent.has(i)
		blocks = append(blocks, at.allocate(f, 64, 64))
	}
	parent.refusal = errors.New("not today")
	if b, err := f.Allocate(blockalloc.BlockLayout(64)); err != parent.refusal || !b.IsZero() {
		t.Errorf("Allocate = %v, %v; want the parent's error", b, err)
	}
	for i, b := range blocks {
		at.fill(b, byte(i))
	}
	for i, b := range blocks {
		at.filled(b, 64, byte(i))
		if !f.Owns(b) {
			t.Fatalf("Owns(%v) = false", b)
		}
	}
	at.free(f, blocks...)
	parent.has(1000)
	at.free(f, at.allocate(f, 64, 64)) // from those at hand
}

func TestFreeListRefusesLayouts(t *testing.T) {
	at := carverTest{t}
	for name, prepare := range map[string]func(*blockalloc.FreeList){
		"empty":    func(*blockalloc.FreeList) {},
		"reserved": func(f *blockalloc.FreeList) { at.fails(f.Reserve(2), nil) },
	} {
		f := newFreeList(t, alloctest.New(t), blockalloc.Layout{Size: 1000, Align: 16}, 2)
		prepare(f)
		for _, try := range []struct {
			layout blockalloc.Layout
			want   error
		}{
			{blockalloc.Layout{Size: 1001, Align: 1}, blockalloc.ErrOutOfMemory},
			{blockalloc.Layout{Size: 1001, Align: 32}, blockalloc.ErrOutOfMemory},
			{blockalloc.Layout{Size: 1000, Align: 32}, blockalloc.ErrUnsupportedAlign},
			{blockalloc.Layout{Size: 1, Align: 4096}, blockalloc.ErrUnsupportedAlign},
			{blockalloc.Layout{Size: 1, Align: 12}, blockalloc.ErrBadLayout},
			{blockalloc.Layout{Size: 1, Align: 0}, blockalloc.ErrBadLayout},
			{blockalloc.Layout{Size: 0, Align: 12}, blockalloc.ErrBadLayout},
			{blockalloc.Layout{Size: 0, Align: 1 << 20}, nil},
		} {
			b, err := f.Allocate(try.layout)
			if !errors.Is(err, try.want) || !b.IsZero() {
				t.Errorf("%s: Allocate(%v) = %v, %v; want %v", name, try.layout, b, err, try.want)
			}
		}
		for range 2 {
			b, err := f.Allocate(blockalloc.Layout{Size: 1, Align: 2})
			if err != nil || b.Size() != 1000 || b.Align() != 2 {
				t.Errorf("%s: Allocate of 1 byte = %v, %v; want a block of 1000", name, b, err)
			}
			defer at.free(f, b)
		}
	}
}

func TestFreeListReallocates(t *testing.T) {
	at, parent := carverTest{t}, newLender(t)
	f := newFreeList(t, parent, blockalloc.BlockLayout(64), 1)
	b := at.allocate(f, 64, 64)
	at.fill(b, 1)
	for _, size := range []uintptr{1, 64, 63} {
		if n, err := f.Reallocate(b, size); err != nil || n.Addr() != b.Addr() || n.Layout() != b.Layout() || n.Requested() != size {
			t.Errorf("Reallocate(%v, %d) = %v, %v; want it as it is", b, size, n, err)
		}
	}
	for size, want := range map[uintptr]error{65: blockalloc.ErrOutOfMemory, 1 << 20: blockalloc.ErrOutOfMemory, ^uintptr(0): blockalloc.ErrBadLayout} {
		n, err := f.Reallocate(b, size)
		if at.fails(err, want); n != b || !f.Owns(b) {
			t.Errorf("Reallocate(%v, %d) = %v, owned: %v", b, size, n, f.Owns(b))
		}
	}
	at.filled(b, 64, 1)
	for range 3 { // the only block comes back each time
		if n, err := f.Reallocate(b, 0); err != nil || !n.IsZero() {
			t.Fatalf("Reallocate(%v, 0) = %v, %v", b, n, err)
		}
		at.refuses(f, b, blockalloc.ErrDoubleFree)
		if again := at.allocate(f, 64, 64); again.Addr() != b.Addr() || again.Layout() != b.Layout() {
			t.Fatalf("Allocate = %v, want %v", again, b)
		}
	}
	_, err := f.Reallocate(blockalloc.Block{}, 8)
	at.fails(err, blockalloc.ErrBadLayout)
	at.free(f, b)
}

func TestFreeListRefusesUnknown(t *testing.T) {
	at, parent := carverTest{t}, newLender(t)
	f := newFreeList(t, parent, blockalloc.BlockLayout(64), 0)
	foreign := borrow(t, 64, 64)
	at.refuses(f, foreign, blockalloc.ErrNotOwned) // a list without blocks
	b := at.allocate(f, 64, 64)
	c := at.allocate(f, 64, 64)
	at.refuses(f, foreign, blockalloc.ErrNotOwned)
	at.refuses(f, at.part(b, 0, 63), blockalloc.ErrNotOwned)
	at.refuses(f, at.part(b, 1, 63), blockalloc.ErrNotOwned)
	for range 2 {
		at.free(f, b)
		at.refuses(f, b, blockalloc.ErrDoubleFree)
		at.free(f, c)
		at.refuses(f, b, blockalloc.ErrDoubleFree)
		at.refuses(f, c, blockalloc.ErrDoubleFree)
		// A second free that went through would hand one block out twice.
		c, b = at.allocate(f, 64, 64), at.allocate(f, 64, 64)
		if b == c {
			t.Fatalf("%v was handed out twice", b)
		}
	}
	at.free(f, b, c, blockalloc.Block{})
	if err := f.Trim(); err != nil {
		t.Fatal(err)
	}
	at.refuses(f, b, blockalloc.ErrNotOwned)
}

func TestFreeListReserve(t *testing.T) {
	at, parent := carverTest{t}, newLender(t)
	f := newFreeList(t, parent, blockalloc.BlockLayout(64), 10)
	live := at.allocate(f, 64, 64)
	for _, try := range []struct{ n, has int }{{-1, 1}, {0, 1}, {1, 1}, {5, 5}, {3, 5}, {5, 5}} {
		if err := f.Reserve(try.n); err != nil { // counts live blocks too, and only grows
			t.Error(err)
		}
		parent.has(try.has)
	}
	at.fails(f.Reserve(11), blockalloc.ErrOutOfMemory)
	parent.has(5)

	// A failure gives back what the call took, and nothing else.
	parent.refusal, parent.after = errors.New("not today"), 3
	if err := f.Reserve(10); err != parent.refusal {
		t.Errorf("Reserve: error %v, want the parent's", err)
	}
	parent.has(5)
	if took := parent.history[5:]; len(took) != 3 || len(parent.returned) != 3 || !slices.Contains(took, parent.returned[0]) {
		t.Errorf("took %x, gave back %x", took, parent.returned)
	}
	held := []blockalloc.Block{live}
	for range 4 {
		held = append(held, at.allocate(f, 64, 64))
	}
	if !f.Owns(live) {
		t.Error("a failed Reserve has lost a live block")
	}

	// If the parent does not take them back either, they are not lost.
	parent.after, parent.keeping = 2, errors.New("not here")
	err := f.Reserve(10)
	if at.fails(err, parent.refusal); !errors.Is(err, parent.keeping) {
		t.Errorf("error %v, want %v beside the other", err, parent.keeping)
	}
	parent.has(7)
	parent.keeping = nil
	for range 2 {
		held = append(held, at.allocate(f, 64, 64))
	}
	if _, err = f.Allocate(blockalloc.BlockLayout(64)); err != parent.refusal {
		t.Errorf("Allocate: error %v, want the parent's", err)
	}
	at.free(f, held...)
}

func TestFreeListTrim(t *testing.T) {
	at, parent := carverTest{t}, newLender(t)
	f := newFreeList(t, parent, blockalloc.BlockLayout(64), 0)
	var live, freed []blockalloc.Block
	for i := range 200 {
		if b := at.allocate(f, 64, 64); i%3 == 0 {
			live = append(live, b)
		} else {
			freed = append(freed, b)
		}
	}
	at.free(f, freed...)

	parent.keeping = errors.New("not here")
	if err := f.Trim(); err != parent.keeping {
		t.Errorf("Trim: error %v, want the parent's", err)
	}
	parent.has(200)
	if b := at.allocate(f, 64, 64); b != freed[len(freed)-1] {
		t.Errorf("Allocate = %v, want what was freed last, %v", b, freed[len(freed)-1])
	} else {
		at.free(f, b)
	}
	parent.keeping = nil

	for range 2 {
		if err := f.Trim(); err != nil {
			t.Error(err)
		}
		parent.has(len(live))
	}
	for _, b := range live {
		if !f.Owns(b) {
			t.Fatalf("Trim has lost %v", b)
		}
	}
	at.free(f, live...)
	more := at.allocate(f, 64, 64)
	if more != live[len(live)-1] {
		t.Errorf("Allocate = %v, want what was freed last, %v", more, live[len(live)-1])
	}
	at.free(f, more)
}

func TestFreeListClose(t *testing.T) {
	at, parent := carverTest{t}, newLender(t)
	f := newFreeList(t, parent, blockalloc.BlockLayout(64), 0)
	if f.Parent() != blockalloc.Allocator(parent) {
		t.Errorf("Parent() = %v", f.Parent())
	}
	a, b, c := at.allocate(f, 64, 64), at.allocate(f, 64, 64), at.allocate(f, 64, 64)
	at.free(f, c)
	err := f.Close()
	at.fails(err, blockalloc.ErrLive)
	if want := "blockalloc: FreeList.Close: blocks are still live: 2 of them, 128 bytes in all: free them first"; err == nil || err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
	parent.has(3)
	if again := at.allocate(f, 64, 64); again != c {
		t.Errorf("a refused Close has lost %v", c)
	}
	at.free(f, a, b, c)
	parent.keeping = errors.New("not here")
	if err := f.Close(); err != parent.keeping {
		t.Errorf("Close: error %v, want the parent's", err)
	}
	parent.has(3)
	at.free(f, at.allocate(f, 64, 64)) // it is open still
	parent.keeping = nil
	for range 2 {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		parent.has(0)
	}
	at.refuses(f, a, blockalloc.ErrNotOwned)
	_, err = f.Allocate(blockalloc.BlockLayout(64))
	at.fails(err, blockalloc.ErrClosed)
	_, err = f.Allocate(blockalloc.Layout{Size: 64, Align: 3})
	at.fails(err, blockalloc.ErrBadLayout)
	if empty, err := f.Allocate(blockalloc.Layout{Size: 0, Align: 8}); err != nil || !empty.IsZero() {
		t.Errorf("Allocate of size 0 = %v, %v", empty, err)
	}
	at.fails(f.Reserve(1), blockalloc.ErrClosed)
	at.free(f, blockalloc.Block{})
	if err := f.Trim(); err != nil {
		t.Error(err)
	}
	parent.has(0)
}

// TestFreeListOfAGenerousParent: blocks have the list's size, and the parent gets
// back the blocks that it granted.
func TestFreeListOfAGenerousParent(t *testing.T) {
	at, parent := carverTest{t}, newLender(t)
	f := newFreeList(t, parent, blockalloc.Layout{Size: 100, Align: 8}, 0)
	var held []blockalloc.Block
	for parent.extra = range uintptr(20) {
		held = append(held, at.allocate(f, 100, 8)) // checks that the size is 100
		at.fill(held[parent.extra], 1)
	}
	b := at.allocate(f, 100, 8)
	if _, err := f.Reallocate(b, 101); !errors.Is(err, blockalloc.ErrOutOfMemory) {
		t.Errorf("Reallocate to more than the list's size: error %v", err)
	}
	at.free(f, b)
	if err := f.Trim(); err != nil {
		t.Error(err)
	}
	parent.has(20)
	at.free(f, held...)
}

func TestNewFreeListRefuses(t *testing.T) {
	heap := alloctest.New(t)
	for _, try := range []struct {
		block blockalloc.Layout
		max   int
		is    error
		want  string
	}{
		{blockalloc.Layout{Size: 0, Align: 8}, 1, blockalloc.ErrBadLayout, "blockalloc: NewFreeList(0 B aligned to 8, 1): bad layout: blocks of size 0: ask for 1 byte or more"},
		{blockalloc.BlockLayout(64), -1, nil, "blockalloc: NewFreeList(64 B aligned to 64, -1): a negative number of blocks: pass 0 for no bound"},
		{blockalloc.BlockLayout(999), 1, blockalloc.ErrBadLayout, "blockalloc: NewFreeList(999 B aligned to 999, 1): bad layout: alignment 999 is not a power of two: use 512 or 1024"},
	} {
		f, err := blockalloc.NewFreeList(heap, try.block, try.max)
		if f != nil || err == nil || err.Error() != try.want || try.is != nil && !errors.Is(err, try.is) {
			t.Errorf("NewFreeList = %v, %v; want %q", f, err, try.want)
		}
	}
}

func TestFreeListAllocatesNothingOnTheGoHeap(t *testing.T) {
	at := carverTest{t}
	f := newFreeList(t, new(blockalloc.Heap), blockalloc.BlockLayout(64), 0)
	at.noGoAllocations(func() {
		var blocks [20]blockalloc.Block
		for i := range blocks {
			blocks[i], _ = f.Allocate(blockalloc.BlockLayout(64))
		}
		for _, b := range blocks {
			if b, _ = f.Reallocate(b, 10); !f.Owns(b) || f.Free(b) != nil {
				panic("refused")
			}
		}
	})
}
