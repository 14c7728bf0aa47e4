package blockalloc_test

import (
	"cmp"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/shard/shardtest"
)

// TestPoolStats follows the figures through a life of blocks.
func TestPoolStats(t *testing.T) {
	shardtest.Stay(t)
	p := poolOf(t, &blockalloc.Pool{})
	page := int64(os.Getpagesize())
	size := page
	run := int64(blockalloc.PoolRunBlocks(uintptr(size))) * size
	chunk := int64(blockalloc.PoolChunkSize)
	is := func(what string, blocks, inUse, cached, carved int64) {
		t.Helper()
		s := p.Stats()
		if s.LiveBlocks != blocks || s.LiveBytes != inUse || s.Cached != cached || s.Carved != carved {
			t.Errorf("%s: %+v, want %d blocks, %d B in use, %d cached, %d carved", what, s, blocks, inUse, cached, carved)
		}
		if s.Committed < s.Carved || s.Reserved < s.Committed {
			t.Errorf("%s: %+v: what is carved is part of what is committed, and that of what is reserved", what, s)
		}
		want := 0.0
		if carved > 0 {
			want = 1 - float64(inUse)/float64(carved)
		}
		if got := s.Fragmentation(); got != want {
			t.Errorf("%s: fragmentation %v, want %v", what, got, want)
		}
	}
	l := blockalloc.Layout{Size: uintptr(size) - 1, Align: 1}
	is("unused", 0, 0, 0, 0)
	a := poolAllocate(t, p, l)
	is("one block", 1, size, 0, run)
	b := poolAllocate(t, p, l)
	is("two", 2, 2*size, 0, run)
	poolFree(t, p, a)
	is("one again", 1, size, size, run)
	a = poolAllocate(t, p, l)
	is("the same place", 2, 2*size, 0, run)
	poolFree(t, p, a, b)
	is("none", 0, 0, 2*size, run)
	a = poolAllocate(t, p, blockalloc.BlockLayout(uintptr(chunk)))
	is("a chunk", 1, chunk, 2*size, run+chunk)
	poolFree(t, p, a)
	is("no chunk", 0, 0, 2*size+chunk, run+chunk)
	a = poolAllocate(t, p, blockalloc.Layout{Size: uintptr(chunk + 3*page), Align: 1})
	is("a large block", 1, chunk+3*page, 2*size+chunk, run+2*chunk+3*page)
	a, err := p.Reallocate(a, uintptr(chunk+page))
	if err != nil {
		t.Fatal(err)
	}
	is("a smaller block", 1, chunk+page, 2*size+chunk, run+2*chunk+page)
	if err := p.Trim(); err != nil {
		t.Fatal(err)
	}
	is("trimmed", 1, chunk+page, 0, chunk+page)
	poolFree(t, p, a)
	is("nothing", 0, 0, 0, 0)
}

