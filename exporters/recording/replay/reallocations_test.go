package replay_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/replay"
)

// A crowd is an allocator in which reallocations wait for others, before and after the block has moved, so that many go on at once
// and one has a block's address where another has just been. Some of them fail.
type crowd struct {
	blockalloc.Allocator
	mu      sync.Mutex
	rng     *rand.Rand
	waiting []chan struct{}
}

// wait waits for some others to come.
func (c *crowd) wait() {
	c.mu.Lock()
	here := make(chan struct{})
	c.waiting = append(c.waiting, here)
	if len(c.waiting) > c.rng.IntN(5) {
		i := c.rng.IntN(len(c.waiting))
		close(c.waiting[i])
		c.waiting = slices.Delete(c.waiting, i, i+1)
	}
	c.mu.Unlock()
	for {
		select {
		case <-here:
			return
		default:
			runtime.Gosched()
			c.letOneGo()
		}
	}
}

// letOneGo lets one go now and then, or all might wait.
func (c *crowd) letOneGo() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) > 0 && c.rng.IntN(20) == 0 {
		i := c.rng.IntN(len(c.waiting))
		close(c.waiting[i])
		c.waiting = slices.Delete(c.waiting, i, i+1)
	}
}

func (c *crowd) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	c.wait()
	if size%11 == 0 && size > 0 {
		return b, fmt.Errorf("a crowd: %w", blockalloc.ErrOutOfMemory)
	}
	n, err := c.Allocator.Reallocate(b, size)
	c.wait()
	return n, err
}

// chains are the sizes that each block had, one after the other, in no order.
type chains struct {
	mu   sync.Mutex
	list []string
}

func (c *chains) add(sizes []uintptr, end string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, strings.Trim(fmt.Sprint(sizes), "[]")+end)
}

// A follower notes the sizes that are asked for, block by block.
type follower struct {
	blockalloc.Heap
	sizes  map[uintptr][]uintptr
	chains chains
}

func (f *follower) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	b, err := f.Heap.Allocate(l)
	f.sizes[b.Addr()] = []uintptr{l.Size}
	return b, err
}

func (f *follower) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	n, err := f.Heap.Reallocate(b, size)
	sizes := f.sizes[b.Addr()]
	delete(f.sizes, b.Addr())
	f.sizes[n.Addr()] = append(sizes, size)
	return n, err
}

func (f *follower) Free(b blockalloc.Block) error {
	f.chains.add(f.sizes[b.Addr()], "")
	delete(f.sizes, b.Addr())
	return f.Heap.Free(b)
}

// TestReallocationsAtOnce: of goroutines that reallocate at the same time, a replay gives each block the sizes that it had, and no others'.
func TestReallocationsAtOnce(t *testing.T) {
	const goroutines = 8
	ops := 4000
	if testing.Short() {
		ops = 400
	}
	var out bytes.Buffer
	rec, err := recording.New(&out, recording.Options{Queue: 8 * goroutines * ops})
	if err != nil {
		t.Fatal(err)
	}
	inner := &crowd{Allocator: slab(t), rng: rand.New(rand.NewPCG(1, 1))}
	mem := alloctrace.Wrap(inner, alloctrace.WithName("mem"), alloctrace.WithHooks(rec))
	var want chains
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(2, uint64(g)))
			type block struct {
				blockalloc.Block
				sizes []uintptr
			}
			var own []block
			free := func(i int) {
				if err := mem.Free(own[i].Block); err != nil {
					t.Error(err)
				}
				want.add(own[i].sizes, "")
				own = slices.Delete(own, i, i+1)
			}
			for range ops {
				size := uintptr(1 + rng.IntN(300))
				switch n := rng.IntN(10); {
				case len(own) == 0 || n == 0 && len(own) < 10:
					b, err := mem.Allocate(blockalloc.Layout{Size: size, Align: 8})
					if err != nil {
						t.Error(err)
						return
					}
					own = append(own, block{b, []uintptr{size}})
				case n == 1:
					free(rng.IntN(len(own)))
				default:
					i := rng.IntN(len(own))
					if n == 2 {
						size = 0
					}
					b, err := mem.Reallocate(own[i].Block, size)
					switch {
					case err != nil:
					case size == 0:
						want.add(own[i].sizes, "")
						own = slices.Delete(own, i, i+1)
					default:
						own[i] = block{b, append(own[i].sizes, size)}
					}
				}
			}
			for len(own) > 0 {
				free(0)
			}
		})
	}
	wg.Wait()
	if err := rec.Close(); err != nil || rec.Usage().Dropped > 0 {
		t.Fatalf("%v, %+v", err, rec.Usage())
	}
	got := follower{sizes: make(map[uintptr][]uintptr)}
	p := load(t, out.Bytes())
	if _, err := replay.Run(context.Background(), p, &got, replay.Options{}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(got.chains.list)
	slices.Sort(want.list)
	if r := p.Recorded(); r.Skipped.Failed == 0 || r.Skipped.Unknown+r.Lost != 0 {
		t.Errorf("%+v", r)
	}
	if different := differences(got.chains.list, want.list); len(different) > 0 {
		t.Errorf("%d of %d blocks have other sizes than they had, such as %s", len(different), len(want.list), different[0])
	}
}

// differences returns what is in one sorted list and not in the other.
func differences(a, b []string) (list []string) {
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0] < b[0]:
			list, a = append(list, a[0]), a[1:]
		case len(a) == 0 || b[0] < a[0]:
			list, b = append(list, b[0]), b[1:]
		default:
			a, b = a[1:], b[1:]
		}
	}
	return list
}
