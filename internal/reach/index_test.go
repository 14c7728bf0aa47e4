package reach

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"unsafe"
)

// nested returns blocks side by side and in each other.
func nested(rnd *rand.Rand, addr, size uintptr, depth int, list []Block) []Block {
	for at := addr; at < addr+size; {
		b := Block{at, min(addr+size-at, 1+uintptr(rnd.IntN(int(size))))}
		if rnd.IntN(4) > 0 {
			list = append(list, b)
			if depth > 0 && rnd.IntN(2) == 0 {
				list = nested(rnd, b.Addr, b.Size, depth-1, list)
			}
		}
		at = b.end()
	}
	return list
}

// TestIndex: the innermost block of each address is found, and each byte is its own block's alone.
func TestIndex(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		const base, size = 1000, 300
		blocks := nested(rnd, base, size, 3, nil)
		rnd.Shuffle(len(blocks), func(i, j int) { blocks[i], blocks[j] = blocks[j], blocks[i] })
		x := newIndex(blocks)
		owner := make(map[uintptr]int)
		for i := range x.blocks {
			if x.blocks[i] != blocks[x.place[i]] {
				t.Fatalf("block %d is %v, not %v", i, x.blocks[i], blocks[x.place[i]])
			}
			x.own(i, func(addr, size uintptr) {
				for a := addr; a < addr+size; a++ {
					if other, ok := owner[a]; ok {
						t.Fatalf("%d is of blocks %v and %v", a, x.blocks[i], x.blocks[other])
					}
					owner[a] = i
				}
			})
		}
		for a := uintptr(base - 10); a < base+size+10; a++ {
			got := x.find(a)
			smallest := none
			for i, b := range x.blocks {
				if b.has(a) && (smallest == none || b.Size <= x.blocks[smallest].Size) {
					smallest = i
				}
			}
			if smallest == none {
				if got != none {
					t.Fatalf("%d is in no block, and was found in %v", a, x.blocks[got])
				}
			} else if got == none || x.blocks[got] != x.blocks[smallest] || owner[a] != got {
				t.Fatalf("%d is in %v, and was found in block %d, and is of block %d", a, x.blocks[smallest], got, owner[a])
			}
			n := uintptr(1 + rnd.IntN(20))
			overlaps := false
			for b := a; b < a+n; b++ {
				_, ok := owner[b]
				overlaps = overlaps || ok
			}
			if x.overlaps(a, n) != overlaps {
				t.Fatalf("%d bytes at %d overlap: %v", n, a, !overlaps)
			}
		}
	}
}

// TestPatterns: an entry of the table of Mmap is told from a slice, and the runtime's own addresses from others.
func TestPatterns(t *testing.T) {
	memory := make([]byte, 100)
	base := uintptr(unsafe.Pointer(unsafe.SliceData(memory)))
	words := []uintptr{7, base + 99, base, 100, 100, base, 100, 200}
	piece := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), uintptr(len(words))*wordSize)
	for i, want := range []bool{1: true, 2: true, 5: false, 7: false} {
		if got := isMapping(piece, uintptr(i)*wordSize); got != want {
			t.Errorf("word %d is of a mapping: %v", i, got)
		}
	}
	buffer := make([]uintptr, 600)
	addr := uintptr(unsafe.Pointer(unsafe.SliceData(buffer)))
	object := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(buffer))), uintptr(len(buffer))*wordSize)
	if got := skippedOf(addr, object); got != (part{}) {
		t.Errorf("skipped in zeroed memory: %v", got)
	}
	const start = 20
	first := addr + start*wordSize
	buffer[start-2], buffer[start-1] = first+3*wordSize, first+barrierWords*wordSize
	if got := skippedOf(addr, object); got != (part{start * wordSize, barrierWords * wordSize}) {
		t.Errorf("skipped of a write barrier's buffer: %v", got)
	}
	for _, at := range []uintptr{0, 8 / wordSize} {
		clear(buffer)
		buffer[at+3] = ^uintptr(0)
		if got := skippedOf(addr, object); got != (part{}) {
			t.Errorf("skipped of no goroutine: %v", got)
		}
		buffer[at+9] = addr + at*wordSize
		if got := skippedOf(addr, object); got != (part{at * wordSize, goroutineWords * wordSize}) {
			t.Errorf("skipped of a goroutine: %v", got)
		}
	}
}

// TestBitmap: no object with pointers is where its page has the bitmap, and some place in such a page is.
func TestBitmap(t *testing.T) {
	for words := 1; words <= 64; words++ {
		array := reflect.ArrayOf(words, reflect.TypeFor[*int]())
		for range 500 {
			p := reflect.New(array)
			if addr, size := uint64(p.Pointer()), uint64(array.Size()); size <= 8*uint64(wordSize*wordSize) && isBitmap(addr, size) {
				t.Fatalf("an object of %d bytes at %#x is taken for the bitmap", size, addr)
			}
		}
	}
	const size = 7 * uint64(wordSize)
	if end := heapPage - heapPage%size; !isBitmap(7*heapPage+end-size, size) || isBitmap(7*heapPage+end-size, heapPage) {
		t.Error("the end of a page is not taken for the bitmap, or that of an object of a whole page is")
	}
}
