package blockalloc

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/shard"
	"github.com/alloctrace/alloctrace/internal/shard/shardtest"
)

// poolTries is how often the tests below try to hit a window of some nanoseconds.
func poolTries(n int) int {
	if os.Getenv("ALLOCTRACE_REQUIRE_ALL") != "" {
		return 5 * n
	}
	return n
}

// oneProcessor says that goroutines must yield to each other, as on js/wasm.
var oneProcessor = runtime.GOMAXPROCS(0) == 1

// TestPoolSecondFreeBetweenPurges: memory is given back in a tight loop, and a freed
// block never seems live between.
func TestPoolSecondFreeBetweenPurges(t *testing.T) {
	for name, f := range map[string]func(p *Pool, b Block) error{
		"Free": func(p *Pool, b Block) error {
			if err := p.Free(b); !errors.Is(err, ErrDoubleFree) {
				return fmt.Errorf("second Free: error %v, want ErrDoubleFree", err)
			}
			return nil
		},
		"Owns": func(p *Pool, b Block) error {
			if p.Owns(b) {
				return fmt.Errorf("Owns(%v), which was freed", b)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := NewPool(&PoolPages{}, 0)
			p.pages = quickPages{p.pages}
			keep, err := p.Allocate(Layout{Size: pageSize, Align: 1})
			if err != nil {
				t.Fatal(err)
			}
			b, err := p.Allocate(Layout{Size: pageSize, Align: 1})
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Free(b); err != nil {
				t.Fatal(err)
			}
			r, _ := p.find(b)
			var stop atomic.Bool
			var purging sync.WaitGroup
			for range 2 {
				purging.Go(func() {
					for !stop.Load() {
						p.mu.Lock()
						_ = p.purge(r, r.all)
						p.mu.Unlock()
						if oneProcessor {
							runtime.Gosched()
						}
					}
				})
			}
			tries := poolTries(20_000)
			if name == "Owns" {
				tries *= 100 // they are quick
			}
			for range tries {
				if err := f(p, b); err != nil {
					t.Error(err)
					break
				}
			}
			stop.Store(true)
			purging.Wait()
			if err := CheckPool(p); err != nil {
				t.Error(err)
			}
			if err := errors.Join(p.Free(keep), p.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// quickPages takes no time to give memory back.
type quickPages struct{ pageSource }

func (quickPages) purge(unsafe.Pointer, uintptr) error { return nil }

// TestPoolFindsFreedRuns: a run gets its first block back at the moment when another goroutine finds
// it full. It must be seen by one of them, or it is lost.
func TestPoolFindsFreedRuns(t *testing.T) {
	pages := &PoolPages{}
	p := NewPool(pages, 0)
	p.pages = quickPages{p.pages}
	l := Layout{Size: 1 << maxRunShift, Align: 1} // a run has one such block
	var passed atomic.Pointer[Block]
	var done atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !done.Load() {
			if oneProcessor {
				runtime.Gosched()
			}
			if b := passed.Swap(nil); b != nil {
				if err := p.Free(*b); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for range poolTries(20_000) {
		b, err := p.Allocate(l)
		if err != nil {
			t.Fatal(err)
		}
		if old := passed.Swap(&b); old != nil {
			if err := p.Free(*old); err != nil {
				t.Error(err)
			}
		}
	}
	done.Store(true)
	wg.Wait()
	if b := passed.Swap(nil); b != nil {
		if err := p.Free(*b); err != nil {
			t.Error(err)
		}
	}
	if s := p.Stats(); s.LiveBlocks != 0 || s.Carved > 20<<maxRunShift {
		t.Errorf("no block is live, few were at once: %+v", s)
	}
	settled(t, p, pages)
}

// TestPoolTakesFromOtherShards: when memory is out, free blocks in other shards'
// current runs are used, whether some of a run are free or all, also if the system
// takes nothing back.
func TestPoolTakesFromOtherShards(t *testing.T) {
	const size, n = 64 << 10, 1 << (maxRunShift - 16)
	for name, test := range map[string]struct {
		free    int
		size    uintptr // of a block that is then asked for
		refused string
	}{
		"one block":                  {1, size, "reserve"},
		"all":                        {n, size, "reserve"},
		"all, and nothing goes back": {n, size, "reserve purge"},
		"all, for another size":      {n, n * size, "reserve"},
	} {
		t.Run(name, func(t *testing.T) {
			shardtest.Stay(t)
			pages := &PoolPages{}
			p := NewPool(pages, 0)
			fill := func(size uintptr) (blocks []Block) {
				for {
					b, err := p.Allocate(Layout{Size: size, Align: 1})
					if errors.Is(err, ErrOutOfMemory) {
						return blocks
					}
					if err != nil {
						t.Fatal(err)
					}
					blocks = append(blocks, b)
				}
			}
			first, err := p.Allocate(Layout{Size: size, Align: 1}) // and so there is a chunk
			if err != nil {
				t.Fatal(err)
			}
			pages.Before = func(c PoolCall) error {
				if strings.Contains(test.refused, c.Name) {
					return errors.New("injected")
				}
				return nil
			}
			blocks := append(fill(size), first)
			rest := fill(pageSize)
			r, _ := p.find(first)
			var its []Block
			for _, b := range blocks {
				if other, _ := p.find(b); other == r {
					its = append(its, b)
				} else {
					rest = append(rest, b)
				}
			}
			if len(its) != n {
				t.Fatalf("%d blocks in a run, want %d", len(its), n)
			}
			if err := p.Free(first); err != nil {
				t.Fatal(err)
			}
			p.mu.Lock() // the run becomes the current one of a shard that is not the test's
			if r.listed {
				p.unlist(r)
			}
			for i := range p.shards {
				p.shards[i].current[16-minPoolShift].CompareAndSwap(r, nil)
			}
			_, mine := shard.All.Pick()
			if !p.shards[(mine+1)%shard.Count].current[16-minPoolShift].CompareAndSwap(nil, r) {
				t.Error("the neighbouring shard has a run")
			}
			p.mu.Unlock()
			for _, b := range its[:test.free-1] {
				if err := p.Free(b); err != nil {
					t.Fatal(err)
				}
			}
			b, err := p.Allocate(Layout{Size: test.size, Align: 1})
			if err != nil {
				t.Fatalf("%d blocks of another shard's run are free: %v", test.free, err)
			}
			if err := CheckPool(p); err != nil {
				t.Error(err)
			}
			for _, b := range append(append(rest, b), its[test.free-1:n-1]...) {
				if err := p.Free(b); err != nil {
					t.Error(err)
				}
			}
			settled(t, p, pages)
		})
	}
}

// TestPoolSharesLargeBlocks: a goroutine that comes to another shard, as it does by a deeper stack, has there the large
// blocks that it has freed.
func TestPoolSharesLargeBlocks(t *testing.T) {
	shardtest.Stay(t)
	shard.All.Reset(shard.Count) // but in as many shards as there are
	for shift := maxRunShift; shift <= chunkShift; shift++ {
		pages := &PoolPages{}
		p := NewPool(pages, 1<<40)
		l := Layout{Size: 1 << shift, Align: 1}
		for range shard.Count {
			a, err := p.Allocate(l)
			if err != nil {
				t.Fatal(err)
			}
			b, err := p.Allocate(l)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(p.Free(a), p.Free(b)); err != nil {
				t.Error(err)
			}
			for slot := range uint32(256) { // whichever is Allocate's
				shard.All.Collided(slot)
			}
		}
		if s := p.Stats(); s.Cached != 2<<shift || s.Carved != 2<<shift {
			t.Errorf("two blocks of 1<<%d in each shard, one after the other: %+v, want memory for two", shift, s)
		}
		if err := CheckPool(p); err != nil {
			t.Error(err)
		}
		settled(t, p, pages)
	}
}
