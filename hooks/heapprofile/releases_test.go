package heapprofile

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/hooks"
)

var requireAll = os.Getenv("ALLOCTRACE_REQUIRE_ALL") == "1"

// again hands out the same block again and again, and refuses what it is told to.
type again struct {
	block  blockalloc.Block
	refuse bool
}

func newAgain(t *testing.T) *again {
	t.Helper()
	b, err := new(blockalloc.Heap).Allocate(blockalloc.Layout{Size: 64, Align: 64})
	if err != nil {
		t.Fatal(err)
	}
	return &again{block: b}
}

func (a *again) Allocate(blockalloc.Layout) (blockalloc.Block, error) { return a.block, nil }

func (a *again) Reallocate(b blockalloc.Block, _ uintptr) (blockalloc.Block, error) {
	return b, a.err()
}

func (a *again) Free(blockalloc.Block) error { return a.err() }

func (a *again) err() error {
	if a.refuse {
		return failing.ErrInjected
	}
	return nil
}

// owned returns a child of p: the owner of its blocks, and their label, is its name.
func owned(p *alloctrace.Proxy, name string) *alloctrace.Proxy { return p.Child(name) }

// owners returns the owners of what h knows to be live, by its blocks and by its samples.
func owners(t *testing.T, h *Profile) (list []string) {
	t.Helper()
	for _, b := range h.Blocks() {
		list = append(list, b.Owner)
	}
	var sampled []string
	for _, s := range h.Samples() {
		for range s.LiveBlocks {
			sampled = append(sampled, s.Labels[0].Value)
		}
		if s.LiveBlocks < 0 || s.LiveBytes < 0 {
			t.Errorf("%v has %d live blocks of %d bytes", s.Labels, s.LiveBlocks, s.LiveBytes)
		}
	}
	slices.Sort(list)
	slices.Sort(sampled)
	if !slices.Equal(list, sampled) || h.Stats().Live != int64(len(list)) {
		t.Errorf("blocks are those of %q, and samples those of %q; %d are live", list, sampled, h.Stats().Live)
	}
	return list
}

// nested is a Profile, bare and inside other hooks.
func nested() map[string]func() (h alloctrace.Hook, inside *Profile) {
	all := make(map[string]func() (h alloctrace.Hook, inside *Profile))
	for name, around := range map[string]func(p *Profile) alloctrace.Hook{
		"bare":         func(p *Profile) alloctrace.Hook { return p },
		"Tee":          func(p *Profile) alloctrace.Hook { return hooks.Tee(nil, hooks.NewWriter(discard{}), p) },
		"Filter":       func(p *Profile) alloctrace.Hook { return hooks.Filter(p, hooks.MinSize(1)) },
		"Meter of Tee": func(p *Profile) alloctrace.Hook { return hooks.NewMeter(hooks.Tee(p, hooks.NewWriter(discard{}))) },
	} {
		all[name] = func() (alloctrace.Hook, *Profile) {
			p := New(Options{Rate: 1})
			return around(p), p
		}
	}
	return all
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// eachNested runs a test with each.
func eachNested(t *testing.T, test func(t *testing.T, h alloctrace.Hook, inside *Profile)) {
	for name, made := range nested() {
		t.Run(name, func(t *testing.T) {
			h, inside := made()
			test(t, h, inside)
		})
	}
}

// TestRefusalBringsBackTheNewest: of several blocks that were at one address the one that was
// there last is live again.
func TestRefusalBringsBackTheNewest(t *testing.T) {
	for name, release := range map[string]func(*alloctrace.Proxy, blockalloc.Block) error{
		"Free": func(p *alloctrace.Proxy, b blockalloc.Block) error { return p.Free(b) },
		"Reallocate": func(p *alloctrace.Proxy, b blockalloc.Block) error {
			_, err := p.Reallocate(b, 64)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachNested(t, func(t *testing.T, h alloctrace.Hook, inside *Profile) {
				a := newAgain(t)
				p := alloctrace.Wrap(a, alloctrace.WithHooks(h))
				for i := range 5 {
					b := allocateOne(t, owned(p, fmt.Sprint(i)), 64)
					a.refuse = true
					for range 3 {
						if err := release(p, b); !errors.Is(err, failing.ErrInjected) {
							t.Fatal(err)
						}
						if got := owners(t, inside); !slices.Equal(got, []string{fmt.Sprint(i)}) {
							t.Fatalf("after %s of block %d failed live are those of %q", name, i, got)
						}
					}
					a.refuse = false
					if err := p.Free(b); err != nil {
						t.Fatal(err)
					}
				}
				if got := owners(t, inside); len(got) != 0 {
					t.Errorf("at the end live are those of %q", got)
				}
			})
		})
	}
}

