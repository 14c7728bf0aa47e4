package blockalloc_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
	"github.com/alloctrace/alloctrace/internal/shard/shardtest"
)

// poolOf returns a Pool that is checked and closed when the test ends.
func poolOf(t testing.TB, p *blockalloc.Pool) *blockalloc.Pool {
	t.Cleanup(func() {
		if err := blockalloc.CheckPool(p); err != nil {
			t.Error(err)
		}
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if s := p.Stats(); s != (blockalloc.PoolStats{}) {
			t.Errorf("a closed Pool has %+v", s)
		}
	})
	return p
}

// poolOver is poolOf over pages, which are checked too.
func poolOver(t testing.TB, pages *blockalloc.PoolPages, maxCached int64) *blockalloc.Pool {
	t.Cleanup(func() {
		if reserved, committed, err := pages.Sizes(); reserved != 0 || committed != 0 || err != nil {
			t.Errorf("after Close %d B are reserved and %d committed; %v", reserved, committed, err)
		}
	})
	return poolOf(t, blockalloc.NewPool(pages, maxCached))
}

func TestPoolConforms(t *testing.T) {
	t.Parallel()
	page := int64(os.Getpagesize())
	pools := map[string]func(testing.TB) *blockalloc.Pool{
		"default":     func(t testing.TB) *blockalloc.Pool { return poolOf(t, &blockalloc.Pool{}) },
		"one page":    func(t testing.TB) *blockalloc.Pool { return poolOf(t, &blockalloc.Pool{MaxCached: page}) },
		"cache none":  func(t testing.TB) *blockalloc.Pool { return poolOf(t, &blockalloc.Pool{MaxCached: -1}) },
		"lossy pages": func(t testing.TB) *blockalloc.Pool { return poolOver(t, &blockalloc.PoolPages{}, page) },
	}
	if raceEnabled { // and slow
		delete(pools, "one page")
	} else if hasSystem {
		pools["options"] = func(t testing.TB) *blockalloc.Pool {
			return poolOf(t, &blockalloc.Pool{System: blockalloc.System{HugePages: true, Name: "alloctrace pool", NoDump: true}})
		}
	}
	maxSize := uintptr(1 << 30)
	if !hasSystem || raceEnabled { // the Go heap's memory costs more to get
		maxSize = 16 << 20
	}
	configs := map[string]blocktest.Config{"refused pages": refusedPool(8, 1<<20)}
	for name, pool := range pools {
		configs[name] = poolConfig(8, pool)
	}
	for name, c := range configs {
		c.MaxSize = maxSize
		if name != "default" { // one with gigabytes is enough: their pages take minutes where they are virtual
			c.MaxSize = min(maxSize, 256<<20)
		}
		t.Run(name, func(t *testing.T) { blocktest.Run(t, c) })
	}
}

// imprint writes a pattern that depends on seed to both ends of the first size bytes of
// b and in between: at least to the beginning of each page, which can be lost alone.
func imprint(b blockalloc.Block, size uintptr, seed int) {
	mem := b.Bytes()[:size]
	if size < 8 {
		mem[0] = byte(seed)
		return
	}
	for i := uintptr(0); i+8 <= size; i += max(size/16, 4096) {
		binary.NativeEndian.PutUint64(mem[i:], uint64(seed)<<32|uint64(i))
	}
	binary.NativeEndian.PutUint64(mem[size-8:], uint64(seed)<<32)
}

// imprinted returns an error unless what imprint wrote is in the first kept bytes of b.
func imprinted(b blockalloc.Block, size, kept uintptr, seed int) error {
	mem := b.Bytes()
	if size < 8 {
		if kept > 0 && mem[0] != byte(seed) {
			return fmt.Errorf("%v begins with %#x, want %#x", b, mem[0], byte(seed))
		}
		return nil
	}
	check := func(at uintptr, want uint64) error {
		if at+8 > kept {
			return nil
		}
		if got := binary.NativeEndian.Uint64(mem[at:]); got != want {
			return fmt.Errorf("%v has %#x at %d, want %#x", b, got, at, want)
		}
		return nil
	}
	for i := uintptr(0); i+8 <= size-8; i += max(size/16, 4096) {
		if err := check(i, uint64(seed)<<32|uint64(i)); err != nil {
			return err
		}
	}
	return check(size-8, uint64(seed)<<32)
}

