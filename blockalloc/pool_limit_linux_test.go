//go:build !race

package blockalloc_test

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// TestPoolOutOfMemory runs out of memory for real, by the two limits that the kernel has: of address space,
// which stops the Pool from reserving, and of writable memory, which stops it from making
// that accessible. The test's own Go heap must not grow meanwhile.
func TestPoolOutOfMemory(t *testing.T) {
	for _, test := range []struct {
		name  string
		which int
		now   func(t *testing.T) int64
		least int64 // that must be had of room
	}{
		// A chunk of 64 MiB is found in twice as much address space.
		{"RLIMIT_AS", unix.RLIMIT_AS, measure.Virtual, 3 * limitRoom / 4},
		// The pages are made accessible 4 MiB at a time.
		{"RLIMIT_DATA", unix.RLIMIT_DATA, func(t *testing.T) int64 { return status(t, "VmData") }, limitRoom - 16<<20},
	} {
		t.Run(test.name, func(t *testing.T) {
			if !ownProcess(t) {
				return
			}
			limit(t, test.which, test.now, limitRoom)
			outOfMemory(t, test.least)
		})
	}
}

// limit sets a limit on the process's memory, room bytes above its present size. If
// that fails, or the kernel does not enforce it, the test is skipped, which ownProcess
// makes a failure with ALLOCTRACE_REQUIRE_ALL=1.
func limit(t *testing.T, which int, now func(*testing.T) int64, room int64) {
	t.Helper()
	warmUp(t)
	canHave := func(size int64) bool {
		p, err := unix.MmapPtr(-1, 0, nil, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return false
		}
		if err := unix.MunmapPtr(p, uintptr(size)); err != nil {
			t.Fatal(err)
		}
		return true
	}
	if !canHave(2 * room) {
		t.Skipf("the process cannot have %d B more: raise what ulimit or the kernel lets it have", 2*room)
	}
	var rlimit unix.Rlimit
	if err := unix.Getrlimit(which, &rlimit); err != nil {
		t.Fatal(err)
	}
	rlimit.Cur = uint64(now(t) + room)
	if err := unix.Setrlimit(which, &rlimit); err != nil {
		t.Fatal(err)
	}
	if canHave(room + 1<<20) {
		t.Skip("the kernel gives the process more than its limit: run it on one that holds setrlimit")
	}
}

// warmUp has the Go runtime get the heap and the threads that the test needs: the
// runtime ends the process if it cannot.
func warmUp(t *testing.T) {
	runtime.GOMAXPROCS(2) // each processor has caches, which grow
	l := &limited{p: &blockalloc.Pool{}, blocks: make([]blockalloc.Block, 1000)}
	l.fill(t, 4096)
	l.free(t, l.n+1)
	if err := l.p.Close(); err != nil {
		t.Fatal(err)
	}
	// The runtime keeps a table of the types of which errors are made.
	_, err := failing.After(l.p, 0).Allocate(blockalloc.BlockLayout(4096))
	t.Logf("errors such as %v", fmt.Errorf("%w: %w", err, unix.ENOMEM))
	debug.SetGCPercent(-1)
	goHeap = make([]byte, 16<<20)
	clear(goHeap)
	goHeap = nil
	runtime.GC()
}

var goHeap []byte

// limitRoom is how much a limit leaves to the process.
const limitRoom = 512 << 20

type limited struct {
	p      *blockalloc.Pool
	blocks []blockalloc.Block
	n      int
}

// fill allocates from two goroutines until there is no more memory, or no room in
// blocks, and returns how much that was.
func (l *limited) fill(t *testing.T, size uintptr) (sum int64) {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				b, err := l.p.Allocate(blockalloc.BlockLayout(size))
				mu.Lock()
				full := l.n == len(l.blocks)
				if err == nil && full {
					err = l.p.Free(b)
				} else if err == nil {
					b.Bytes()[0], b.Bytes()[size-1] = byte(l.n), byte(size>>12)
					l.blocks[l.n] = b
					l.n++
					sum += int64(size)
				} else if !errors.Is(err, blockalloc.ErrOutOfMemory) || !errors.Is(err, unix.ENOMEM) {
					t.Errorf("Allocate: error %v, want ErrOutOfMemory with ENOMEM", err)
				}
				mu.Unlock()
				if err != nil || full {
					return
				}
			}
		})
	}
	wg.Wait()
	return sum
}

