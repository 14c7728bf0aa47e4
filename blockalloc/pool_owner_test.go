package blockalloc_test

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// raw makes a Block of any place.
func raw(t testing.TB, p unsafe.Pointer, size, align uintptr) blockalloc.Block {
	t.Helper()
	b, err := blockalloc.FromRaw(p, blockalloc.Layout{Size: size, Align: align})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// poolRefuses checks that p refuses b, which is not live, and that asking changes
// nothing.
func poolRefuses(t testing.TB, p *blockalloc.Pool, b blockalloc.Block, want ...error) {
	t.Helper()
	before := p.Stats()
	is := func(err error) bool {
		for _, w := range want {
			if errors.Is(err, w) {
				return true
			}
		}
		return false
	}
	if p.Owns(b) {
		t.Errorf("Owns(%v), which is not live", b)
	}
	if err := p.Free(b); !is(err) {
		t.Errorf("Free(%v), which is not live: error %v, want %v", b, err, want)
	}
	for _, size := range []uintptr{0, 1, b.Size(), b.Size() * 3, b.Size() / 3, 2 * blockalloc.PoolChunkSize} {
		if n, err := p.Reallocate(b, size); !is(err) || n != b {
			t.Errorf("Reallocate(%v, %d), which is not live = %v, %v; want %v", b, size, n, err, want)
		}
	}
	if after := p.Stats(); after != before {
		t.Errorf("after refusing %v: %+v, before %+v", b, after, before)
	}
}

// TestPoolRefusesWhatIsNotLive: freed, foreign, interior and misstated blocks, in
// present and in dissolved runs and chunks.
func TestPoolRefusesWhatIsNotLive(t *testing.T) {
	p := poolOf(t, &blockalloc.Pool{})
	other := poolOf(t, &blockalloc.Pool{})
	page, chunk := uintptr(os.Getpagesize()), blockalloc.PoolChunkSize
	double, foreign := blockalloc.ErrDoubleFree, blockalloc.ErrNotOwned

	keep := poolAllocate(t, p, blockalloc.BlockLayout(4*page)) // keeps its chunk
	imprint(keep, keep.Size(), 1)
	large := poolAllocate(t, p, blockalloc.Layout{Size: 2 * chunk, Align: page})
	for _, wrong := range []blockalloc.Block{
		raw(t, keep.Pointer(), 2*page, 1),
		raw(t, keep.Pointer(), 8*page, 1),
		raw(t, keep.Pointer(), chunk, 1),
		raw(t, keep.Pointer(), 1, 1),
		raw(t, unsafe.Add(keep.Pointer(), 1), 4*page, 1),
		raw(t, unsafe.Add(keep.Pointer(), page), 4*page, 1),
		raw(t, unsafe.Add(keep.Pointer(), page), page, page),
		raw(t, large.Pointer(), page, page),
		raw(t, large.Pointer(), chunk, page),
		raw(t, unsafe.Add(large.Pointer(), page), page, page),
	} {
		poolRefuses(t, p, wrong, foreign)
	}
	poolRefuses(t, p, raw(t, unsafe.Add(keep.Pointer(), 4*page), 4*page, 1), double) // a free place beside it
	local := new(int64)
	poolRefuses(t, p, raw(t, unsafe.Pointer(local), 8, 8), foreign)

	for _, size := range []uintptr{page, 16 * page, chunk, 3 * chunk} {
		l := blockalloc.Layout{Size: size, Align: page}
		poolRefuses(t, p, poolAllocate(t, new(blockalloc.Pool), l), foreign)
		b := poolAllocate(t, other, l)
		poolRefuses(t, p, b, foreign)
		poolFree(t, other, b)

		b = poolAllocate(t, p, l)
		if size > chunk || size == 16*page {
			poolRefuses(t, other, b, foreign, double) // its own may have been there
		}
		poolFree(t, p, b)
		poolRefuses(t, p, b, double)
		if err := p.Trim(); err != nil { // its run was dissolved
			t.Fatal(err)
		}
		poolRefuses(t, p, b, double, foreign)
	}
	if err := imprinted(keep, keep.Size(), keep.Size(), 1); err != nil || !p.Owns(keep) {
		t.Errorf("%v; owned: %v", err, p.Owns(keep))
	}
	poolFree(t, p, keep, large)
	poolRefuses(t, p, keep, double)
	poolRefuses(t, p, large, double)
	if err := p.Trim(); err != nil { // its chunk was removed
		t.Fatal(err)
	}
	if n := blockalloc.PoolChunks(p); n != 0 {
		t.Errorf("after all is freed and trimmed the Pool has %d chunks", n)
	}
	poolRefuses(t, p, keep, foreign)
}

// TestPoolFreesOnce: of several goroutines that free a block at once, one succeeds, whatever
// else goes on.
func TestPoolFreesOnce(t *testing.T) {
	const goroutines = 4
	for name, maxCached := range map[string]int64{"default": 0, "cache none": -1} {
		t.Run(name, func(t *testing.T) {
			p := poolOf(t, &blockalloc.Pool{MaxCached: maxCached})
			keep := poolAllocate(t, p, blockalloc.BlockLayout(4<<10))
			var stop atomic.Bool
			var background, frees sync.WaitGroup
			background.Go(func() {
				for !stop.Load() {
					if err := p.Trim(); err != nil {
						t.Error(err)
					}
					runtime.Gosched()
				}
			})
			sizes := []uintptr{4 << 10, 4 << 10, 64 << 10, 1 << 20, blockalloc.PoolChunkSize, blockalloc.PoolChunkSize + 1}
			var blocks [600]blockalloc.Block
			for i := range blocks {
				blocks[i] = poolAllocate(t, p, blockalloc.Layout{Size: sizes[i%len(sizes)], Align: 1})
				if i%len(sizes) > 3 && i > 30 { // few of the largest
					poolFree(t, p, blocks[i])
					blocks[i] = poolAllocate(t, p, blockalloc.BlockLayout(4<<10))
				}
			}
			var freed [len(blocks)]atomic.Int32
			for range goroutines {
				frees.Go(func() {
					for i, b := range blocks {
						switch err := p.Free(b); {
						case err == nil:
							freed[i].Add(1)
						case !errors.Is(err, blockalloc.ErrDoubleFree) && !errors.Is(err, blockalloc.ErrNotOwned):
							t.Errorf("Free(%v): %v", b, err)
						}
					}
				})
			}
			frees.Wait()
			stop.Store(true)
			background.Wait()
			for i, b := range blocks {
				if n := freed[i].Load(); n != 1 {
					t.Errorf("%d frees of %v succeeded", n, b)
				}
			}
			if s := p.Stats(); s.LiveBlocks != 1 || s.LiveBytes != int64(keep.Size()) {
				t.Errorf("one block is live: %+v", s)
			}
			poolFree(t, p, keep)
		})
	}
}

// TestPoolFreesAcross: blocks are freed by other goroutines than those that allocated
// them, and hand their content over.
func TestPoolFreesAcross(t *testing.T) {
	const pairs, blocks = 3, 8000
	p := poolOf(t, &blockalloc.Pool{MaxCached: 1 << 20})
	type sent struct {
		block blockalloc.Block
		size  uintptr
		seed  int
	}
	var wg sync.WaitGroup
	for g := range pairs {
		ch := make(chan sent, 100)
		wg.Go(func() {
			defer close(ch)
			for i := range blocks {
				size := uintptr(1) << (i % 18)
				b, err := p.Allocate(blockalloc.Layout{Size: size, Align: 1})
				if err != nil {
					t.Error(err)
					return
				}
				imprint(b, size, g<<20+i)
				ch <- sent{b, size, g<<20 + i}
			}
		})
		wg.Go(func() {
			for s := range ch {
				if err := imprinted(s.block, s.size, s.size, s.seed); err != nil {
					t.Error(err)
				}
				if err := p.Free(s.block); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if s := p.Stats(); s.LiveBlocks != 0 || s.LiveBytes != 0 {
		t.Errorf("no block is live: %+v", s)
	}
	// Those who free must not have kept runs from those who allocate.
	if s := p.Stats(); s.Carved > 200<<20 { // of 400 MiB in all
		t.Errorf("at most %d blocks of up to 128 KiB were live at once, and %d B are carved", pairs*102, s.Carved)
	}
}
