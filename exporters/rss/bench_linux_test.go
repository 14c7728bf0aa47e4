package rss_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/rss"
)

// BenchmarkRead measures what an account of the process costs: of a Pool of 256 MiB, and
// of a thousand mappings besides.
func BenchmarkRead(b *testing.B) {
	pool := new(blockalloc.Pool)
	mem := alloctrace.Wrap(pool)
	var blocks []blockalloc.Block
	b.Cleanup(func() {
		for _, block := range blocks {
			if err := mem.Free(block); err != nil {
				b.Error(err)
			}
		}
		if err := pool.Close(); err != nil {
			b.Error(err)
		}
	})
	for range 256 {
		block, err := mem.Allocate(blockalloc.BlockLayout(1 << 20))
		if err != nil {
			b.Fatal(err)
		}
		for i := 0; i < 1<<20; i += os.Getpagesize() {
			block.Bytes()[i] = 1
		}
		blocks = append(blocks, block)
	}
	read := func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := rss.Read(mem); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("256MiB", read)
	pages, err := unix.Mmap(-1, 0, 2000*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Munmap(pages)
	for i := 0; i < len(pages); i += 2 * os.Getpagesize() {
		pages[i] = 1
		if err := unix.Mprotect(pages[i:i+os.Getpagesize()], unix.PROT_READ); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("256MiB_2000mappings", read)
}
