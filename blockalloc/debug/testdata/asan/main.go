// Command asan does with blocks of a debug.Allocator what its first argument says, for a test that
// builds it with -asan; the second names its parent.
package main

/*
static char peek(const char *p) { return *p; }

// poke is code that AddressSanitizer does not look at.
__attribute__((no_sanitize("address"))) static void poke(char *p) { *p = 1; }
*/
import "C"

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
)

var parents = map[string]func() blockalloc.Allocator{
	"Heap":   func() blockalloc.Allocator { return new(blockalloc.Heap) },
	"Pool":   func() blockalloc.Allocator { return new(blockalloc.Pool) },
	"System": func() blockalloc.Allocator { return new(blockalloc.System) },
}

var sink byte

//go:noinline
func read(p unsafe.Pointer) { sink += *(*byte)(p) }

//go:noinline
func write(p unsafe.Pointer) { *(*byte)(p) = 1 }

//go:noinline
func readInC(p unsafe.Pointer) { sink += byte(C.peek((*C.char)(p))) }

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func allocate(d *debug.Allocator, size, align uintptr) blockalloc.Block {
	b, err := d.Allocate(blockalloc.Layout{Size: size, Align: align})
	must(err)
	return b
}

func main() {
	parent := parents[os.Args[2]]()
	d := debug.New(parent, debug.Options{})
	b := allocate(d, 61, 8)
	p := b.Pointer()
	if os.Args[1] == "storm" {
		must(d.Free(b))
		must(d.Close())
		damaged(parent)
		neighbours(parent)
		storm(parent)
		return
	}
	read(unsafe.Add(p, 60))
	must(d.Check())
	switch os.Args[1] {
	case "past the end":
		read(unsafe.Add(p, 61))
	case "before the start":
		write(unsafe.Add(p, -1))
	case "after free":
		must(d.Free(b))
		must(d.Check())
		read(p)
	case "past the end in C":
		readInC(unsafe.Add(p, 61))
	case "after free in C":
		must(d.Free(b))
		readInC(p)
	}
	fmt.Println("not found")
}

// damaged blocks are found by their canaries where AddressSanitizer does not look.
func damaged(parent blockalloc.Allocator) {
	d := debug.New(parent, debug.Options{})
	b := allocate(d, 61, 8)
	C.poke((*C.char)(unsafe.Add(b.Pointer(), 61)))
	if err := d.Free(b); !errors.Is(err, blockalloc.ErrOverrun) {
		panic(err)
	}
	must(d.Free(b))
	C.poke((*C.char)(b.Pointer()))
	if err := d.Close(); !errors.Is(err, blockalloc.ErrUseAfterFree) {
		panic(err)
	}
	must(d.Close())
}

// neighbours are blocks that lie side by side, of which every second is a debug.Allocator's.
func neighbours(parent blockalloc.Allocator) {
	bump, err := blockalloc.NewBump(parent, 1<<16)
	must(err)
	d := debug.New(bump, debug.Options{Canary: -1})
	var others []blockalloc.Block
	for size := range uintptr(100) {
		b := allocate(d, 1+size, 1)
		other, err := bump.Allocate(blockalloc.Layout{Size: 1 + size*7%23, Align: 1})
		must(err)
		must(d.Free(b))
		others = append(others, other)
	}
	for _, b := range others {
		for i := range b.Bytes() {
			b.Bytes()[i]++
		}
	}
	must(d.Close())
	must(bump.Close())
}

// storm does nothing wrong. The Allocators of its second half are not closed: they and all
// their memory, which is forbidden, become garbage and are used again.
func storm(parent blockalloc.Allocator) {
	for _, o := range []debug.Options{
		{QuarantineBlocks: 20}, {Canary: -1, QuarantineBlocks: 20}, {Canary: 3, NoPoison: true, Quarantine: -1},
		{ZeroFree: true, QuarantineBlocks: 5}, {Guard: true, MaxGuarded: 30, QuarantineBlocks: 20}, {Guard: true, Quarantine: -1},
	} {
		d := debug.New(parent, o)
		outer := debug.New(d, debug.Options{QuarantineBlocks: 10})
		var workers sync.WaitGroup
		for w := range 4 {
			workers.Go(func() { work(outer, uint64(w)) })
		}
		workers.Wait()
		must(outer.Close())
		must(d.Close())
	}
	for i := range 50 {
		d := debug.New(new(blockalloc.Heap), debug.Options{})
		for size := range uintptr(100) {
			b := allocate(d, 1+size*50, 1)
			if size%2 == 0 {
				must(d.Free(b))
			}
		}
		if i%10 == 0 {
			runtime.GC()
		}
		garbage(i)
	}
}

func work(d *debug.Allocator, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 11))
	var blocks []blockalloc.Block
	for i := range 500 {
		switch n := len(blocks); {
		case n < 20 || rnd.IntN(3) == 0:
			blocks = append(blocks, allocate(d, 1+uintptr(rnd.UintN(6000)), 1<<rnd.IntN(8)))
		default:
			at := rnd.IntN(n)
			b := blocks[at]
			clear(b.Bytes())
			if rnd.IntN(2) == 0 {
				moved, err := d.Reallocate(b, 1+uintptr(rnd.UintN(6000)))
				must(err)
				blocks[at] = moved
				continue
			}
			must(d.Free(b))
			blocks[at] = blocks[n-1]
			blocks = blocks[:n-1]
		}
		if i%100 == 0 {
			must(d.Check())
			garbage(i)
		}
	}
	for _, b := range blocks {
		must(d.Free(b))
	}
}

// garbage writes to fresh memory of the Go heap, and to a deep stack.
func garbage(seed int) {
	for i := range 200 {
		mem := make([]byte, 1+(seed*31+i*97)%9000)
		for j := 0; j < len(mem); j += 8 {
			mem[j] = byte(j)
		}
	}
	done := make(chan byte)
	go func() { done <- deep(100) }()
	sink += <-done
}

func deep(n int) byte {
	var room [100]byte
	for i := range room {
		room[i] = byte(n + i)
	}
	if n == 0 {
		return room[0]
	}
	return deep(n-1) + room[n%100]
}
