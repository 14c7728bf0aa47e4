package reach

import (
	"errors"
	"io"
	"math/bits"
	"math/rand/v2"
	"reflect"
	"runtime"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/heapdump"
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
	buffer := make([]uintptr, 3*barrierWords)
	addr := uintptr(unsafe.Pointer(unsafe.SliceData(buffer)))
	object := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(buffer))), uintptr(len(buffer))*wordSize)
	if isProcessor(addr, object) || isGoroutine(addr, object) {
		t.Error("zeroed memory is the runtime's")
	}
	for start, want := range map[uintptr]bool{20: false, barrierWords + 20: true, 2 * barrierWords: true} {
		clear(buffer)
		first := addr + start*wordSize
		buffer[start-2], buffer[start-1] = first+3*wordSize, first+barrierWords*wordSize
		if got := isProcessor(addr, object); got != want {
			t.Errorf("with a write barrier's buffer at word %d it is a processor: %v", start, got)
		}
	}
	for _, at := range []uintptr{0, 8 / wordSize} {
		clear(buffer)
		buffer[at+3] = ^uintptr(0)
		if isGoroutine(addr, object) {
			t.Error("four words make a goroutine")
		}
		buffer[at+9] = addr + at*wordSize
		if !isGoroutine(addr, object) || isGoroutine(addr, object[:(at+9)*wordSize]) {
			t.Errorf("a goroutine at word %d is none, or a part of it is one", at)
		}
	}
}

// TestBitmap: objects with pointers are where their page has no bitmap, and the place behind the last of them is where it has.
func TestBitmap(t *testing.T) {
	for words := 1; words <= 64; words++ {
		array := reflect.ArrayOf(words, reflect.TypeFor[*int]())
		var last uint64 // where in a page the last object begins
		sizes := make(map[uint64]bool)
		var before uint64
		for range 4 * heapPage / int(array.Size()) {
			addr := uint64(reflect.New(array).Pointer())
			if isBitmap(addr, uint64(array.Size())) {
				t.Fatalf("an object of %d bytes at %#x is taken for the bitmap", array.Size(), addr)
			}
			last = max(last, addr%heapPage)
			sizes[addr-before], before = true, addr
		}
		size := uint64(array.Size()) // that of the place, if it is more, is how far two objects are from each other at least
		for ; !sizes[size]; size++ {
		}
		if size <= 8*uint64(wordSize*wordSize) && last+2*size <= heapPage && !isBitmap(last+size, size) {
			t.Errorf("objects of %d bytes end at %d of a page, and there is no bitmap", size, last+size)
		}
	}
	if isBitmap(6*heapPage, heapPage) {
		t.Error("an object of a whole page is taken for the bitmap")
	}
}

// TestRuntimes: a dump has the runtime's objects as they are known here, which a new release of Go can change.
func TestRuntimes(t *testing.T) {
	const waiting = 20
	end := make(chan struct{})
	defer close(end)
	for range waiting {
		go func() { <-end }()
	}
	for {
		var waits, goroutines, processors, waiters int
		_, err := Dump(t.Context(), func(dump io.Reader) error {
			r, err := heapdump.NewReader(dump)
			for err == nil {
				var rec heapdump.Record
				rec, err = r.Next(func(rec *heapdump.Record, _ uint64, piece []byte) {
					if rec.Kind == heapdump.Object && rec.Size == uint64(len(piece)) {
						goroutines += count(isGoroutine(uintptr(rec.Addr), piece))
						processors += count(isProcessor(uintptr(rec.Addr), piece))
					}
				})
				waits += count(rec.Kind == heapdump.Goroutine && rec.Reason == "chan receive")
				waiters += count(rec.Kind == heapdump.Object && rec.Size == waiterSize && rec.Pointers == waiterPointers)
			}
			if err == io.EOF {
				return nil
			}
			return err
		})
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		if waits < waiting {
			continue
		}
		if goroutines < waiting || processors < runtime.GOMAXPROCS(0) || bits.UintSize == 64 && waiters < waiting {
			t.Errorf("%d goroutines wait: %d goroutines, %d processors, %d waiters", waits, goroutines, processors, waiters)
		}
		return
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}
