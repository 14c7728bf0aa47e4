package main

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// TestListModel adds to many lists in turns, small steps and huge ones.
func TestListModel(t *testing.T) {
	mem, _ := newMemory(t)
	a := arena{mem: mem}
	random := rand.New(rand.NewPCG(3, 4))
	lists := make([]list, 300)
	want := make([][]uint64, len(lists))
	for range 300_000 {
		i := random.IntN(1 + random.IntN(1+random.IntN(len(lists)))) // some are long and some short
		line := lists[i].last + random.Uint64()>>(24+random.IntN(40))
		if err := lists[i].add(&a, line); err != nil {
			t.Fatal(err)
		}
		want[i] = append(want[i], line)
	}
	for i := range lists {
		if got := slices.Collect(lists[i].lines(&a)); !slices.Equal(got, want[i]) || lists[i].len != len(want[i]) {
			t.Fatalf("list %d has %d lines that are not the %d added", i, len(got), len(want[i]))
		}
	}
	wantBlocks(t, &a)
	if a.open[12] == nil {
		t.Error("no list is long enough for the largest chunks")
	}
	if err := a.free(mem); err != nil {
		t.Error(err)
	}
}

// wantBlocks checks that each pointer into an arena leads to its block's header,
// and each ref back to the pointer.
func wantBlocks(t *testing.T, a *arena) {
	t.Helper()
	if len(a.blocks) < 10 {
		t.Errorf("%d blocks: too few to test anything", len(a.blocks))
	}
	for number, b := range a.blocks {
		if b.Addr()%blockSize != 0 || b.Size() != blockSize {
			t.Errorf("%v is not an aligned block of 64 KiB", b)
		}
		h := (*header)(b.Pointer())
		if int(h.number) != number || h.used > blockSize || h.chunk < minChunk || h.chunk > maxChunk || h.used%h.chunk != 0 {
			t.Errorf("header of block %d is %+v", number, *h)
		}
		for offset := range ref(blockSize) {
			if got, want := atLink(a.pointer(ref(number)<<16|offset)), uint32(offset)%h.chunk == h.chunk-linkSize; got != want {
				t.Fatalf("at offset %d of a block of chunks of %d bytes atLink is %t", offset, h.chunk, got)
			}
		}
		for _, offset := range []ref{1, 4095, blockSize - 1} {
			r := ref(number)<<16 | offset
			if p := a.pointer(r); headerOf(p) != h || refOf(p) != r {
				t.Errorf("ref %#x leads to header %p and back to %#x, want %p", r, headerOf(p), refOf(p), h)
			}
		}
	}
}

func TestListEdges(t *testing.T) {
	mem, inner := newMemory(t)
	a := arena{mem: mem}
	var l list
	for range l.lines(&a) {
		t.Error("the empty list has a line")
	}
	if a.forget() {
		t.Error("the empty arena had a block to forget")
	}
	inner.left.Store(0)
	if err := l.add(&a, 1); !errors.Is(err, blockalloc.ErrOutOfMemory) {
		t.Errorf("error %v, want out of memory", err)
	}
	inner.left.Store(2) // a block for each of two sizes of chunks
	for _, line := range []uint64{0, 0, 1<<64 - 1, 1<<64 - 1} {
		if err := l.add(&a, line); err != nil {
			t.Fatal(err)
		}
	}
	if got := slices.Collect(l.lines(&a)); !slices.Equal(got, []uint64{0, 0, 1<<64 - 1, 1<<64 - 1}) {
		t.Errorf("lines are %d", got)
	}
	for range l.lines(&a) {
		break // a loop may end early
	}
	if err := a.free(mem); err != nil {
		t.Error(err)
	}
	full := arena{mem: mem, blocks: make([]blockalloc.Block, maxBlocks)}
	if _, err := full.chunk(minChunk); err == nil || !strings.Contains(err.Error(), "65536 blocks") {
		t.Errorf("an arena with no number left for a block says %v", err)
	}
}
