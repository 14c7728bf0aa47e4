package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/history"
	"github.com/alloctrace/alloctrace/tracer"
)

// An asking is an operation of a randomProgram.
type asking struct {
	of   *alloctrace.Proxy
	old  blockalloc.Block
	size uintptr
}

func allocates(a asking) (blockalloc.Block, error) {
	return a.of.Allocate(blockalloc.Layout{Size: a.size, Align: 8})
}

func reallocates(a asking) (blockalloc.Block, error) { return a.of.Reallocate(a.old, a.size) }

// The places where a randomProgram asks.
var places = []func(a asking, do func(asking) (blockalloc.Block, error)) (blockalloc.Block, error){placeA, placeB, placeC}

//go:noinline
func placeA(a asking, do func(asking) (blockalloc.Block, error)) (blockalloc.Block, error) {
	return do(a)
}

//go:noinline
func placeB(a asking, do func(asking) (blockalloc.Block, error)) (blockalloc.Block, error) {
	return do(a)
}

//go:noinline
func placeC(a asking, do func(asking) (blockalloc.Block, error)) (blockalloc.Block, error) {
	return do(a)
}

// A knownBlock is one that a randomProgram has acquired.
type knownBlock struct {
	proxy, child, region, place string
	addr, size, requested       int64
	acquired, released          time.Duration
	live, older                 bool
}

// A knownChange is that a block was acquired, or released, or seemed to be until that failed.
type knownChange struct {
	at    time.Duration
	block *knownBlock
	by    int64
}

// A randomProgram knows all that it did.
type randomProgram struct {
	path    string
	blocks  []*knownBlock
	changes []knownChange
	counts  history.Counts
	end     time.Duration
}

// newRandomProgram runs a program and records it: Proxies and children that come and go, regions, blocks of Heap, Pool and Slab, also some that are made
// of pointers, failures of all operations, releases of what is gone, and blocks that are older than the recording.
func newRandomProgram(t *testing.T, seed uint64) *randomProgram {
	p := &randomProgram{path: filepath.Join(t.TempDir(), "random.alloctrace")}
	synctest.Test(t, func(t *testing.T) { p.run(t, rand.New(rand.NewPCG(seed, 1))) })
	return p
}

