package history

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/exporters/recording"
)

// stackOf returns a stack of one call.
func stackOf(function string) *recording.Stack {
	return &recording.Stack{Frames: []recording.Frame{{Function: function, File: function + ".go", Line: 7}}}
}

// event returns an event of a block at a time.
func event(at int, kind alloctrace.Kind, addr, size uintptr) recording.Event {
	e := recording.Event{Event: alloctrace.Event{Kind: kind, Addr: addr, Size: size, Align: 8}, At: time.Duration(at), Proxy: "mem"}
	if kind <= alloctrace.Reallocated {
		e.Requested = size - 1
	}
	return e
}

// A model is told what is done, and knows by that what a History must say.
type model struct {
	live   map[blockKey]Block
	ended  []Block
	total  Amount
	peak   int64
	peakAt time.Duration
	atPeak map[string]int64 // by site
	bySite map[string]int64
}

func newModel() *model {
	return &model{live: make(map[blockKey]Block), bySite: make(map[string]int64)}
}

func (m *model) change(at time.Duration, site string, blocks, bytes int64) {
	m.total.add(blocks, bytes)
	m.bySite[site] += bytes
	if m.total.Bytes > m.peak {
		m.peak, m.peakAt, m.atPeak = m.total.Bytes, at, maps.Clone(m.bySite)
	}
}

func siteName(s *Site) string {
	name := s.Proxy + " " + s.Child
	for _, f := range s.Stack {
		name += " " + f.Function
	}
	return name
}

// plain returns b without its site, to be compared.
func plain(b Block) Block { b.Site = nil; return b }

func byAddr(a, b Block) int {
	return cmp.Or(cmp.Compare(a.Addr, b.Addr), cmp.Compare(a.Acquired, b.Acquired), cmp.Compare(a.Size, b.Size), cmp.Compare(a.Released, b.Released))
}

