package history

import (
	"context"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/recording"
)

// TestRecorded: of random programs that are recorded, the history has each block with its size, child and life, as the program knows
// them, and the live set at random moments.
func TestRecorded(t *testing.T) {
	for seed := range uint64(3) {
		var want []Block
		var peak, live int64
		var peakAt time.Duration
		var counts Counts
		children := make(map[Block]string) // of blocks of want
		path := record(t, func(t *testing.T, _ *recording.Recorder, mem *alloctrace.Proxy) {
			rng := rand.New(rand.NewPCG(seed, 2))
			type held struct {
				blockalloc.Block
				known Block
				child string
			}
			began := time.Now()
			var all []held
			acquired := func(b blockalloc.Block, child string) {
				now := time.Since(began)
				if live += int64(b.Size()); live > peak {
					peak, peakAt = live, now
				}
				all = append(all, held{b, Block{Addr: b.Addr(), Size: b.Size(), Requested: b.Requested(), Acquired: now}, child})
				counts.Events++
			}
			released := func(i int) {
				h := all[i]
				h.known.Released = time.Since(began)
				want = append(want, h.known)
				children[h.known] = h.child
				all = slices.Delete(all, i, i+1)
				live -= int64(h.known.Size)
				counts.Events++
			}
			limited := map[string]*alloctrace.Proxy{"": mem, "cache": mem.Child("cache"), "index": mem.Child("index")}
			for range 2000 {
				time.Sleep(time.Duration(1 + rng.IntN(1000)))
				child := []string{"", "cache", "index"}[rng.IntN(3)]
				p := limited[child]
				switch n := rng.IntN(10); {
				case n < 4 || len(all) == 0:
					b := allocate(t, p, uintptr(1+rng.IntN(5000)))
					counts.Allocations++
					acquired(b, child)
				case n < 6:
					i := rng.IntN(len(all))
					b := all[i].Block
					released(i)
					n, err := p.Reallocate(b, uintptr(1+rng.IntN(5000)))
					if err != nil {
						t.Fatal(err)
					}
					counts.Reallocations++
					acquired(n, child)
				case n < 7: // a block that cannot be
					if _, err := p.Allocate(blockalloc.Layout{Size: 1, Align: 3}); err == nil {
						t.Fatal("an alignment of 3")
					}
					counts.AllocateFailures++
					counts.Events++
				default:
					i := rng.IntN(len(all))
					b := all[i].Block
					released(i)
					free(t, p, b)
					counts.Frees++
				}
			}
			end := time.Since(began)
			for _, h := range all {
				h.known.Live, h.known.Released = true, end
				want = append(want, h.known)
				children[h.known] = h.child
			}
		})
		r := open(t, path, false)
		s := Summarize(r, Options{})
		if s.Peak.Bytes != peak || s.PeakAt != peakAt || s.Live.Bytes != live || s.Counts != counts || !s.Closed || len(s.Owners) != 3 {
			t.Errorf("seed %d: %+v, want a peak of %d at %v, %d live, %+v", seed, s, peak, peakAt, live, counts)
		}
		found := FindBlocks(r, func(*Block) bool { return true }, func(a, b *Block) int { return byAddr(*a, *b) }, -1, Options{})
		slices.SortFunc(want, byAddr)
		if !slices.EqualFunc(found.Blocks, want, func(a, b Block) bool {
			return plain(a) == plain(b) && a.Site.Child == children[b]
		}) {
			t.Fatalf("seed %d: %d blocks, want %d: %+v; %+v", seed, len(found.Blocks), len(want), found.Blocks[0], want[0])
		}
		for i := range time.Duration(10) {
			at := s.Last / 10 * i
			var there Amount
			for _, b := range want {
				if b.LiveAt(at) {
					there.add(1, int64(b.Size))
				}
			}
			if c := Between(r, at, at, Options{}); c.Before != there || c.After != there || len(c.Sites) != 0 {
				t.Errorf("seed %d: %+v are live at %v, want %+v", seed, c, at, there)
			}
			if f := FindBlocks(r, func(b *Block) bool { return b.LiveAt(at) }, func(a, b *Block) int { return 0 }, 0, Options{}); f.Matched != there {
				t.Errorf("seed %d: %+v are found at %v, want %+v", seed, f, at, there)
			}
		}
	}
}

