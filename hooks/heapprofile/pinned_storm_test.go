package heapprofile

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// sane says what is wrong with a report, whatever happens meanwhile.
func sane(r PinnedReport) error {
	var known, size, free int64
	for _, s := range r.Sites {
		if s.Bytes < 0 || s.Error < 0 || s.Known <= 0 || s.Spans <= 0 || s.Bytes < s.Known {
			return fmt.Errorf("%+v", s)
		}
		known += s.Known
	}
	for _, a := range r.Allocators {
		if a.Bytes < 0 || a.Bytes > a.Size || a.Spans < 0 {
			return fmt.Errorf("%+v", a)
		}
		size, free = size+a.Size, free+a.Bytes
	}
	if r.Known < 0 || r.Unknown < 0 || r.Empty < 0 || r.Known+r.Unknown+r.Empty != r.Bytes || known != r.Known || free != r.Bytes || r.Bytes > size {
		return fmt.Errorf("%+v", r)
	}
	return nil
}

// TestPinnedStorm takes reports while others allocate and free: none has less than nothing, or more than was carved, and each adds
// up. At rest what is pinned is what the allocators say, and when all is freed nobody pins it.
func TestPinnedStorm(t *testing.T) {
	steps := 20_000
	if testing.Short() {
		steps = 3_000
	}
	for _, rate := range []int{1, 500} {
		p := New(Options{Rate: rate})
		pool := &blockalloc.Pool{MaxCached: -1}
		slab, err := blockalloc.NewSlab(pool, 16<<10)
		if err != nil {
			t.Fatal(err)
		}
		slab.MaxEmpty = -1
		mem := alloctrace.Wrap(slab, alloctrace.WithHooks(p))
		report := func() PinnedReport {
			r, err := p.Pinned(mem)
			if err == nil {
				err = sane(r)
			}
			if err != nil {
				t.Error(err)
			}
			return r
		}
		var storm, watch sync.WaitGroup
		var over atomic.Bool
		kept := make([][]blockalloc.Block, 3)
		for worker := range kept {
			storm.Go(func() {
				r := rand.New(rand.NewPCG(3, uint64(worker)))
				live := make([]blockalloc.Block, 0, 100)
				for i := range steps {
					if i%1000 == 999 {
						_ = slab.Trim()
						_ = pool.Trim()
					}
					j := r.IntN(100)
					if j >= len(live) {
						if b, err := mem.Allocate(blockalloc.Layout{Size: 1 + uintptr(r.IntN(1<<r.IntN(13))), Align: 8}); err == nil {
							live = append(live, b)
						} else {
							t.Error(err)
						}
						continue
					}
					if err := mem.Free(live[j]); err != nil {
						t.Error(err)
					}
					live[j] = live[len(live)-1]
					live = live[:len(live)-1]
				}
				kept[worker] = live
			})
		}
		watch.Go(func() {
			for ; !over.Load(); runtime.Gosched() {
				report()
			}
		})
		storm.Wait()
		over.Store(true)
		watch.Wait()
		atRest := func() int64 {
			of, in := pool.Stats(), slab.Stats()
			return of.Carved - of.LiveBytes + in.BlockBytes - in.LiveSlotBytes
		}
		if r := report(); r.Bytes != atRest() || r.Known == 0 || rate == 1 && r.Unknown > 0 {
			t.Errorf("at rest %d bytes are pinned, want %d, known if all are sampled: %+v", r.Bytes, atRest(), r)
		}
		for _, live := range kept {
			for _, b := range live {
				if err := mem.Free(b); err != nil {
					t.Error(err)
				}
			}
		}
		if r := report(); r.Bytes != atRest() || r.Empty != r.Bytes || len(r.Sites) > 0 {
			t.Errorf("when all is freed: %+v", r)
		}
		if err := slab.Close(); err != nil {
			t.Error(err)
		}
		if r := report(); rate == 1 && r.String() == "" {
			t.Error("no text")
		}
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
		if r := report(); r.Bytes != 0 || r.String() != "nothing is pinned\n" {
			t.Errorf("once closed: %+v", r)
		}
	}
}

// BenchmarkPinned measures a report, a thousand spans: blocks of a Slab with 8 live slots of 16, all of them sampled.
func BenchmarkPinned(b *testing.B) {
	const spans = 1000
	p := New(Options{Rate: 1})
	pool := new(blockalloc.Pool)
	slab, err := blockalloc.NewSlab(pool, 64<<10)
	if err != nil {
		b.Fatal(err)
	}
	mem := alloctrace.Wrap(slab, alloctrace.WithHooks(p))
	var live []blockalloc.Block
	for range spans * 16 {
		live = append(live, placeA(b, mem, 4<<10))
	}
	for i := range live[:len(live)/2] {
		giveBack(b, mem, live[2*i+1])
		live[i] = live[2*i]
	}
	live = live[:len(live)/2]
	var r PinnedReport
	for b.Loop() {
		if r, err = p.Pinned(mem); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(r.Allocators[0].Spans), "spans")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(r.Allocators[0].Spans)*spans, "ns/1000-spans")
	for _, block := range live {
		if err := mem.Free(block); err != nil {
			b.Fatal(err)
		}
	}
	if err := slab.Close(); err != nil {
		b.Error(err)
	}
	if err := pool.Close(); err != nil {
		b.Error(err)
	}
}
