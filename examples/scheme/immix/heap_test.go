package immix

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
)

// roots are slots outside the heap.
type roots []Word

func (r *roots) visit(visit func([]Word)) { visit(*r) }

func newHeap(t *testing.T, mem blockalloc.Allocator, o Options) (*Heap, *roots) {
	t.Helper()
	r := &roots{}
	h := New(func() blockalloc.Allocator { return mem }, r.visit, o)
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		if h.Held() != 0 {
			t.Errorf("%d bytes are held after Close", h.Held())
		}
	})
	return h, r
}

// immediate is a Word that is no reference.
func immediate(n int) Word { return Word(n)<<3 | 1 }

// TestEvacuation keeps every sixteenth object, so that all blocks are nearly empty, and finds
// the rest in few blocks after two collections. Holes too small to be used are not needed for that.
func TestEvacuation(t *testing.T) {
	for _, c := range []struct {
		evacuate Evacuation
		max      int64
	}{{Fragmented, 5}, {Always, 5}, {Never, 100}} {
		mem := alloctest.New(t)
		h, r := newHeap(t, mem, Options{Evacuate: c.evacuate, Check: true, Allowance: 64 << 20})
		fill := immediate(0)
		for i := range 40_000 {
			w, err := h.NewWords(1, 10, &fill)
			if err != nil {
				t.Fatal(err)
			}
			h.Set(w, 0, immediate(i))
			if i%16 == 0 {
				*r = append(*r, w)
			}
		}
		full := h.Held() / BlockSize
		var moved int64
		for range 40 { // each moves as much as fits the free blocks
			if err := h.Collect(); err != nil {
				t.Fatal(err)
			}
			last, _ := h.Last()
			moved += last.Moved
		}
		last, _ := h.Last()
		used := int64(len(h.used))
		t.Logf("evacuation %d: %d blocks, then %d; %d objects moved", c.evacuate, full, used, moved)
		if last.Live != int64(len(*r))*88 || last.Objects != int64(len(*r)) {
			t.Errorf("%d bytes in %d objects are live", last.Live, last.Objects)
		}
		if lives := last.Live/int64(BlockSize-firstByte) + 1; c.evacuate != Never && (used > lives*2 || moved == 0) {
			t.Errorf("evacuation %d: %d of %d blocks are used for what would fit %d; %d objects moved", c.evacuate, used, full, lives, moved)
		} else if c.evacuate == Never && (used < full-2 || moved != 0) {
			t.Errorf("without evacuation %d of %d blocks are used; %d objects moved", used, full, moved)
		}
		for i, w := range *r {
			if h.Get(w, 0) != immediate(i*16) {
				t.Fatalf("object %d has %#x", i, h.Get(w, 0))
			}
		}
	}
}

