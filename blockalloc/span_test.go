package blockalloc_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// asSpans returns blocks as what they take of the spans that they are in.
func asSpans(blocks []blockalloc.Block) (list []blockalloc.Span) {
	for _, b := range blocks {
		list = append(list, blockalloc.Span{Addr: b.Addr(), Size: b.Size()})
	}
	return list
}

// spansAgree holds the spans of an allocator at rest against its live blocks, and against what Stats says of them:
// spans do not overlap, and what is not free of each is the live blocks in it.
func spansAgree(a blockalloc.Spanner, live []blockalloc.Span, size, free, cached int64) error {
	spans := slices.Collect(a.Spans)
	slices.SortFunc(spans, func(a, b blockalloc.Span) int { return cmp.Compare(a.Addr, b.Addr) })
	used := make([]uintptr, len(spans))
	var end uintptr
	for i, s := range spans {
		if s.Addr < end || s.Free > s.Size || s.Cached > s.Free || s.Block == 0 || s.Block > s.Size {
			return fmt.Errorf("%+v after one that ends at %#x", s, end)
		}
		end = s.Addr + s.Size
		used[i] = s.Size - s.Free
		size -= int64(s.Size)
		free -= int64(s.Free)
		cached -= int64(s.Cached)
	}
	if size != 0 || free != 0 || cached != 0 {
		return fmt.Errorf("the spans have %d B less than Stats says, %d B less of them free, and %d B less with memory behind them", size, free, cached)
	}
	for _, b := range live {
		i, found := slices.BinarySearchFunc(spans, b.Addr, func(s blockalloc.Span, addr uintptr) int { return cmp.Compare(s.Addr, addr) })
		if !found {
			i--
		}
		if i < 0 || b.Addr >= spans[i].Addr+spans[i].Size {
			continue // straight from System, or the parent
		}
		if b.Size != spans[i].Block {
			return fmt.Errorf("%+v is in %+v, whose blocks have another size", b, spans[i])
		}
		if b.Size > used[i] {
			return fmt.Errorf("%+v is in %+v, of which other live blocks have more than it leaves", b, spans[i])
		}
		used[i] -= b.Size
	}
	if i := slices.IndexFunc(used, func(n uintptr) bool { return n != 0 }); i >= 0 {
		return fmt.Errorf("%+v has %d B in live blocks that nobody has", spans[i], used[i])
	}
	return nil
}

func poolSpansAgree(p *blockalloc.Pool, live []blockalloc.Span) error {
	s := p.Stats()
	var large int64
	for _, b := range live {
		if b.Size > blockalloc.PoolChunkSize {
			large += int64(b.Size)
		}
	}
	return spansAgree(p, live, s.Carved-large, s.Carved-s.LiveBytes, s.Cached)
}

func slabSpansAgree(s *blockalloc.Slab, live []blockalloc.Span) error {
	st := s.Stats()
	return spansAgree(s, live, st.BlockBytes, st.BlockBytes-st.LiveSlotBytes, st.BlockBytes-st.LiveSlotBytes)
}

// TestSpansStop: whoever has seen enough gets no more.
func TestSpansStop(t *testing.T) {
	p := poolOf(t, new(blockalloc.Pool))
	s := newSlab(t, p, 16<<10)
	slots := []blockalloc.Block{slabAllocate(t, s, 8), slabAllocate(t, s, 1000)}
	page, err := p.Allocate(blockalloc.BlockLayout(32 << 10))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []blockalloc.Spanner{p, s} {
		n := 0
		for range a.Spans {
			n++
			break
		}
		if n != 1 {
			t.Errorf("%T yields %d spans to who wants one", a, n)
		}
	}
	slabFree(t, s, slots...)
	if err := p.Free(page); err != nil {
		t.Error(err)
	}
	closeSlab(t, s)
}

