package reach

import (
	"errors"
	"io"
	"math/bits"
	"reflect"
	"runtime"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/heapdump"
)

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
				waiters += count(rec.Kind == heapdump.Object && uintptr(rec.Size) == waiterPlace && rec.Pointers == waiterPointers)
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