// TestPoolTrimKeepsWhatIsLive: each pattern of live and free blocks in a run survives with its
// content, and only free blocks lose theirs.
func TestPoolTrimKeepsWhatIsLive(t *testing.T) {
	shardtest.Stay(t)
	var purged int64
	pages := &blockalloc.PoolPages{}
	p := poolOver(t, pages, 0)
	page := uintptr(os.Getpagesize())
	n := blockalloc.PoolRunBlocks(page)
	for _, pattern := range []func(i int) bool{
		func(int) bool { return false },
		func(int) bool { return true },
		func(i int) bool { return i == 0 },
		func(i int) bool { return i == n-1 },
		func(i int) bool { return i > 0 && i < n-1 },
		func(i int) bool { return i%2 == 0 },
		func(i int) bool { return i%7 < 4 },
	} {
		blocks := make([]blockalloc.Block, n)
		for i := range blocks {
			blocks[i] = poolAllocate(t, p, blockalloc.BlockLayout(page))
			imprint(blocks[i], page, i)
		}
		var free int64
		for i, b := range blocks {
			if !pattern(i) {
				poolFree(t, p, b)
				free++
			}
		}
		purged = 0
		pages.Before = func(c blockalloc.PoolCall) error {
			if c.Name == "purge" {
				purged += int64(c.Size)
			}
			return nil
		}
		if s := p.Stats(); s.Cached != free*int64(page) {
			t.Errorf("%d of %d blocks are free: %+v", free, n, s)
		}
		if err := p.Trim(); err != nil {
			t.Fatal(err)
		}
		if s := p.Stats(); s.Cached != 0 || s.LiveBlocks != int64(n)-free || purged < free*int64(page) {
			t.Errorf("%d of %d blocks were free when trimmed: %+v, %d B given back", free, n, s, purged)
		}
		if err := blockalloc.CheckPool(p); err != nil {
			t.Error(err)
		}
		for i, b := range blocks {
			if pattern(i) {
				if err := imprinted(b, page, page, i); err != nil {
					t.Error(err)
				}
				poolFree(t, p, b)
			}
		}
		if err := p.Trim(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPoolDoesNotAllocate: an operation makes no Go garbage, except a run of 128 B that
// is carved now and then.
func TestPoolDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Log("under the race detector blocks come from the Go heap")
		return
	}
	p := poolOf(t, &blockalloc.Pool{})
	page := uintptr(os.Getpagesize())
	var many [300]blockalloc.Block
	for name, f := range map[string]func() error{
		"a page":   func() error { return pair(p, page) },
		"16 pages": func() error { return pair(p, 16*page) },
		"a chunk":  func() error { return pair(p, blockalloc.PoolChunkSize) },
		"many": func() error {
			for i := range many {
				b, err := p.Allocate(blockalloc.BlockLayout(page))
				if err != nil {
					return err
				}
				many[i] = b
			}
			for _, b := range many {
				if err := p.Free(b); err != nil {
					return err
				}
			}
			return nil
		},
		"Reallocate and Owns": func() error {
			b, err := p.Allocate(blockalloc.BlockLayout(page))
			if err != nil {
				return err
			}
			for _, size := range []uintptr{8 * page, 7 * page, page} {
				if b, err = p.Reallocate(b, size); err != nil || !p.Owns(b) {
					return err
				}
			}
			return p.Free(b)
		},
		"Stats": func() error { p.Stats(); return nil },
	} {
		var err error
		if n := testing.AllocsPerRun(100, func() {
			if e := f(); e != nil {
				err = e
			}
		}); n != 0 || err != nil {
			t.Errorf("%s: %v allocations on the Go heap; %v", name, n, err)
		}
	}
}

func pair(p *blockalloc.Pool, size uintptr) error {
	b, err := p.Allocate(blockalloc.BlockLayout(size))
	if err != nil {
		return err
	}
	return p.Free(b)
}

// TestPoolCachesNoMore than it should, by its own figures, after every step of a sequence that shifts from class to
// class: what is live and cached is at most the recent peak of what was live, MaxCached and a sixteenth of
// what is carved. Once that peak is some seconds ago, no more than MaxCached is cached.
func TestPoolCachesNoMore(t *testing.T) {
	page := int64(os.Getpagesize())
	for _, maxCached := range []int64{-1, page, 1 << 20, 0} {
		t.Run(fmt.Sprint(maxCached), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { cachesNoMore(t, poolOf(t, &blockalloc.Pool{MaxCached: maxCached}), page) })
		})
	}
}