// free frees all blocks but every keep-th.
func (l *limited) free(t *testing.T, keep int) {
	t.Helper()
	kept := 0
	for i, b := range l.blocks[:l.n] {
		if b.Bytes()[0] != byte(i) || b.Bytes()[b.Size()-1] != byte(b.Size()>>12) {
			t.Fatalf("block %d, %v, has lost its content", i, b)
		}
		if i%keep == keep-1 {
			b.Bytes()[0] = byte(kept)
			l.blocks[kept] = b
			kept++
		} else if err := l.p.Free(b); err != nil {
			t.Fatal(err)
		}
	}
	l.n = kept
}

func outOfMemory(t *testing.T, least int64) {
	const small, middle, large = 64 << 10, 1 << 20, 16 << 20 // the last comes from System on 32 bits
	l := &limited{p: &blockalloc.Pool{}, blocks: make([]blockalloc.Block, limitRoom/small)}
	first := l.fill(t, middle)
	if first < least || first > limitRoom {
		t.Errorf("%d MiB could be had of %d", first>>20, limitRoom>>20)
	}
	second := l.blocks[1]
	if n, err := l.p.Reallocate(second, large); !errors.Is(err, blockalloc.ErrOutOfMemory) || n != second || n.Bytes()[0] != 1 {
		t.Errorf("Reallocate at the limit = %v, %v; want the block as it was and ErrOutOfMemory", n, err)
	}
	if b, err := l.p.Allocate(blockalloc.BlockLayout(128 << 20)); !errors.Is(err, blockalloc.ErrOutOfMemory) {
		t.Errorf("Allocate of a large block at the limit = %v, %v", b, err)
	}
	l.free(t, 2)
	if got := l.fill(t, middle); got < first/2 {
		t.Errorf("after half was freed %d MiB could be had of %d", got>>20, first>>21)
	}
	l.free(t, limitRoom)
	// What one size had, others get: of the small ones all but a chunk's tail.
	for _, size := range []uintptr{small, min(large, blockalloc.PoolChunkSize), middle} {
		if got := l.fill(t, size); got < first-first/16 {
			t.Errorf("blocks of %d KiB: %d MiB could be had of %d", size>>10, got>>20, first>>20)
		}
		l.free(t, 10)
		if got := l.fill(t, size); got < first/2 {
			t.Errorf("blocks of %d KiB, nine of ten freed: %d MiB could be had of %d", size>>10, got>>20, first>>20)
		}
		if err := blockalloc.CheckPool(l.p); err != nil {
			t.Error(err)
		}
		l.free(t, limitRoom)
	}
	b, err := l.p.Allocate(blockalloc.Layout{Size: uintptr(first - first/4), Align: 1}) // even System does
	if err != nil {
		t.Errorf("a large block instead of all others: %v", err)
	}
	if b, err = l.p.Reallocate(b, uintptr(first-first/8)); err != nil {
		t.Errorf("Reallocate to what is not there twice: %v", err)
	}
	for range 4 {
		n, err := l.p.Reallocate(b, 2*limitRoom)
		if !errors.Is(err, blockalloc.ErrOutOfMemory) || n != b || !l.p.Owns(b) {
			t.Fatalf("Reallocate to what is not there = %v, %v; want %v and ErrOutOfMemory", n, err, b)
		}
	}
	if err := l.p.Free(b); err != nil {
		t.Error(err)
	}
	if s := l.p.Stats(); s.LiveBlocks != 0 {
		t.Errorf("no block is live: %+v", s)
	}
	if err := l.p.Close(); err != nil {
		t.Error(err)
	}
	var s blockalloc.System
	again, err := s.Allocate(blockalloc.Layout{Size: limitRoom / 2, Align: 1})
	if err != nil {
		t.Fatalf("System, after the Pool was closed: %v", err)
	}
	if err := s.Free(again); err != nil {
		t.Error(err)
	}
}
