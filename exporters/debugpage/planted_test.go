package debugpage

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/internal/page"
	"github.com/alloctrace/alloctrace/exporters/internal/plant"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/hooks/ring"
)

// planted returns the page of a Program whose steps somebody has seen.
func planted(t *testing.T, o Options, steps int) (*plant.Program, *live, string) {
	t.Helper()
	p, err := plant.New(1 << 16)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	o.find(p.Profile)
	o.find(p.Ring)
	l := newLive(o, []*alloctrace.Proxy{p.Proxy})
	server := httptest.NewServer(newServer(l, page.Access{}))
	t.Cleanup(server.Close)
	l.Watched(true)
	for range steps {
		if err := p.Step(); err != nil {
			t.Fatal(err)
		}
	}
	return p, l, server.URL + "/"
}

// TestPlanted: each thing that is planted is where one looks for it first.
func TestPlanted(t *testing.T) {
	const steps = 30
	_, _, url := planted(t, Options{}, steps)
	s := get[page.Snapshot](t, url, "api/snapshot")
	leaks := get[page.Leaks](t, url, "api/leaks")
	lifetimes := get[page.Lifetimes](t, url, "api/lifetimes")
	m := get[page.Map](t, url, "api/map")
	blocks := get[page.Blocks](t, url, "api/blocks")
	p := get[page.Page](t, url, "api/page")
	name := names{get[page.Tables](t, url, "api/tables")}
	owner := func(site int) string { return name.Texts[name.Sites.Owner[site]] }

	if len(leaks.Site) < 2 || owner(leaks.Site[0]) != "uploads" || leaks.Suspicion[0] != 3 || leaks.Added[0] != steps*plant.UploadSize || owner(leaks.Site[1]) != "sessions" || leaks.Suspicion[1] != 2 {
		t.Errorf("the leaks begin with %s and %s: %v %q", owner(leaks.Site[0]), owner(leaks.Site[1]), leaks.Suspicion, leaks.Why)
	}
	for row, site := range leaks.Site[2:] {
		if of := owner(site); leaks.Suspicion[row+2] > 1 {
			t.Errorf("%s is suspicious: %s", of, leaks.Why[row+2])
		}
	}
	most := 0
	for row := range s.Sites.Site {
		if s.Sites.Pinned[row] > s.Sites.Pinned[most] {
			most = row
		}
	}
	if owner(s.Sites.Site[most]) != "index" {
		t.Errorf("%s pins most, with %d bytes", owner(s.Sites.Site[most]), s.Sites.Pinned[most])
	}
	storm := slices.MaxFunc(lifetimes.Rows, func(a, b page.Lived) int { return cmp.Compare(sum(a.Ended), sum(b.Ended)) })
	if owner(storm.Site) != "parser" || sum(storm.Ended) != steps*2000 || len(storm.FreedBy) == 0 || !strings.HasSuffix(name.Texts[name.Frames.Function[storm.FreedBy[0]]], ").parseRequest") {
		t.Errorf("most blocks of %s have ended, %d of them", owner(storm.Site), sum(storm.Ended))
	}
	for row, node := range s.Nodes.Node {
		failed, limit := int64(0), int64(-1)
		switch name.node(node) {
		case "app/thumbnails":
			failed, limit = steps, 4*plant.ThumbnailSize
		case "app":
			failed = steps
		}
		if s.Nodes.FailedAllocations[row] != failed || s.Nodes.Limit[row] != limit {
			t.Errorf("%s has failed %d times, and the limit %d, want %d and %d", name.node(node), s.Nodes.FailedAllocations[row], s.Nodes.Limit[row], failed, limit)
		}
	}
	if len(m.Allocators) != 2 || m.Allocators[0].Name != "Slab 1" || m.Allocators[1].Name != "Pool 1" || m.Allocators[1].Reserved == 0 {
		t.Fatalf("the map is of %+v", m.Allocators)
	}
	checkSlab(t, &m.Allocators[0], &blocks)
	if p.Tabs["unreachable"] == "" || p.Tabs["map"]+p.Tabs["events"]+p.Tabs["flame"]+p.Tabs["leaks"]+p.Tabs["lifetimes"] != "" || !slices.Equal(p.Flame, []string{"live", "allocated", "peak", "pinned", "lifetime"}) {
		t.Errorf("the page has %q and %v", p.Tabs, p.Flame)
	}
}