// TestRefusalOfAnotherProxy: what another allocator refuses, as none of its own or as freed
// before, is live as it was.
func TestRefusalOfAnotherProxy(t *testing.T) {
	eachNested(t, func(t *testing.T, h alloctrace.Hook, inside *Profile) {
		p := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(h))
		for _, refusal := range []error{blockalloc.ErrNotOwned, blockalloc.ErrDoubleFree, blockalloc.ErrScoped} {
			other := alloctrace.Wrap(refusing{refusal}, alloctrace.WithHooks(h))
			b := allocateOne(t, owned(p, "p"), 64)
			for range 40 {
				if err := other.Free(b); !errors.Is(err, refusal) {
					t.Fatal(err)
				}
				if _, err := other.Reallocate(b, 128); !errors.Is(err, refusal) {
					t.Fatal(err)
				}
				if got := owners(t, inside); !slices.Equal(got, []string{"p"}) {
					t.Fatalf("after it was refused with %v live are those of %q", refusal, got)
				}
			}
			if err := p.Free(b); err != nil {
				t.Fatal(err)
			}
			for _, again := range []*alloctrace.Proxy{p, other} { // a second free brings nothing back
				if err := again.Free(b); err == nil {
					t.Fatal("a second free succeeds")
				}
				if got := owners(t, inside); len(got) != 0 {
					t.Fatalf("after a second free live are those of %q", got)
				}
			}
		}
	})
}

type refusing struct{ err error }

func (r refusing) Allocate(blockalloc.Layout) (blockalloc.Block, error) {
	return blockalloc.Block{}, r.err
}

func (r refusing) Reallocate(b blockalloc.Block, _ uintptr) (blockalloc.Block, error) {
	return b, r.err
}

func (r refusing) Free(blockalloc.Block) error { return r.err }

// gate lets frees begin, and refuses them all once it opens.
type gate struct {
	blockalloc.Allocator
	begun sync.WaitGroup
	open  chan struct{}
}

func (g *gate) Free(blockalloc.Block) error {
	g.begun.Done()
	<-g.open
	return failing.ErrInjected
}

// TestRefusalsAtOnce: however many releases are under way at once, and whatever is released
// meanwhile, those that fail take nothing away.
func TestRefusalsAtOnce(t *testing.T) {
	blocks, meanwhile := 3000, 10_000
	if requireAll {
		blocks, meanwhile = 20_000, 200_000
	}
	for name, made := range nested() {
		if name == "Filter" || name == "Tee" {
			continue // as Meter
		}
		t.Run(name, func(t *testing.T) {
			h, inside := made()
			heap := new(blockalloc.Heap)
			g := &gate{Allocator: heap, open: make(chan struct{})}
			p := owned(alloctrace.Wrap(g, alloctrace.WithHooks(h)), "gate")
			busy := alloctrace.Wrap(heap, alloctrace.WithHooks(h))
			g.begun.Add(blocks)
			var refused sync.WaitGroup
			for range blocks {
				b := allocateOne(t, p, 64)
				refused.Go(func() { _ = p.Free(b) })
			}
			g.begun.Wait()
			if got := owners(t, inside); len(got) != 0 {
				t.Errorf("while they are being freed %d are live", len(got))
			}
			for range meanwhile {
				if err := busy.Free(allocateOne(t, busy, 64)); err != nil {
					t.Fatal(err)
				}
			}
			close(g.open)
			refused.Wait()
			if got := owners(t, inside); len(got) != blocks || slices.ContainsFunc(got, func(s string) bool { return s != "gate" }) {
				t.Errorf("after all were refused %d are live, want %d", len(got), blocks)
			}
		})
	}
}