func poolAllocate(t testing.TB, p *blockalloc.Pool, l blockalloc.Layout) blockalloc.Block {
	t.Helper()
	b, err := p.Allocate(l)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func poolFree(t testing.TB, p *blockalloc.Pool, blocks ...blockalloc.Block) {
	t.Helper()
	for _, b := range blocks {
		if err := p.Free(b); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPoolGrants: from a page to a chunk a block is the smallest power of two that
// holds its size and its alignment, at a multiple of that; beyond, it is System's.
func TestPoolGrants(t *testing.T) {
	p := poolOf(t, &blockalloc.Pool{})
	var layouts []blockalloc.Layout
	for size := uintptr(1); size <= blockalloc.PoolChunkSize; size *= 2 {
		for _, s := range []uintptr{size - 1, size, size + 1} {
			layouts = append(layouts, blockalloc.Layout{Size: s, Align: 1}, blockalloc.Layout{Size: s, Align: size},
				blockalloc.Layout{Size: s, Align: min(blockalloc.PoolChunkSize, size*4)})
		}
		layouts = append(layouts, blockalloc.Layout{Size: 1, Align: size})
	}
	const above = 2 * blockalloc.PoolChunkSize
	layouts = append(layouts, blockalloc.Layout{Size: 1, Align: above}, blockalloc.Layout{Size: above - 5, Align: 64}, blockalloc.BlockLayout(above))
	if hasSystem && bits.UintSize == 64 {
		layouts = append(layouts, blockalloc.BlockLayout(1<<30))
	}
	page := uintptr(os.Getpagesize())
	var live []blockalloc.Block
	for i, l := range layouts {
		if l.Size == 0 {
			continue
		}
		b := poolAllocate(t, p, l)
		want := max(page, 1<<bits.Len(uint(max(l.Size, l.Align)-1)))
		if want > blockalloc.PoolChunkSize {
			want = (l.Size + page - 1) &^ (page - 1)
			if blockalloc.PoolOnHeap {
				want = l.Size
			}
		} else if b.Addr()%want != 0 {
			t.Errorf("Allocate(%v) = %v, not aligned to its granted size", l, b)
		}
		if b.Size() != want || b.Align() != l.Align || b.Addr()%l.Align != 0 || !p.Owns(b) {
			t.Errorf("Allocate(%v) = %v, want %d B; owned: %v", l, b, want, p.Owns(b))
		}
		imprint(b, l.Size, i)
		live = append(live, b)
		if len(live) == 24 { // all at once would be too much for 32 bits
			poolFree(t, p, live...)
			live = live[:0]
		}
	}
	poolFree(t, p, live...)
}

// TestPoolBlocksAreApart: live blocks of all classes, several runs of each, do not overlap.
func TestPoolBlocksAreApart(t *testing.T) {
	p := poolOf(t, &blockalloc.Pool{})
	var live []blockalloc.Block
	for size := uintptr(os.Getpagesize()); size <= blockalloc.PoolChunkSize/4; size *= 2 {
		for range blockalloc.PoolRunBlocks(size) + 2 {
			live = append(live, poolAllocate(t, p, blockalloc.BlockLayout(size)))
		}
	}
	sorted := slices.Clone(live)
	slices.SortFunc(sorted, func(a, b blockalloc.Block) int { return int(int64(a.Addr()) - int64(b.Addr())) })
	for i, b := range sorted[1:] {
		if sorted[i].Addr()+sorted[i].Size() > b.Addr() {
			t.Errorf("%v and %v overlap", sorted[i], b)
		}
	}
	poolFree(t, p, live...)
}

// TestPoolReallocates within a class, from class to class, and to and from blocks
// that are too large for a class.
func TestPoolReallocates(t *testing.T) {
	p := poolOf(t, &blockalloc.Pool{})
	page, chunk := uintptr(os.Getpagesize()), blockalloc.PoolChunkSize
	small := []uintptr{page - 1, 1, page, page + 1, 16 * page, 9 * page, 8 * page, 64*page + 1, 5}
	large := []uintptr{chunk + 1, chunk + page + 1, chunk - 1, chunk, chunk/2 + 1, 5, 2 * chunk, 1}
	for align, sizes := range map[uintptr][]uintptr{1: small, 64: large, 4 * page: small, 2 * chunk: small} {
		size := page
		b := poolAllocate(t, p, blockalloc.Layout{Size: size, Align: align})
		for i, next := range sizes {
			imprint(b, size, i)
			n, err := p.Reallocate(b, next)
			if err != nil {
				t.Fatal(err)
			}
			if n.Size() < next || n.Align() != align || n.Addr()%align != 0 {
				t.Errorf("Reallocate(%v, %d) = %v", b, next, n)
			}
			if largest := max(next, align); b.Size() <= chunk && largest <= chunk && largest > b.Size()/2 && largest <= b.Size() && n.Addr() != b.Addr() {
				t.Errorf("Reallocate(%v, %d) = %v, though the block's class serves that", b, next, n)
			}
			if err := imprinted(n, size, min(size, next), i); err != nil {
				t.Errorf("Reallocate(%v, %d): %v", b, next, err)
			}
			if n.Addr() != b.Addr() && p.Owns(b) {
				t.Errorf("Reallocate(%v, %d) = %v, and the old block is still owned", b, next, n)
			}
			b, size = n, next
			if s := p.Stats(); s.LiveBlocks != 1 || s.LiveBytes != int64(b.Size()) {
				t.Errorf("after Reallocate to %v: %+v", b, s)
			}
		}
		poolFree(t, p, b)
	}
}

// TestPoolShrinkKeepsNeighbours: a block that moves to a smaller place is not copied beyond that.
func TestPoolShrinkKeepsNeighbours(t *testing.T) {
	shardtest.Stay(t)
	p := poolOf(t, &blockalloc.Pool{})
	page := uintptr(os.Getpagesize())
	var small []blockalloc.Block
	for i := range blockalloc.PoolRunBlocks(page) {
		small = append(small, poolAllocate(t, p, blockalloc.BlockLayout(page)))
		imprint(small[i], page, i)
	}
	large := poolAllocate(t, p, blockalloc.Layout{Size: 8 * page, Align: 1})
	imprint(large, 8*page, -1)
	poolFree(t, p, small[1])
	n, err := p.Reallocate(large, page)
	if err != nil || n.Addr() != small[1].Addr() {
		t.Fatalf("Reallocate = %v, %v; want the only free place, %v", n, err, small[1])
	}
	if err := imprinted(n, 8*page, page, -1); err != nil {
		t.Error(err)
	}
	for i, b := range small {
		if i != 1 {
			if err := imprinted(b, page, page, i); err != nil {
				t.Error(err)
			}
			poolFree(t, p, b)
		}
	}
	poolFree(t, p, n)
}

// TestPoolClose: with live blocks it stays open and usable; then all is given back.
func TestPoolClose(t *testing.T) {
	pages := &blockalloc.PoolPages{}
	p := blockalloc.NewPool(pages, 0)
	small := poolAllocate(t, p, blockalloc.BlockLayout(4<<10))
	large := poolAllocate(t, p, blockalloc.Layout{Size: blockalloc.PoolChunkSize + 1, Align: 8})
	imprint(small, 4<<10, 7)
	imprint(large, large.Size(), 8)
	for left, what := range []string{"2 of them, " + fmt.Sprint(small.Size()+large.Size()), "1 of them, " + fmt.Sprint(small.Size())} {
		if err := p.Close(); !errors.Is(err, blockalloc.ErrLive) || !strings.Contains(err.Error(), what+" bytes") {
			t.Errorf("Close with live blocks: error %v, want ErrLive, %s bytes", err, what)
		}
		if err := imprinted(small, 4<<10, 4<<10, 7); err != nil || !p.Owns(small) {
			t.Error(err, p.Owns(small))
		}
		b := poolAllocate(t, p, blockalloc.BlockLayout(64<<10))
		poolFree(t, p, b)
		if left == 0 {
			if err := imprinted(large, large.Size(), large.Size(), 8); err != nil {
				t.Error(err)
			}
			poolFree(t, p, large)
		}
	}
	poolFree(t, p, small)
	for range 2 {
		if err := p.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
	}
	if reserved, committed, err := pages.Sizes(); reserved != 0 || committed != 0 || err != nil {
		t.Errorf("after Close %d B are reserved and %d committed; %v", reserved, committed, err)
	}
	for _, l := range []blockalloc.Layout{blockalloc.BlockLayout(1), blockalloc.BlockLayout(4 << 10), blockalloc.BlockLayout(blockalloc.PoolChunkSize), {Size: blockalloc.PoolChunkSize + 1, Align: 1}} {
		if b, err := p.Allocate(l); !errors.Is(err, blockalloc.ErrClosed) || !b.IsZero() {
			t.Errorf("Allocate(%v) after Close = %v, %v; want ErrClosed", l, b, err)
		}
	}
	if _, err := p.Allocate(blockalloc.BlockLayout(999)); !errors.Is(err, blockalloc.ErrBadLayout) {
		t.Errorf("Allocate of a bad layout after Close: error %v, want ErrBadLayout", err)
	}
	if b, err := p.Allocate(blockalloc.Layout{Size: 0, Align: 8}); err != nil || !b.IsZero() {
		t.Errorf("Allocate of size 0 after Close = %v, %v", b, err)
	}
	for _, b := range []blockalloc.Block{small, large} {
		if err := p.Free(b); !errors.Is(err, blockalloc.ErrNotOwned) && !errors.Is(err, blockalloc.ErrDoubleFree) || p.Owns(b) {
			t.Errorf("Free(%v) after Close: error %v; owned: %v", b, err, p.Owns(b))
		}
	}
	if err := p.Trim(); err != nil || p.Stats() != (blockalloc.PoolStats{}) {
		t.Errorf("Trim after Close: %v, %+v", err, p.Stats())
	}
	if err := new(blockalloc.Pool).Close(); err != nil {
		t.Errorf("Close of an unused Pool: %v", err)
	}
}
