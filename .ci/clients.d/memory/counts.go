package memory

import (
	"context"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/alloctrace/alloctrace"
)

// counts are the figures of one process, in a mapping of a file: they are right however the process
// ends, and it needs no code at its end. Package compare adds up those of all processes.
type counts struct {
	allocations, allocatedBytes atomic.Int64
	liveBlocks, liveBytes       atomic.Int64
	refused                     atomic.Int64 // frees and reallocations that failed
}

func newCounts(dir string) (*counts, error) {
	f, err := os.CreateTemp(dir, "counts-*")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size := unsafe.Sizeof(counts{})
	if err := f.Truncate(int64(size)); err != nil {
		return nil, err
	}
	p, err := unix.MmapPtr(int(f.Fd()), 0, nil, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return (*counts)(p), nil
}

// Observe counts e.
func (c *counts) Observe(_ context.Context, e alloctrace.Event, _ error) {
	switch e.Kind {
	case alloctrace.Allocated, alloctrace.Reallocated:
		c.allocations.Add(1)
		c.allocatedBytes.Add(int64(e.Size))
		c.add(1, e)
	case alloctrace.Reallocating, alloctrace.Freeing:
		c.add(-1, e)
	case alloctrace.ReallocateFailed, alloctrace.FreeFailed:
		c.refused.Add(1)
		if e.Addr != 0 {
			c.add(1, e)
		}
	}
}

func (c *counts) add(blocks int64, e alloctrace.Event) {
	c.liveBlocks.Add(blocks)
	c.liveBytes.Add(blocks * int64(e.Size))
}
