//go:build !race

package blockalloc_test

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// residentPages counts the pages of b that have memory behind them.
func residentPages(t *testing.T, b blockalloc.Block) (n int) {
	t.Helper()
	vector := make([]byte, (int(b.Size())+os.Getpagesize()-1)/os.Getpagesize())
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, b.Addr(), b.Size(), uintptr(unsafe.Pointer(&vector[0]))); errno != 0 {
		t.Fatalf("mincore: %v", errno)
	}
	for _, v := range vector {
		n += int(v & 1)
	}
	return n
}

// TestZeroedIsUntouched: zeroed blocks for which there is no memory yet get none before they are written to: fresh
// ones of a Pool and of System, those of a Pool after Trim, and those that a Slab and a FreeList get from a Pool.
func TestZeroedIsUntouched(t *testing.T) {
	if !ownProcess(t) {
		return
	}
	const slack = 4 << 20 // runs and tables, and the Go heap's own growth
	total := uintptr(64 << 20)
	if testing.Short() {
		total = 16 << 20
	}
	for _, size := range []uintptr{16 << 10, 1 << 20, 33 << 20} {
		for name, over := range map[string]func(*blockalloc.Pool) blockalloc.Allocator{
			"Pool":   func(p *blockalloc.Pool) blockalloc.Allocator { return p },
			"System": func(*blockalloc.Pool) blockalloc.Allocator { return new(blockalloc.System) },
			"Slab":   func(p *blockalloc.Pool) blockalloc.Allocator { return newSlab(t, p, 4<<10) },
			"FreeList": func(p *blockalloc.Pool) blockalloc.Allocator {
				return newFreeList(t, p, blockalloc.Layout{Size: size, Align: 4 << 10}, 0)
			},
			"Fallback": func(p *blockalloc.Pool) blockalloc.Allocator {
				return blockalloc.NewFallback(blockalloc.Null{}, blockalloc.NewLimit(p, 1<<30))
			},
		} {
			t.Run(fmt.Sprint(name, "/", size), func(t *testing.T) {
				var p blockalloc.Pool
				t.Cleanup(func() {
					if err := p.Close(); err != nil {
						t.Error(err)
					}
				})
				a := over(&p)
				for round := range 2 {
					blocks := make([]blockalloc.Block, 0, total/size)
					before := resident(t)
					for range max(1, total/size) {
						b, err := a.Allocate(blockalloc.Layout{Size: size, Align: 1, Zeroed: true})
						if err != nil {
							t.Fatal(err)
						}
						blocks = append(blocks, b)
					}
					pages := 0
					for _, b := range blocks {
						pages += residentPages(t, b)
					}
					if grown := resident(t) - before; pages > 0 || grown > slack {
						t.Errorf("round %d: %d bytes of zeroed blocks that nobody has touched have %d pages, and the process has grown by %d bytes", round, total, pages, grown)
					}
					for _, b := range blocks {
						b.Bytes()[b.Size()-1] = 1
						if n := residentPages(t, b); n != 1 {
							t.Fatalf("%d pages of %v are there after a write to one", n, b)
						}
						if size < 1<<20 && bytes.IndexByte(b.Bytes(), 1) != int(b.Size()-1) {
							t.Fatalf("%v is not zero", b)
						}
						if err := a.Free(b); err != nil {
							t.Fatal(err)
						}
					}
					if trimmer, ok := a.(interface{ Trim() error }); ok {
						if err := trimmer.Trim(); err != nil {
							t.Fatal(err)
						}
					}
					if err := p.Trim(); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
}