func cachesNoMore(t *testing.T, p *blockalloc.Pool, page int64) {
	rnd := rand.New(rand.NewPCG(1, 2))
	most := max(0, cmp.Or(p.MaxCached, 64<<20))
	var peak int64
	check := func(recent int64) {
		t.Helper()
		s := p.Stats()
		bound := most + max(0, recent-s.LiveBytes) + s.Carved/16
		if p.MaxCached < 0 {
			bound = 0
		}
		if s.Cached > bound {
			t.Fatalf("%+v, and %d B were live at the peak: want at most %d cached", s, recent, bound)
		}
	}
	allocate := func(size uintptr) blockalloc.Block {
		b, err := p.Allocate(blockalloc.BlockLayout(size))
		if err != nil {
			t.Error(err)
		}
		return b
	}
	for size := uintptr(page); size <= min(16<<20, blockalloc.PoolChunkSize); size *= 2 {
		n := max(3, int(min(256*uintptr(page), 80<<20)/size))
		blocks := make([]blockalloc.Block, n)
		for i := range blocks {
			blocks[i] = allocate(size)
			peak = max(peak, int64(i+1)*int64(size))
			check(peak)
		}
		for _, i := range rnd.Perm(n) {
			poolFree(t, p, blocks[i])
			check(peak)
		}
		var wg sync.WaitGroup
		for g := range 2 { // from two goroutines
			wg.Go(func() {
				for range 3 {
					var mine []blockalloc.Block
					for range n/2 + g {
						mine = append(mine, allocate(size))
					}
					for _, b := range mine {
						if err := p.Free(b); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		wg.Wait()
		peak = max(peak, int64(n+1)*int64(size))
		check(peak)
		if bits.TrailingZeros64(uint64(size))%2 == 0 { // every other time
			time.Sleep(blockalloc.PoolForgets)
			synctest.Wait()
			peak = 0
			check(0)
		}
	}
}

// TestPoolKeepsWhatIsNeeded: a demand that comes again within a second finds what it had before, however much that is.
// The memory is given back once there has been none for some seconds. Then the Pool's timer has ended.
func TestPoolKeepsWhatIsNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shardtest.Stay(t)
		var purged atomic.Int64
		pages := &blockalloc.PoolPages{Before: func(c blockalloc.PoolCall) error {
			if c.Name == "purge" {
				purged.Add(int64(c.Size))
			}
			return nil
		}}
		const maxCached, size, n = 1 << 20, 64 << 10, 64
		p := poolOver(t, pages, maxCached)
		for burst := range 10 {
			if burst == 2 { // the Pool has seen the whole of it
				purged.Store(0)
			}
			var blocks []blockalloc.Block
			for range n {
				blocks = append(blocks, poolAllocate(t, p, blockalloc.BlockLayout(size)))
			}
			for _, b := range blocks {
				poolFree(t, p, b)
			}
			time.Sleep(blockalloc.PoolForgets / 4)
		}
		if s := p.Stats(); purged.Load() != 0 || s.Cached != n*size {
			t.Errorf("%d B were given back while there was demand for them: %+v", purged.Load(), s)
		}
		time.Sleep(blockalloc.PoolForgets)
		synctest.Wait()
		if s := p.Stats(); s.Cached > maxCached || blockalloc.PoolTicks(p) {
			t.Errorf("without demand %d B are cached, want at most %d; the Pool's timer runs: %t", s.Cached, maxCached, blockalloc.PoolTicks(p))
		}
	})
}

// TestPoolOutlivesBubble: a Pool forgets demand although the bubble that its timer ran in has ended.
func TestPoolOutlivesBubble(t *testing.T) {
	const maxCached, size, n = 1 << 20, 64 << 10, 64
	p := poolOver(t, &blockalloc.PoolPages{}, maxCached)
	burst := func(t *testing.T) {
		var blocks []blockalloc.Block
		for range n {
			blocks = append(blocks, poolAllocate(t, p, blockalloc.BlockLayout(size)))
		}
		for _, b := range blocks {
			poolFree(t, p, b)
		}
		if !blockalloc.PoolTicks(p) {
			t.Error("the Pool has no timer although it keeps more than MaxCached")
		}
	}
	synctest.Test(t, burst) // its timer ends here
	synctest.Test(t, func(t *testing.T) {
		shardtest.Stay(t)
		burst(t)
		time.Sleep(blockalloc.PoolForgets)
		synctest.Wait()
		if s := p.Stats(); s.Cached > maxCached || blockalloc.PoolTicks(p) {
			t.Errorf("without demand %d B are cached, want at most %d; the Pool's timer runs: %t", s.Cached, maxCached, blockalloc.PoolTicks(p))
		}
	})
}