// TestModel: of random programs on two Proxies at the same addresses, in which releases fail while others go on, a History says what
// a model does: after every event what is live, and in the end the peak, each site, and each block with its life.
func TestModel(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		m := newModel()
		var ended []Block
		h := New(Options{Ended: func(b Block) { ended = append(ended, b) }})
		stacks := []*recording.Stack{stackOf("a"), stackOf("b"), stackOf("c")}
		var failing []recording.Event // failures to come, of releases that were delivered
		busy := make(map[blockKey]Block)
		at := 0
		add := func(e recording.Event) {
			h.Add(e)
			if h.Live() != m.total {
				t.Fatalf("seed %d: after %+v %+v are live, want %+v", seed, e, h.Live(), m.total)
			}
		}
		key := func(e recording.Event) blockKey { return blockKey{e.Addr, uint32(e.Proxy[0])} }
		acquire := func(kind alloctrace.Kind, proxy string) {
			e := event(at, kind, uintptr(1+rng.IntN(30))*64, uintptr(1+rng.IntN(1000)))
			e.Proxy, e.Child, e.Region, e.Stack = proxy, []string{"", "cache"}[rng.IntN(2)], []string{"", "r"}[rng.IntN(2)], stacks[rng.IntN(3)]
			if rng.IntN(50) == 0 { // as a new segment has them
				e.Stack = &recording.Stack{Frames: slices.Clone(e.Stack.Frames)}
			}
			k := key(e)
			if _, ok := m.live[k]; ok {
				return
			} else if _, ok := busy[k]; ok {
				return
			}
			m.live[k] = Block{Addr: e.Addr, Size: e.Size, Requested: e.Requested, Region: e.Region, Acquired: e.At,
				Site: &Site{Proxy: e.Proxy, Child: e.Child, Stack: e.Stack.Frames}}
			m.change(e.At, siteName(m.live[k].Site), 1, int64(e.Size))
			add(e)
		}
		for range 3000 {
			at += rng.IntN(3)
			switch n := rng.IntN(10); {
			case n < 4:
				acquire(alloctrace.Allocated, []string{"x", "y"}[rng.IntN(2)])
			case n < 9 && len(m.live) > 0:
				all := slices.SortedFunc(maps.Keys(m.live), func(a, b blockKey) int {
					return cmp.Or(cmp.Compare(a.addr, b.addr), cmp.Compare(a.proxy, b.proxy))
				})
				k := all[rng.IntN(len(all))]
				b := m.live[k]
				e := event(at, alloctrace.Freeing, b.Addr, b.Size)
				e.Proxy = b.Site.Proxy
				moves := rng.IntN(3) == 0
				if moves {
					e.Kind = alloctrace.Reallocating
				}
				delete(m.live, k)
				m.change(e.At, siteName(b.Site), -1, -int64(b.Size))
				add(e)
				if rng.IntN(4) == 0 {
					busy[k] = b
					e.Kind += alloctrace.ReallocateFailed - alloctrace.Reallocating
					failing = append(failing, e)
					break
				}
				b.Released = e.At
				m.ended = append(m.ended, b)
				if moves {
					acquire(alloctrace.Reallocated, e.Proxy)
				}
			case len(failing) > 0:
				i := rng.IntN(len(failing))
				e := failing[i]
				failing = slices.Delete(failing, i, i+1)
				e.At = time.Duration(at)
				k := key(e)
				m.live[k] = busy[k]
				delete(busy, k)
				m.change(e.At, siteName(m.live[k].Site), 1, int64(e.Size))
				add(e)
			}
		}
		for _, e := range failing { // those that never came
			b := busy[key(e)]
			b.Released = e.At
			m.ended = append(m.ended, b)
		}
		h.End(time.Duration(at + 5))
		for _, b := range m.live {
			b.Live, b.Released = true, time.Duration(at+5)
			m.ended = append(m.ended, b)
		}
		slices.SortFunc(ended, byAddr)
		slices.SortFunc(m.ended, byAddr)
		if !slices.EqualFunc(ended, m.ended, func(a, b Block) bool { return plain(a) == plain(b) && siteName(a.Site) == siteName(b.Site) }) {
			t.Errorf("seed %d: the blocks are\n%+v, want\n%+v", seed, ended, m.ended)
		}
		if peak, at := h.Peak(); peak.Bytes != m.peak || at != m.peakAt {
			t.Errorf("seed %d: the peak is %+v at %d, want %d at %d", seed, peak, at, m.peak, m.peakAt)
		}
		longest, freed := make(map[string]time.Duration), make(map[string]Amount)
		for _, b := range m.ended {
			name := siteName(b.Site)
			if !b.Live {
				longest[name] = max(longest[name], b.Life())
				f := freed[name]
				f.add(1, int64(b.Size))
				freed[name] = f
			}
		}
		for _, s := range h.Sites() {
			name := siteName(s)
			if s.Live.Bytes != m.bySite[name] || h.AtPeak(s).Bytes != m.atPeak[name] || s.Longest != longest[name] || s.Freed != freed[name] || s.Allocated.Sub(s.Freed) != s.Live {
				t.Errorf("seed %d: %s has %+v and %+v at the peak, want %d, %d, %v, %+v", seed, name, s, h.AtPeak(s), m.bySite[name], m.atPeak[name], longest[name], freed[name])
			}
		}
		if len(h.Sites()) != len(m.bySite) || fmt.Sprint(h.Unknown()) != fmt.Sprint(Unknown{}) {
			t.Errorf("seed %d: %d sites, want %d; %+v", seed, len(h.Sites()), len(m.bySite), h.Unknown())
		}
	}
}