func (p *randomProgram) run(t *testing.T, rng *rand.Rand) {
	rec, err := recording.Create(p.path, recording.Options{FlushEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	fail := 0 // of the next operation
	inner := func(a blockalloc.Allocator) blockalloc.Allocator {
		return failing.If(a, func(failing.Call) bool { fail--; return fail == 0 })
	}
	slab, err := blockalloc.NewSlab(new(blockalloc.Pool), 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	var proxies []*alloctrace.Proxy
	for name, a := range []blockalloc.Allocator{new(blockalloc.Heap), new(blockalloc.Pool), slab} {
		proxies = append(proxies, alloctrace.Wrap(inner(a), alloctrace.WithName([]string{"one", "two", ""}[name]), alloctrace.WithHooks(rec)))
	}
	type held struct {
		blockalloc.Block
		of    *alloctrace.Proxy
		known *knownBlock
	}
	var all, gone []held
	for _, proxy := range proxies {
		for range 5 {
			b, err := proxy.Quiet().Allocate(blockalloc.Layout{Size: uintptr(1 + rng.IntN(10_000)), Align: 1})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, held{b, proxy, &knownBlock{older: true, proxy: proxy.Name(), addr: int64(b.Addr()), size: int64(b.Size())}})
		}
	}
	acquired := func(b blockalloc.Block, of *alloctrace.Proxy, child, region, place string) {
		k := &knownBlock{
			proxy: of.Name(), child: child, region: region, place: place, live: true,
			addr: int64(b.Addr()), size: int64(b.Size()), requested: int64(b.Requested()), acquired: time.Since(began),
		}
		p.blocks = append(p.blocks, k)
		p.changes = append(p.changes, knownChange{k.acquired, k, 1})
		all = append(all, held{b, of, k})
		p.counts.Events++
	}
	released := func(i int, child string, undone bool) {
		h := all[i]
		p.counts.Events++
		if undone {
			p.counts.Events++
		}
		if h.known.older && !undone {
			h.known.acquired, h.known.released, h.known.child = p.changes[0].at, time.Since(began), child // it is known by its release
			p.blocks = append(p.blocks, h.known)
		} else if !h.known.older {
			p.changes = append(p.changes, knownChange{time.Since(began), h.known, -1})
			if undone {
				p.changes = append(p.changes, knownChange{time.Since(began), h.known, 1})
			} else {
				h.known.live, h.known.released = false, time.Since(began)
			}
		}
		if !undone {
			gone = append(gone, h)
			all = slices.Delete(all, i, i+1)
		}
	}
	first := true // the first event has to come from an acquisition: what is older is so since then
	for range 1500 {
		time.Sleep(time.Duration(rng.IntN(3)) * time.Duration(rng.IntN(1_000_000)))
		n := rng.IntN(len(proxies))
		of := proxies[n]
		asked, child, region := of, "", ""
		if rng.IntN(2) == 0 {
			child = fmt.Sprint("child", rng.IntN(3))
			asked = of.Child(child)
		}
		var end func()
		if rng.IntN(3) == 0 {
			region = fmt.Sprint("region", rng.IntN(3))
			ctx, r := tracer.Start(context.Background(), region, asked)
			asked, end = asked.WithContext(ctx), func() { r.End() }
		}
		place, size := rng.IntN(len(places)), uintptr(1+rng.IntN(20_000))
		if fail = 0; rng.IntN(10) == 0 {
			fail = 1
		}
		failed := fail == 1
		operation := rng.IntN(20)
		if first {
			operation, failed, fail, first = 0, false, 0, false
		}
		pick := func() int { // a block of this Proxy
			for range 100 {
				if i := rng.IntN(len(all)); all[i].of == of {
					return i
				}
			}
			return -1
		}
		raw := func(b blockalloc.Block) blockalloc.Block {
			if rng.IntN(3) > 0 {
				return b
			}
			n, err := blockalloc.FromRaw(b.IntoRaw())
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		switch i := pick(); {
		case operation < 8 && len(all) < 60 || i < 0:
			b, err := places[place](asking{asked, blockalloc.Block{}, size}, allocates)
			if (err != nil) != failed {
				t.Fatal(err)
			}
			if failed {
				p.counts.AllocateFailures++
				p.counts.Events++
				break
			}
			p.counts.Allocations++
			acquired(b, of, child, region, fmt.Sprintf("place%c", 'A'+place))
		case operation < 12:
			if operation == 11 { // which is not made to fail
				size, failed = 0, false
			}
			old := all[i]
			b, err := places[place](asking{asked, raw(old.Block), size}, reallocates)
			if (err != nil) != failed {
				t.Fatal(err)
			}
			released(i, child, failed)
			if failed {
				p.counts.ReallocateFailures++
				break
			}
			p.counts.Reallocations++
			if size > 0 {
				acquired(b, of, child, region, fmt.Sprintf("place%c again", 'A'+place))
			}
		case operation < 14 && len(gone) > 0: // again, if nothing else is there
			old := gone[rng.IntN(len(gone))]
			if slices.ContainsFunc(all, func(h held) bool { return h.Addr() == old.Addr() }) {
				break
			}
			fail = 0
			if old.of.Free(raw(old.Block)) == nil {
				t.Fatal("a second free succeeded")
			}
			p.counts.FreeFailures++
			if _, err := old.of.Reallocate(raw(old.Block), size); err == nil {
				t.Fatal("a block that was freed is reallocated")
			}
			p.counts.ReallocateFailures++
			p.counts.Events += 4
		default:
			err := asked.Free(raw(all[i].Block))
			if (err != nil) != failed {
				t.Fatal(err)
			}
			released(i, child, failed)
			if failed {
				p.counts.FreeFailures++
			} else {
				p.counts.Frees++
			}
		}
		if end != nil {
			end()
		}
		if child != "" && rng.IntN(2) == 0 {
			_ = asked.Close()
		}
	}
	p.end = time.Since(began)
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	var sum history.Counts
	for _, proxy := range proxies {
		s := proxy.Stats()
		sum.Reallocations += s.Reallocations
		sum.Frees += s.Frees
		sum.FreeFailures += s.FailedFrees
		sum.ReallocateFailures += s.FailedReallocations
	}
	if c := p.counts; sum != (history.Counts{Reallocations: c.Reallocations, Frees: c.Frees, FreeFailures: c.FreeFailures, ReallocateFailures: c.ReallocateFailures}) {
		t.Fatalf("the model has %+v, the counters %+v", c, sum)
	}
}