// checkSlab: every block that fits a slot is in the map once, in a slot of its size, and what is not free of a span is its blocks.
func checkSlab(t *testing.T, a *page.MapAllocator, blocks *page.Blocks) {
	t.Helper()
	sizes := make(map[int64]int64)
	for row, addr := range blocks.Addr {
		sizes[addr+blocks.AddrMin] = blocks.Size[row]
	}
	live := make([]int64, len(a.Spans.Addr))
	for row, addr := range a.Blocks.Addr {
		span := a.Blocks.Span[row]
		offset := addr - a.Spans.Addr[span]
		if sizes[addr+a.AddrMin] != a.Blocks.Size[row] || a.Spans.Block[span] != a.Blocks.Size[row] || offset%a.Spans.Block[span] != 0 || offset >= a.Spans.Size[span] {
			t.Fatalf("a block of %d bytes is at %d of a span of blocks of %d", a.Blocks.Size[row], offset, a.Spans.Block[span])
		}
		delete(sizes, addr+a.AddrMin)
		live[span]++
	}
	var idle int64
	for span, n := range live {
		if a.Spans.Block[span] == plant.EntrySize {
			idle += a.Spans.Dirty[span]
		}
		if a.Spans.Live[span] != n || a.Spans.Size[span]-a.Spans.Free[span] != n*a.Spans.Block[span] || a.Spans.Dirty[span] > a.Spans.Free[span] {
			t.Errorf("span %d has %d live blocks, and %d of its %d bytes free, want %d of %d bytes", span, a.Spans.Live[span], a.Spans.Free[span], a.Spans.Size[span], n, a.Spans.Block[span])
		}
	}
	if least := int64(16 << 10 * plant.EntrySize * 7 / 8); idle < least {
		t.Errorf("the entries of the index leave %d bytes idle, want %d and more", idle, least)
	}
	for addr, size := range sizes {
		if size <= plant.EntrySize {
			t.Errorf("%d bytes at %#x are in no span", size, addr)
		}
	}
	if a.Omitted != 0 {
		t.Errorf("%d blocks are left out", a.Omitted)
	}
}

// TestMark: growth counts from when somebody first looked, or asked for it.
func TestMark(t *testing.T) {
	p, l, url := planted(t, Options{}, 10)
	first := get[page.Leaks](t, url, "api/leaks")
	r, err := http.Post(url+"api/mark", "", nil)
	if err != nil || r.Body.Close() != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%v: %v", r, err)
	}
	for range 4 {
		if err := p.Step(); err != nil {
			t.Fatal(err)
		}
	}
	second := l.leaks()
	before := slices.Index(second.Before, 10*plant.UploadSize) // of another line of this file
	if first.Added[0] != 10*plant.UploadSize || second.Added[0] != 4*plant.UploadSize || second.Suspicion[0] != 3 || before < 0 || second.Added[before] != 0 || second.SinceUS <= first.SinceUS {
		t.Errorf("%d bytes came, and since the second mark %v after %v: from %d and %d on", first.Added[0], second.Added, second.Before, first.SinceUS, second.SinceUS)
	}
	l.Watched(false)
	l.Watched(true)
	if third := l.leaks(); third.SinceUS != second.SinceUS {
		t.Errorf("who looks again sees what has come since %d, and not since %d", third.SinceUS, second.SinceUS)
	}
}

// TestMarkIsNew: who asks for the leaks after a mark has growth since then, however long answers are kept.
func TestMarkIsNew(t *testing.T) {
	p, err := plant.New(1 << 10)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	l := newLive(Options{Profile: p.Profile}, []*alloctrace.Proxy{p.Proxy})
	h := newServer(l, page.Access{})
	h.hub.watched(true)
	defer h.hub.watched(false)
	leaks := func(method, path string) page.Leaks {
		r := httptest.NewRequest(method, path, nil)
		r.Host, r.RemoteAddr = "localhost", "127.0.0.1:1"
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return decode[page.Leaks](t, w.Body)
	}
	first := leaks("GET", "/api/leaks")
	marked := leaks("POST", "/api/mark")
	if again := leaks("GET", "/api/leaks"); marked.SinceUS <= first.SinceUS || again.SinceUS != marked.SinceUS {
		t.Errorf("growth is since %d, since %d after the mark, and since %d for who asks then", first.SinceUS, marked.SinceUS, again.SinceUS)
	}
}