// TestReleases: what a release is of that has nothing to release, or is taken back, or comes after events that are missing.
func TestReleases(t *testing.T) {
	const (
		allocated    = alloctrace.Allocated
		freeing      = alloctrace.Freeing
		freeFailed   = alloctrace.FreeFailed
		reallocating = alloctrace.Reallocating
		reallocFail  = alloctrace.ReallocateFailed
		dropped      = 0
	)
	type step struct {
		kind       alloctrace.Kind
		addr, size uintptr
	}
	one := func(size int64) Amount { return Amount{1, size} }
	for name, test := range map[string]struct {
		steps []step
		live  int64
		want  Unknown
		ended string // of each block: its size, and what has become of it
	}{
		"a failed free": {[]step{{allocated, 64, 8}, {freeing, 64, 8}, {freeFailed, 64, 8}}, 8, Unknown{}, "8 live, "},
		"a failed reallocation": {[]step{{allocated, 64, 8}, {reallocating, 64, 8}, {reallocFail, 64, 8}, {freeing, 64, 8}}, 0, Unknown{},
			"8 released, "},
		"a failed reallocation that was not begun": {[]step{{allocated, 64, 8}, {freeing, 64, 8}, {reallocFail, 64, 8}}, 0, Unknown{}, "8 released, "},
		"a failure of nothing":                     {[]step{{freeFailed, 64, 8}, {reallocFail, 0, 0}}, 0, Unknown{}, ""},
		"a second free that is refused":            {[]step{{allocated, 64, 8}, {freeing, 64, 8}, {freeing, 64, 8}, {freeFailed, 64, 8}}, 0, Unknown{}, "8 released, "},
		"two frees that are refused": {[]step{{allocated, 64, 8}, {freeing, 64, 8}, {freeing, 64, 8}, {freeFailed, 64, 8}, {freeFailed, 64, 8}}, 8, Unknown{},
			"8 live, "},
		"a free of another size that is refused": {[]step{{allocated, 64, 8}, {freeing, 64, 4}, {freeFailed, 64, 4}}, 8, Unknown{}, "8 live, "},
		"a free of another size":                 {[]step{{allocated, 64, 8}, {freeing, 64, 4}}, 8, Unknown{Unmatched: one(4)}, "8 live, "},
		"an older block":                         {[]step{{freeing, 64, 8}, {allocated, 64, 16}}, 16, Unknown{Older: one(8)}, "8 older, 16 live, "},
		"an older block whose free failed":       {[]step{{freeing, 64, 8}, {freeFailed, 64, 8}}, 0, Unknown{}, ""},
		"an older block whose free failed once":  {[]step{{freeing, 64, 8}, {freeFailed, 64, 8}, {freeing, 64, 8}}, 0, Unknown{Older: one(8)}, "8 older, "},
		"a block that was acquired in a gap": {[]step{{allocated, 64, 8}, {freeing, 64, 8}, {dropped, 0, 0}, {freeing, 128, 4}}, 0,
			Unknown{Dropped: 3, Gaps: 1, Unmatched: one(4)}, "4 older, 8 released, "},
		"a block that was released in a gap": {[]step{{allocated, 64, 8}, {dropped, 0, 0}, {allocated, 64, 16}}, 16,
			Unknown{Dropped: 3, Gaps: 1, Lost: one(8)}, "8 lost, 16 live, "},
		"a block that was replaced in a gap": {[]step{{allocated, 64, 8}, {dropped, 0, 0}, {freeing, 64, 16}}, 0,
			Unknown{Dropped: 3, Gaps: 1, Lost: one(8), Unmatched: one(16)}, "8 lost, 16 older, "},
		"a block that may have been released": {[]step{{allocated, 64, 8}, {dropped, 0, 0}, {allocated, 128, 16}}, 24,
			Unknown{Dropped: 3, Gaps: 1, Uncertain: one(8)}, "8 live, 16 live, "},
		"an acquisition of what is live": {[]step{{allocated, 64, 8}, {allocated, 64, 16}}, 16, Unknown{Lost: one(8)}, "8 lost, 16 live, "},
	} {
		var list []Block
		h := New(Options{Ended: func(b Block) { list = append(list, b) }})
		for i, s := range test.steps {
			e := event(i, s.kind, s.addr, s.size)
			if s.kind == dropped {
				e = recording.Event{At: time.Duration(i), Dropped: 3}
			}
			h.Add(e)
		}
		h.End(time.Duration(len(test.steps)))
		ended := ""
		slices.SortStableFunc(list, func(a, b Block) int { return cmp.Compare(a.Released, b.Released) })
		slices.SortStableFunc(list, func(a, b Block) int { return cmp.Compare(a.Size, b.Size) })
		for _, b := range list {
			state := "released"
			for s, is := range map[string]bool{"live": b.Live, "older": b.Older, "lost": b.Lost} {
				if is {
					state = s
				}
			}
			ended += fmt.Sprintf("%d %s, ", b.Size, state)
		}
		if h.Live().Bytes != test.live || fmt.Sprint(h.Unknown()) != fmt.Sprint(test.want) || ended != test.ended {
			t.Errorf("%s: %+v live, %+v, %s; want %d, %+v, %s", name, h.Live(), h.Unknown(), ended, test.live, test.want, test.ended)
		}
	}
}