// TestConcurrent: what goroutines did to blocks that they hand to each other, through two Proxies, one around the other, is live as
// the Proxies count it.
func TestConcurrent(t *testing.T) {
	path := t.TempDir() + "/a"
	rec, err := recording.Create(path, recording.Options{Queue: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	inner := alloctrace.Wrap(new(blockalloc.Pool), alloctrace.WithName("inner"), alloctrace.WithHooks(rec))
	outer := alloctrace.Wrap(inner, alloctrace.WithName("outer"), alloctrace.WithHooks(rec))
	handed := make(chan blockalloc.Block, 50)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(g)))
			for range 3000 {
				b, err := outer.Allocate(blockalloc.Layout{Size: uintptr(1 + rng.IntN(9000)), Align: 1})
				if err != nil {
					t.Error(err)
					return
				}
				select {
				case handed <- b:
				case other := <-handed:
					if other, err = outer.Reallocate(other, 64); err == nil {
						err = outer.Free(other)
					}
					if err == nil && rng.IntN(20) > 0 {
						err = outer.Free(b)
					}
					if err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	s := Summarize(open(t, path, false), Options{})
	if len(s.Owners) != 2 || s.Unknown.Older.Blocks != 0 || s.Unknown.Lost.Blocks != 0 || s.Unknown.Unmatched.Blocks != 0 {
		t.Fatalf("%+v", s)
	}
	for _, o := range s.Owners {
		of := map[string]*alloctrace.Proxy{"inner": inner, "outer": outer}[o.Proxy].Stats()
		if o.Live != (Amount{of.LiveBlocks, of.LiveBytes}) || o.Allocated.Bytes != of.AllocatedBytes {
			t.Errorf("%+v, want %+v", o, of)
		}
	}
}

// TestDamaged: wherever a recording is cut off, or a byte is another, what came before is there and the rest is said to be missing.
func TestDamaged(t *testing.T) {
	whole := record(t, func(t *testing.T, rec *recording.Recorder, mem *alloctrace.Proxy) {
		for range 20 {
			hold(t, mem, 64)
			time.Sleep(time.Second)
			if err := rec.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	})
	info, err := os.Stat(whole)
	if err != nil {
		t.Fatal(err)
	}
	damaged := 0
	for n := info.Size() - 1; n > 0; n -= 97 {
		r, err := Open(cutFile(t, whole, int(n)), false)
		if err != nil {
			continue
		}
		l := FindLeaks(r, Options{})
		damaged += len(l.Unknown.Damage)
		if blocks := l.Live.Blocks; blocks > 20 || blocks > 0 && (l.Sites[0].Oldest != 0 || l.Sites[0].Newest != l.Moments[3] || len(l.Unknown.Damage) == 1 && l.Unknown.Uncertain != l.Live) {
			t.Errorf("of %d bytes: %+v", n, l)
		}
	}
	if damaged == 0 {
		t.Error("no part of the recording is damaged")
	}
	b, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)*3/4] ^= 1 // the headers go on, and what can be read does not
	if err := os.WriteFile(whole, b, 0o600); err != nil {
		t.Fatal(err)
	}
	r := open(t, whole, false)
	var last, ends int64
	r.Progress = func(read, size int64) {
		if last = read; read == size {
			ends++
		}
	}
	line, err := NewTimeline(r, "", 5, Options{})
	if last != r.Size() || ends < 2 {
		t.Errorf("%d bytes were read of %d, %d times all", last, r.Size(), ends)
	}
	if err != nil || len(line.Unknown.Damage) != 1 || line.Begin+5*line.Step > 16*time.Second || line.Total.Live < 10*64 || line.Total.Values[4] != line.Total.Live {
		t.Errorf("%v, %+v", err, line)
	}
}

// A slow writer waits until it may write.
type slow struct {
	*os.File
	wait chan struct{}
}

func (s *slow) Write(b []byte) (int, error) {
	<-s.wait
	return s.File.Write(b)
}

// TestDropped: where events were dropped is a gap, with how many.
func TestDropped(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/a")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := &slow{f, make(chan struct{}, 1)}
	out.wait <- struct{}{} // the header
	rec, err := recording.New(out, recording.Options{Queue: 64, FlushEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	n := uintptr(0)
	for n < 100_000 {
		n++
		rec.Observe(context.Background(), alloctrace.Event{Kind: alloctrace.Allocated, Addr: n * 64, Size: 64, Align: 64}, nil)
		if n == 10 { // the writer waits from here on
			go rec.Flush()
		}
	}
	close(out.wait)
	for range 10 {
		n++
		rec.Observe(context.Background(), alloctrace.Event{Kind: alloctrace.Allocated, Addr: n * 64, Size: 64, Align: 64}, nil)
	}
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	s := Summarize(open(t, f.Name(), false), Options{})
	if s.Unknown.Gaps == 0 || s.Unknown.Dropped+s.Counts.Events != int64(n) || s.Unknown.Dropped != rec.Usage().Dropped || s.Live.Blocks != s.Counts.Events || s.Unknown.Uncertain.Blocks == 0 {
		t.Errorf("of %d events: %+v", n, s)
	}
}

// TestRefusedReleases: what a Proxy refuses, however it does, releases nothing and brings nothing back.
func TestRefusedReleases(t *testing.T) {
	for name, inner := range map[string]blockalloc.Allocator{"Heap": new(blockalloc.Heap), "Pool": new(blockalloc.Pool), "no Finder": noFinder{new(blockalloc.Heap)}} {
		var live blockalloc.Block
		var before, after counter.Stats
		path := record(t, func(t *testing.T, rec *recording.Recorder, _ *alloctrace.Proxy) {
			mem := alloctrace.Wrap(inner, alloctrace.WithName("raw"), alloctrace.WithHooks(rec))
			live = allocate(t, mem, 4096)
			gone := allocate(t, mem, 4096)
			raw := func(b blockalloc.Block) blockalloc.Block {
				n, err := blockalloc.FromRaw(b.IntoRaw())
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			refused := func(p *alloctrace.Proxy, b blockalloc.Block) {
				if p.Free(b) == nil {
					t.Error("a second free succeeded")
				}
				for _, size := range []uintptr{8192, 1, 0} {
					if _, err := p.Reallocate(b, size); err == nil {
						t.Errorf("a block that was freed is reallocated to %d", size)
					}
					if _, err := p.Resize(b, size); err == nil {
						t.Errorf("a block that was freed is resized to %d", size)
					}
				}
			}
			free(t, mem, gone)
			refused(mem, raw(gone))
			refused(mem, gone)
			gone = allocate(t, mem, 4096)
			if gone, _ = mem.Reallocate(gone, 8192); gone.IsZero() {
				t.Fatal("not reallocated")
			}
			moved := gone
			if moved, _ = mem.Reallocate(gone, 1<<20); moved.IsZero() {
				t.Fatal("not reallocated")
			}
			refused(mem, gone)
			free(t, mem, moved)
			if name == "no Finder" {
				refused(mem, raw(live)) // which it does not know
			}
			c := mem.Child("c")
			before = mem.Stats()
			_ = c.Close()
			_, _ = c.Reallocate(live, 8)
			_, _ = c.Resize(live, 8)
			_, _ = c.Reallocate(gone, 8)
			_, _ = c.Reallocate(blockalloc.Block{}, 8)
			after = mem.Stats()
		})
		if before.LiveBlocks != 1 || after.LiveBlocks != 1 {
			t.Fatalf("%s: %+v", name, after)
		}
		r := open(t, path, false)
		found := FindBlocks(r, func(b *Block) bool { return b.Live }, func(a, b *Block) int { return byAddr(*a, *b) }, -1, Options{})
		s := Summarize(r, Options{})
		if len(found.Blocks) != 1 || found.Blocks[0].Addr != live.Addr() || s.Live != (Amount{1, int64(live.Size())}) || s.Counts.FreeFailures != after.FailedFrees || s.Counts.ReallocateFailures != after.FailedReallocations || !reflect.DeepEqual(s.Unknown, Unknown{}) {
			t.Errorf("%s: %+v is live, want %v; %+v of %+v", name, found.Blocks, live, s, after)
		}
	}
}

// noFinder cannot say what was granted.
type noFinder struct{ blockalloc.Allocator }