// TestSpansStorm walks while others allocate, free, trim and give back: no span has more free than it has, and no run of a Pool is
// twice in a walk. At rest all agree again.
func TestSpansStorm(t *testing.T) {
	p := poolOf(t, &blockalloc.Pool{MaxCached: -1})
	s := newSlab(t, p, 16<<10)
	s.MaxEmpty = -1
	steps := 20_000
	if testing.Short() {
		steps = 4_000
	}
	var storm, watch sync.WaitGroup
	var over atomic.Bool
	var mu sync.Mutex
	var kept []blockalloc.Block
	for worker := range 3 {
		storm.Go(func() {
			r := rand.New(rand.NewPCG(7, uint64(worker)))
			var live []blockalloc.Block
			for i := range steps {
				switch {
				case i%1000 == 999:
					_ = s.Trim()
					_ = p.Trim()
				case r.IntN(2) == 0 && len(live) < 100:
					b, err := s.Allocate(blockalloc.Layout{Size: 1 + uintptr(r.IntN(1<<r.IntN(13))), Align: 8})
					if err != nil {
						t.Error(err)
						return
					}
					live = append(live, b)
				case len(live) > 0:
					j := r.IntN(len(live))
					if err := s.Free(live[j]); err != nil {
						t.Error(err)
					}
					live[j] = live[len(live)-1]
					live = live[:len(live)-1]
				}
			}
			mu.Lock()
			defer mu.Unlock()
			kept = append(kept, live...)
		})
	}
	for _, a := range []blockalloc.Spanner{p, s} {
		watch.Go(func() {
			for ; !over.Load(); runtime.Gosched() {
				seen := make(map[uintptr]bool)
				for s := range a.Spans {
					if s.Free > s.Size || s.Size == 0 || a == blockalloc.Spanner(p) && seen[s.Addr] {
						t.Errorf("%T: %+v; seen before: %t", a, s, seen[s.Addr])
						return
					}
					seen[s.Addr] = true
				}
			}
		})
	}
	storm.Wait()
	over.Store(true)
	watch.Wait()
	if err := slabSpansAgree(s, asSpans(kept)); err != nil {
		t.Error(err)
	}
	lent := slices.Collect(s.Spans)
	for _, b := range kept {
		if b.Size() > 16<<10/8 { // straight from the parent
			lent = append(lent, asSpans([]blockalloc.Block{b})...)
		}
	}
	if err := poolSpansAgree(p, lent); err != nil {
		t.Error(err)
	}
	slabFree(t, s, kept...)
	closeSlab(t, s)
}

// BenchmarkSpans measures a walk, a thousand spans.
func BenchmarkSpans(b *testing.B) {
	const spans = 1000
	p := new(blockalloc.Pool)
	slab, err := blockalloc.NewSlab(p, 64<<10)
	if err != nil {
		b.Fatal(err)
	}
	var live []blockalloc.Block
	for _, c := range []struct {
		name  string
		of    blockalloc.Allocator
		size  uintptr
		count int
	}{{"Pool", p, 4 << 10, 64 * spans}, {"Slab", slab, 64, 1024 * spans}} {
		for range c.count {
			block, err := c.of.Allocate(blockalloc.Layout{Size: c.size, Align: 8})
			if err != nil {
				b.Fatal(err)
			}
			live = append(live, block)
		}
		b.Run(c.name, func(b *testing.B) {
			n := 0
			for b.Loop() {
				n = 0
				for range c.of.(blockalloc.Spanner).Spans {
					n++
				}
			}
			b.ReportMetric(float64(n), "spans")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n)*spans, "ns/1000-spans")
			measure.ReportUnit(b)
		})
		for _, block := range live {
			if err := c.of.Free(block); err != nil {
				b.Fatal(err)
			}
		}
		live = live[:0]
	}
	if err := slab.Close(); err != nil {
		b.Error(err)
	}
	if err := p.Close(); err != nil {
		b.Error(err)
	}
}