// TestKeep: what is not to be counted is not, and is followed all the same.
func TestKeep(t *testing.T) {
	ended := 0
	h := New(Options{
		Keep:  func(s *Site, region string) bool { return s.Child == "cache" && region == "r" },
		Ended: func(Block) { ended++ },
	})
	at := 0
	for _, child := range []string{"cache", "other"} {
		for _, region := range []string{"r", ""} {
			at++
			e := event(at, alloctrace.Allocated, uintptr(at)*64, 8)
			e.Child, e.Region = child, region
			h.Add(e)
			e = event(at, alloctrace.Allocated, uintptr(at)*64+8, 8)
			e.Child, e.Region = child, region
			h.Add(e)
			h.Add(event(at, alloctrace.Freeing, e.Addr, e.Size))
		}
	}
	h.End(10)
	if peak, _ := h.Peak(); h.Live() != (Amount{1, 8}) || peak != (Amount{2, 16}) || len(h.Sites()) != 1 || len(h.Owners()) != 1 || ended != 2 || h.Unknown().Older.Blocks != 0 {
		t.Errorf("%+v live, peak %+v, %d blocks ended, sites %+v, owners %+v, %+v", h.Live(), peak, ended, h.Sites(), h.Owners(), h.Unknown())
	}
}

// TestBounded: memory is bounded by what is live, and not by events, stacks or segments.
func TestBounded(t *testing.T) {
	h := New(Options{})
	for i := range 3 * undoable {
		e := event(2*i, alloctrace.Allocated, uintptr(i+1)*64, 8)
		e.Stack = stackOf([]string{"a", "b", "c"}[i%3]) // the pointer is new each time
		h.Add(e)
		h.Add(event(2*i+1, alloctrace.Freeing, e.Addr, e.Size))
	}
	if n := len(h.blocks.slots); n > undoable+2 || len(h.blocks.index) > undoable+1 {
		t.Errorf("%d slots and %d addresses, want %d at most", n, len(h.blocks.index), undoable+2)
	}
	if n := len(h.sites.recent); len(h.sites.list) != 3 || n > 2*3+1025 {
		t.Errorf("%d sites, of %d pointers", len(h.sites.list), n)
	}
	if peak, _ := h.Peak(); h.Live() != (Amount{}) || peak != (Amount{1, 8}) {
		t.Errorf("%+v are live, peak %+v", h.Live(), peak)
	}
}

// FuzzHistory: whatever events come, what was acquired is live, was released or is lost, each block ends once, and nothing is negative.
func FuzzHistory(f *testing.F) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 3))
		b := make([]byte, 3*2000)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		acquired, ended := int64(0), int64(0)
		h := New(Options{Ended: func(b Block) {
			ended++
			if !b.Older {
				acquired--
			}
			if b.Life() < 0 || b.Live && (b.Older || b.Lost) {
				t.Errorf("%+v", b)
			}
		}})
		dropped := int64(0)
		for at := 0; len(b) >= 3; b, at = b[3:], at+int(b[2]>>6) {
			e := event(at, alloctrace.Kind(b[0]%8), uintptr(b[1]%8)*64, uintptr(1+b[2]%3))
			e.Proxy, e.Child = []string{"x", "y"}[b[1]>>3%2], []string{"", "c"}[b[1]>>4%2]
			if e.Kind == 0 {
				if b[1]%16 > 0 {
					continue
				}
				e = recording.Event{At: e.At, Dropped: 1 + int64(b[2])}
				dropped += e.Dropped
			}
			if e.Kind == alloctrace.Allocated || e.Kind == alloctrace.Reallocated {
				acquired++
			}
			h.Add(e)
		}
		u := h.Unknown()
		var live, allocated, freed Amount
		for _, s := range h.Sites() {
			live.add(s.Live.Blocks, s.Live.Bytes)
			allocated.add(s.Allocated.Blocks, s.Allocated.Bytes)
			freed.add(s.Freed.Blocks, s.Freed.Bytes)
		}
		if peak, _ := h.Peak(); live != h.Live() || live.Bytes > peak.Bytes || allocated.Sub(freed).Sub(u.Lost) != live || u.Dropped != dropped {
			t.Errorf("%+v are live, allocated %+v, freed %+v, peak %+v, %+v", live, allocated, freed, peak, u)
		}
		for _, a := range []Amount{live, freed, u.Older, u.Unmatched, u.Lost, u.Uncertain} {
			if a.Blocks < 0 || a.Bytes < 0 {
				t.Errorf("%+v of %+v", a, u)
			}
		}
		h.End(h.Now())
		if acquired != 0 || ended < allocated.Blocks {
			t.Errorf("%d blocks have not ended, and %d have", acquired, ended)
		}
	})
}