// TestUnreachable: the button finds what leaks, if it is there.
func TestUnreachable(t *testing.T) {
	p, _, url := planted(t, Options{Unreachable: true}, 5)
	if _, err := p.Profile.Unreachable(t.Context()); errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	r, err := http.Post(url+"api/unreachable", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	u := decode[page.Unreachable](t, r.Body)
	name := names{get[page.Tables](t, url, "api/tables")}
	if r.StatusCode != http.StatusOK || len(u.Site) != 1 || name.Texts[name.Sites.Owner[u.Site[0]]] != "uploads" || u.Blocks[0] < 3 || u.Bytes[0] != u.Blocks[0]*plant.UploadSize || // an address that is left anywhere can hide one
		u.PauseUS <= 0 || !strings.Contains(u.Text, "receiveUpload") {
		t.Errorf("unreachable is %+v", u)
	}
}

// TestSampled: what is an estimate is said to be one.
func TestSampled(t *testing.T) {
	p, l, url := planted(t, Options{}, 0)
	p.Profile.SetRate(1 << 10)
	if err := p.Scale(1000, 10, 0); err != nil {
		t.Fatal(err)
	}
	blocks := get[page.Blocks](t, url, "api/blocks")
	few := l.blocks(10)
	s := get[page.Snapshot](t, url, "api/snapshot")
	if len(blocks.Weight) != len(blocks.Addr) || blocks.Weight[0] != 1 || slices.Max(blocks.Weight) < 2 || get[page.Page](t, url, "api/page").Rate != 1<<10 {
		t.Errorf("the weights are %v", blocks.Weight)
	}
	if len(few.Addr) != 10 || few.All != blocks.All || few.Size[0] != plant.CacheSize || !slices.IsSorted(few.AllocatedUS) {
		t.Errorf("the largest are %v", few.Size)
	}
	if slices.Max(s.Sites.LiveError) == 0 {
		t.Error("the standard errors of estimates are 0")
	}
}

// TestNothing: without hooks, and without a Pool, the page says what to switch on.
func TestNothing(t *testing.T) {
	mem := alloctrace.Wrap(new(blockalloc.Heap))
	server := httptest.NewServer(Handler(Options{Title: "nothing"}, mem, alloctrace.Wrap(new(blockalloc.Heap))))
	defer server.Close()
	p := get[page.Page](t, server.URL, "/api/page")
	for tab, want := range map[string]string{"overview": "", "timeline": "", "flame": noProfile, "leaks": noProfile, "lifetimes": noProfile, "map": noSpans, "events": noRing, "unreachable": noProfile} {
		if p.Tabs[tab] != want {
			t.Errorf("%s says %q, want %q", tab, p.Tabs[tab], want)
		}
	}
	s := get[page.Snapshot](t, server.URL, "/api/snapshot")
	name := names{get[page.Tables](t, server.URL, "/api/tables")}
	if len(s.Nodes.Node) != 2 || name.node(s.Nodes.Node[0]) != "Proxy" || name.node(s.Nodes.Node[1]) != "Proxy#2" || len(s.Sites.Site) != 0 || s.Sites.Live == nil || p.Title != "nothing" || p.Rate != 0 {
		t.Errorf("of two Proxies without names the nodes are %+v", s.Nodes)
	}
	for _, what := range []string{"blocks", "map", "events", "lifetimes", "leaks", "between?from=0&to=1", "timeline"} {
		r, err := http.Get(server.URL + "/api/" + what)
		if err != nil {
			t.Fatal(err)
		}
		if r.Body.Close(); r.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", what, r.Status)
		}
	}
}

// A profileHolder is a hook that has a Profile, as a tracer.Lifetimes has, and a ringHolder one that has a Ring, as a blackbox.Box.
type profileHolder struct {
	alloctrace.HookFunc
	profile *heapprofile.Profile
}

func (h profileHolder) Profile() *heapprofile.Profile { return h.profile }

type ringHolder struct {
	alloctrace.HookFunc
	ring *ring.Ring
}

func (h ringHolder) Ring() *ring.Ring { return h.ring }

// TestFind: what the hooks of a Proxy have needs no option, and an option goes before it.
func TestFind(t *testing.T) {
	profile, events := heapprofile.New(heapprofile.Options{}), ring.New(1, nil)
	other, others := heapprofile.New(heapprofile.Options{}), ring.New(1, nil)
	nothing := func(context.Context, alloctrace.Event, error) {}
	for name, hooks := range map[string][]alloctrace.Hook{
		"themselves": {profile, events, other, others},
		"holders":    {profileHolder{nothing, profile}, ringHolder{nothing, events}, ringHolder{nothing, others}, profileHolder{nothing, other}},
	} {
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(hooks...))
		for _, c := range [][2]Options{
			{{}, {Profile: profile, Ring: events}}, {{Profile: other}, {Profile: other, Ring: events}}, {{Ring: others}, {Profile: profile, Ring: others}},
		} {
			if got := Handler(c[0], mem).(*server).source.(*live).o; got.Profile != c[1].Profile || got.Ring != c[1].Ring {
				t.Errorf("%s: other ones are found than the first, or than those that are given", name)
			}
		}
	}
}