// TestRefusalStorm has goroutines allocate, reallocate, free, free what is not theirs, and be
// refused, at addresses that are used again at once, by way of two proxies around one
// allocator and one around another: each block that is live then is known, with the one who
// allocated it, and nothing else.
func TestRefusalStorm(t *testing.T) {
	steps := 2000
	if requireAll {
		steps = 40_000
	}
	eachNested(t, func(t *testing.T, h alloctrace.Hook, inside *Profile) {
		var calls atomic.Uint64
		pool := failing.If(&reuser{}, func(failing.Call) bool {
			return calls.Add(1)*0x9e3779b97f4a7c15>>62 == 0
		})
		one := alloctrace.Wrap(pool, alloctrace.WithHooks(h))
		two := alloctrace.Wrap(pool, alloctrace.WithHooks(h))
		foreign := alloctrace.Wrap(refusing{blockalloc.ErrNotOwned}, alloctrace.WithHooks(h))
		var mu sync.Mutex
		var want []string
		var foreignFrees atomic.Int64
		var wg sync.WaitGroup
		for w := range uint64(6) {
			names := []*alloctrace.Proxy{owned(one, fmt.Sprint(w, " one")), owned(two, fmt.Sprint(w, " two"))}
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(w, 12))
				type held struct {
					block blockalloc.Block
					by    *alloctrace.Proxy
				}
				var blocks []held
				for range steps {
					p := names[rnd.IntN(2)]
					switch i := rnd.IntN(len(blocks) + 4); {
					case i >= len(blocks):
						if b, err := p.Allocate(blockalloc.Layout{Size: 64, Align: 64}); err == nil {
							blocks = append(blocks, held{b, p})
						}
					case rnd.IntN(4) == 0:
						if foreign.Free(blocks[i].block) == nil {
							t.Error("a foreign block is freed")
						}
					case rnd.IntN(3) == 0:
						if b, err := p.Reallocate(blocks[i].block, 64); err == nil {
							if blocks[i].by != p {
								foreignFrees.Add(1)
							}
							blocks[i] = held{b, p}
						}
					default:
						if p.Free(blocks[i].block) == nil {
							if blocks[i].by != p {
								foreignFrees.Add(1)
							}
							blocks = slices.Delete(blocks, i, i+1)
						}
					}
				}
				mu.Lock()
				defer mu.Unlock()
				for _, b := range blocks {
					want = append(want, b.by.Name())
				}
			})
		}
		wg.Wait()
		slices.Sort(want)
		if got := owners(t, inside); !slices.Equal(got, want) {
			t.Errorf("%d are live, those of\n%q\nwant %d, of\n%q", len(got), got, len(want), want)
		}
		if n := inside.live.pending(); n != 0 {
			t.Errorf("the end of %d releases is waited for", n)
		}
		if got := inside.Stats().ForeignFrees; got != foreignFrees.Load() {
			t.Errorf("%d foreign frees, want %d", got, foreignFrees.Load())
		}
	})
}

// reuser hands out at once, to anybody, what was freed last.
type reuser struct {
	mu   sync.Mutex
	heap blockalloc.Heap
	free []blockalloc.Block
}

func (r *reuser) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.free); n > 0 {
		b := r.free[n-1]
		r.free = r.free[:n-1]
		return b, nil
	}
	return r.heap.Allocate(l)
}

func (r *reuser) Reallocate(b blockalloc.Block, _ uintptr) (blockalloc.Block, error) {
	n, err := r.Allocate(blockalloc.Layout{Size: b.Size(), Align: b.Align()})
	if err != nil {
		return b, err
	}
	return n, r.Free(b)
}

func (r *reuser) Free(b blockalloc.Block) error {
	r.mu.Lock()
	r.free = append(r.free, b)
	r.mu.Unlock()
	return nil
}

// TestReleasesOutsideOfAProxy: who hands on events by hand delivers no end of a release. What
// fails is brought back all the same, and what is kept for that is bounded.
func TestReleasesOutsideOfAProxy(t *testing.T) {
	l := New(Options{Rate: 1})
	h := alloctrace.HookFunc(func(ctx context.Context, e alloctrace.Event, err error) { l.Observe(ctx, e, err) })
	heap := new(blockalloc.Heap)
	fail := false
	p := alloctrace.Wrap(failing.If(heap, func(c failing.Call) bool { return fail && c.Op != failing.OpAllocate }), alloctrace.WithHooks(h))
	for i := range 20_000 {
		b := allocateOne(t, p, 64)
		if i%10 == 0 {
			fail = true
			_ = p.Free(b)
			fail = false
			if live := l.Blocks(); len(live) != 1 || live[0].Addr != b.Addr() {
				t.Fatalf("after a refusal live are %+v", live)
			}
		}
		if err := p.Free(b); err != nil {
			t.Fatal(err)
		}
		if i%10 == 0 {
			if err := p.Free(b); err == nil {
				t.Fatal("a second free succeeds")
			}
			if live := l.Blocks(); len(live) != 0 {
				t.Fatalf("after a second free live are %+v", live)
			}
		}
	}
	if n := l.live.pending(); n > liveShards*keptReleases {
		t.Errorf("%d releases are kept", n)
	}
}

// TestReleaseThatFailsLast: a second free of a block that is being freed fails after the first has
// ended, as it can where goroutines cannot be told apart. Nothing waits for it any more.
func TestReleaseThatFailsLast(t *testing.T) {
	part := New(Options{Rate: 1}).Attach(&alloctrace.Attachment{ID: 1}).(*part)
	e := alloctrace.Event{Kind: alloctrace.Allocated, Addr: 4096, Size: 64, Align: 64}
	part.Observe(t.Context(), e, nil)
	e.Kind = alloctrace.Freeing
	part.Observe(t.Context(), e, nil)
	part.Observe(t.Context(), e, nil)
	part.released(e.Addr, e.Size)
	e.Kind = alloctrace.FreeFailed
	part.Observe(t.Context(), e, blockalloc.ErrDoubleFree)
	if waiting := part.live.pending(); part.pending.Load() != 0 || waiting != 0 || part.Stats().ForeignFrees != 0 {
		t.Errorf("the Proxy delivers %d more ends, and %d releases wait; want none; %v", part.pending.Load(), waiting, part.ForeignFrees())
	}
}