// TestHoles allocates into the holes between live objects without further blocks.
func TestHoles(t *testing.T) {
	mem := alloctest.New(t)
	h, r := newHeap(t, mem, Options{Evacuate: Never, Allowance: 1 << 30})
	fill := immediate(0)
	small := func() Word {
		t.Helper()
		w, err := h.NewWords(1, 15, &fill) // a line
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	for i := range 4000 {
		if w := small(); i%4 == 0 {
			*r = append(*r, w)
		}
	}
	if err := h.Collect(); err != nil {
		t.Fatal(err)
	}
	before, live := h.Held(), slices.Clone(*r)
	for range 1000 { // of the three free lines of four, the first is skipped
		*r = append(*r, small(), small())
	}
	if h.Held() != before {
		t.Errorf("%d bytes are held after 2000 objects were put into holes, %d before", h.Held(), before)
	}
	if !slices.Equal(live, (*r)[:len(live)]) {
		t.Error("objects moved without evacuation")
	}
	seen := make(map[Word]bool)
	for _, w := range *r {
		if seen[w] {
			t.Fatalf("%#x was allocated twice", w)
		}
		seen[w] = true
	}
}

// TestBlocks: blocks come aligned to their size, and what is not needed goes back.
func TestBlocks(t *testing.T) {
	mem := alloctest.New(t)
	h, r := newHeap(t, mem, Options{})
	fill := immediate(0)
	for range 200 {
		w, err := h.NewWords(1, 1000, &fill)
		if err != nil {
			t.Fatal(err)
		}
		*r = append(*r, w)
		if large, err := h.NewBytes(2, 100_000); err != nil {
			t.Fatal(err)
		} else {
			*r = append(*r, large)
		}
	}
	for _, b := range h.blocks {
		if b.Addr()%BlockSize != 0 {
			t.Fatalf("%v is not aligned to 32 KiB", b)
		}
	}
	full := h.Held()
	if live := mem.Stats().LiveBytes; live != full {
		t.Errorf("%d bytes are held, and the Proxy counts %d", full, live)
	}
	*r = nil
	for range 2 { // the first keeps as many blocks as may be needed soon
		if err := h.Collect(); err != nil {
			t.Fatal(err)
		}
	}
	if h.Held() > 1<<20 || h.Held() != mem.Stats().LiveBytes {
		t.Errorf("%d bytes are held when nothing is live, %d before; the Proxy counts %d", h.Held(), full, mem.Stats().LiveBytes)
	}
}

// TestOutOfMemory: an object that does not fit is an error, and the heap works on.
func TestOutOfMemory(t *testing.T) {
	h, r := newHeap(t, blockalloc.NewLimit(alloctest.New(t), 1<<20), Options{Check: true})
	fill := immediate(0)
	list := func() (n int) {
		*r = roots{0}
		for {
			w, err := h.NewWords(1, 2, &fill)
			if errors.Is(err, blockalloc.ErrOutOfMemory) && errors.Is(err, blockalloc.ErrLimit) {
				return n
			} else if err != nil {
				t.Fatal(err)
			}
			h.Set(w, 1, (*r)[0])
			(*r)[0] = w
			n++
		}
	}
	first := list()
	if first < 30_000 {
		t.Errorf("only %d objects of 24 bytes fit 1 MiB", first)
	}
	if !h.emergency {
		t.Error("out of memory, and no emergency")
	}
	if n := list(); n < first*9/10 {
		t.Errorf("%d objects fit when the first %d are dead", n, first)
	}
	if _, err := h.NewBytes(1, 1<<30); !errors.Is(err, blockalloc.ErrOutOfMemory) {
		t.Errorf("1 GiB in 1 MiB: %v", err)
	}
	if _, err := h.NewBytes(1, -1); !errors.Is(err, blockalloc.ErrOutOfMemory) || !strings.HasPrefix(err.Error(), "immix: NewBytes: ") {
		t.Errorf("a negative size: %v", err)
	}
	if _, err := h.NewWords(1, 1<<30, &fill); !errors.Is(err, blockalloc.ErrOutOfMemory) || !strings.HasPrefix(err.Error(), "immix: NewWords: ") {
		t.Errorf("8 GiB: %v", err)
	}
}

// TestNearlyFull: where collections free hardly anything any more, the heap is out of memory. It does not
// collect for each line that the next objects need.
func TestNearlyFull(t *testing.T) {
	h, r := newHeap(t, blockalloc.NewLimit(alloctest.New(t), 1<<20), Options{})
	fill := immediate(0)
	*r = roots{0}
	for i := 0; ; i++ {
		w, err := h.NewWords(1, 2, &fill)
		if errors.Is(err, blockalloc.ErrOutOfMemory) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if i%16 == 0 { // the others are garbage
			h.Set(w, 1, (*r)[0])
			(*r)[0] = w
		}
	}
	last, n := h.Last()
	t.Logf("%d collections, the last: %+v", n, last)
	if last.Live < 700_000 || n > 250 {
		t.Errorf("%d collections until %d bytes of 1 MiB were live", n, last.Live)
	}
}

// TestDangling plants a root that the collector is not told of. It is found by the collection that meets it
// in the heap, and by a debug.Allocator when the memory of its block is read or written.
func TestDangling(t *testing.T) {
	plant := func(t *testing.T, mem blockalloc.Allocator) (h *Heap, r *roots, lost Word) {
		h, r = newHeap(t, mem, Options{Check: true})
		fill := immediate(0)
		lost, err := h.NewBytes(1, 50_000)
		if err != nil {
			t.Fatal(err)
		}
		keeper, err := h.NewWords(1, 2, &fill)
		if err != nil {
			t.Fatal(err)
		}
		*r = roots{keeper}
		if err := h.Collect(); err != nil {
			t.Fatal(err)
		}
		return h, r, lost
	}
	panics := func(t *testing.T, want string, f func() error) {
		t.Helper()
		defer func() {
			if got := fmt.Sprint(recover()); !strings.Contains(got, want) {
				t.Errorf("panic %q, want %q", got, want)
			}
		}()
		f()
	}
	t.Run("freed block", func(t *testing.T) {
		h, r, lost := plant(t, alloctest.New(t))
		h.Set((*r)[0], 1, lost)
		panics(t, "its block was freed", h.Collect)
	})
	t.Run("free lines", func(t *testing.T) {
		h, r, _ := plant(t, alloctest.New(t))
		fill := immediate(0)
		lost, err := h.NewWords(1, 2, &fill)
		for range 40 { // the line after a live one is never used
			if _, err := h.NewWords(1, 2, &fill); err != nil {
				t.Fatal(err)
			}
		}
		lost2, err2 := h.NewWords(1, 2, &fill)
		if err := errors.Join(err, err2, h.Collect()); err != nil {
			t.Fatal(err)
		}
		h.Set((*r)[0], 0, lost2)
		panics(t, "it refers to free lines", h.Collect)
		_ = lost
	})
	t.Run("write", func(t *testing.T) {
		d := debug.New(&blockalloc.Heap{}, debug.Options{})
		h, _, lost := plant(t, d)
		h.Set(lost, 12, immediate(1)) // which does not read how large the object is
		err := d.Check()
		if report := (*debug.Report)(nil); !errors.As(err, &report) || !errors.Is(err, blockalloc.ErrUseAfterFree) || report.Offset != int(firstByte+wordSize+12*wordSize) {
			t.Errorf("a write to a freed block: %v", err)
		}
	})
	t.Run("guard", func(t *testing.T) {
		d := debug.New(&blockalloc.Heap{}, debug.Options{Guard: true})
		h, _, lost := plant(t, d)
		if d.Stats().GuardedBlocks == 0 {
			t.Skip("this platform has no guard pages")
		}
		var b byte
		err := d.Catch(func() { b = h.Bytes(lost)[100] })
		report := (*debug.Report)(nil)
		if !errors.As(err, &report) || !errors.Is(err, blockalloc.ErrUseAfterFree) || !report.Fault {
			t.Fatalf("a read of a freed block gave %d: %v", b, err)
		}
		if !strings.Contains(report.Allocated.String(), "Heap") || !strings.Contains(report.Freed.String(), "release") {
			t.Errorf("the report does not say who: %v", report)
		}
	})
}

// TestWeak: the owner of weak references learns what has moved and what is dead.
func TestWeak(t *testing.T) {
	var weak []Word
	o := Options{Evacuate: Always, Check: true, Weak: func(moved func(Word) (Word, bool)) {
		kept := weak[:0]
		for _, w := range weak {
			if w, ok := moved(w); ok {
				kept = append(kept, w)
			}
		}
		weak = kept
	}}
	h, r := newHeap(t, alloctest.New(t), o)
	fill := immediate(0)
	for i := range 100 {
		w, err := h.NewWords(1, 1, &fill)
		if err != nil {
			t.Fatal(err)
		}
		weak = append(weak, w)
		if i%2 == 0 {
			*r = append(*r, w)
		}
	}
	old := slices.Clone(*r)
	if err := h.Collect(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(weak, *r) || slices.Equal(old, *r) {
		t.Errorf("weak references %x, roots %x, before %x", weak, *r, old)
	}
}

// TestParallel has heaps in several goroutines, over one Proxy.
func TestParallel(t *testing.T) {
	mem := alloctest.New(t)
	t.Run("heaps", func(t *testing.T) {
		for i := range uint64(4) {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				h, r := newHeap(t, mem.Child(fmt.Sprint(i)), Options{Evacuate: Always, Allowance: 128 << 10})
				m := &model{t: t, rng: rand.New(rand.NewPCG(i, 2)), h: h, roots: r}
				m.run(5000)
			})
		}
	})
	alloctest.AssertLive(t, mem, 0, 0)
}

// TestAround: a collection frees and allocates through the allocator that it is given.
func TestAround(t *testing.T) {
	mem := alloctrace.Wrap(alloctest.New(t))
	n := 0
	h, _ := newHeap(t, mem, Options{Around: func(collect func(blockalloc.Allocator) Collection) {
		c := collect(mem.Child("collector"))
		n++
		if c.Before == 0 || c.Live != 0 {
			t.Errorf("%+v", c)
		}
	}})
	if _, err := h.NewBytes(1, 100_000); err != nil {
		t.Fatal(err)
	}
	if err := h.Collect(); err != nil || n != 1 {
		t.Errorf("%d calls, %v", n, err)
	}
}
