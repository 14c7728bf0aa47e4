package debugpage

import (
	"cmp"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/internal/page"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/hooks/ring"
)

// get returns an answer of a server.
func get[T any](t *testing.T, url, path string) (answer T) {
	t.Helper()
	r, err := http.Get(url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %s", path, r.Status, decode[page.Error](t, r.Body).Error)
	}
	return decode[T](t, r.Body)
}

func decode[T any](t *testing.T, r io.Reader) (answer T) {
	t.Helper()
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// A held is a live block of the model.
type held struct {
	blockalloc.Block
	by   *alloctrace.Proxy
	site string // the child and the function
	n    int    // of the events before it
}

// A model knows what the page is to show.
type model struct {
	children  []*alloctrace.Proxy
	live      []held
	allocated map[string]int64 // bytes, by site
	ended     map[string]int64 // blocks, by site
	marked    map[string]int64 // live bytes by site, when somebody first looked
	events    []string
	failures  int64
}

//go:noinline
func placeA(p *alloctrace.Proxy, l blockalloc.Layout) (blockalloc.Block, error) { return p.Allocate(l) }

//go:noinline
func placeB(p *alloctrace.Proxy, l blockalloc.Layout) (blockalloc.Block, error) { return p.Allocate(l) }

var places = map[string]func(*alloctrace.Proxy, blockalloc.Layout) (blockalloc.Block, error){"placeA": placeA, "placeB": placeB}

func (m *model) step(t *testing.T, r *rand.Rand) {
	child := m.children[r.IntN(len(m.children))]
	switch n := r.IntN(100); {
	case n < 3:
		if _, err := child.Allocate(blockalloc.Layout{Size: 64, Align: 3}); err == nil {
			t.Fatal("an alignment of 3 is right")
		}
		m.failures++
		m.events = append(m.events, "allocate failed")
	case n < 45 && len(m.live) > 0:
		i := r.IntN(len(m.live))
		b := m.live[i]
		m.live[i] = m.live[len(m.live)-1]
		m.live = m.live[:len(m.live)-1]
		if err := b.by.Free(b.Block); err != nil {
			t.Fatal(err)
		}
		m.ended[b.site]++
		m.events = append(m.events, "freeing")
	default:
		name := []string{"placeA", "placeB"}[r.IntN(2)]
		b, err := places[name](child, blockalloc.Layout{Size: uintptr(1 + r.IntN(5000)), Align: 16})
		if err != nil {
			t.Fatal(err)
		}
		site := child.Name() + " " + name
		if child == m.children[0] { // which is nobody's child
			site = " " + name
		}
		m.live = append(m.live, held{b, child, site, len(m.events)})
		m.allocated[site] += int64(b.Size())
		m.events = append(m.events, "allocated")
	}
}

// names finds what numbers stand for.
type names struct{ page.Tables }

func (n *names) site(i int) string {
	s := n.Texts[n.Sites.Owner[i]]
	function := n.Texts[n.Frames.Function[n.Sites.Stack[i][0]]]
	return s + " " + function[strings.LastIndexByte(function, '.')+1:]
}

func (n *names) node(i int) string {
	s := n.Texts[n.Nodes.Name[i]]
	if n.Nodes.Parent[i] >= 0 {
		s = n.node(n.Nodes.Parent[i]) + "/" + s
	}
	return s
}

// TestModel holds all that the page shows of random operations, of which every block is sampled, against what they were.
func TestModel(t *testing.T) {
	profile := heapprofile.New(heapprofile.Options{Rate: 1, Peak: true, Lifetimes: true})
	events := ring.New(1<<16, ring.PreciseClock())
	mem := alloctest.New(t, alloctest.WithAllocator(new(blockalloc.Heap)), alloctest.WithProxy(alloctrace.WithName("mem"), alloctrace.WithHooks(profile, events)))
	a, b := mem.Child("a"), mem.Child("b")
	m := &model{children: []*alloctrace.Proxy{mem, a, b, a.Child("x"), b.Child("x")}, allocated: map[string]int64{}, ended: map[string]int64{}}
	server := httptest.NewServer(Handler(Options{Profile: profile, Ring: events}, mem))
	defer server.Close()
	url := server.URL + "/"
	r := rand.New(rand.NewPCG(7, 1))
	for range 8 {
		for range 250 {
			m.step(t, r)
		}
		m.check(t, url, mem)
	}
	for _, h := range m.live {
		if err := h.by.Free(h.Block); err != nil {
			t.Error(err)
		}
	}
}

// check compares all answers with m.
func (m *model) check(t *testing.T, url string, mem *alloctrace.Proxy) {
	t.Helper()
	s := get[page.Snapshot](t, url, "api/snapshot")
	blocks := get[page.Blocks](t, url, "api/blocks")
	events := get[page.Events](t, url, "api/events?n=300")
	lifetimes := get[page.Lifetimes](t, url, "api/lifetimes")
	leaks := get[page.Leaks](t, url, "api/leaks")
	between := get[page.Between](t, url, "api/between?from=-1000000&to=9000000000000")
	name := names{get[page.Tables](t, url, "api/tables")}

	live, count := map[string]int64{}, map[string]int64{}
	var all int64
	for _, h := range m.live {
		live[h.site] += int64(h.Size())
		count[h.site]++
		all += int64(h.Size())
	}
	if m.marked == nil {
		m.marked = live
	}
	if s.Total.Live != all || s.Total.LiveBlocks != int64(len(m.live)) || s.Total.FailedAllocations != m.failures || s.Total.Peak < all || s.RateUS != 0 {
		t.Errorf("%d bytes in %d blocks are live, and %d allocations have failed: %+v", all, len(m.live), m.failures, s.Total)
	}
	m.checkNodes(t, &s, &name)
	for row, site := range s.Sites.Site {
		of := name.site(site)
		if s.Sites.Live[row] != live[of] || s.Sites.LiveBlocks[row] != count[of] || s.Sites.LiveError[row] != 0 || s.Sites.Allocated[row] != m.allocated[of] || s.Sites.Peak[row] < 0 || s.Sites.Pinned != nil {
			t.Errorf("%s has %d bytes in %d blocks live, of %d, want %d, %d and %d", of, s.Sites.Live[row], s.Sites.LiveBlocks[row], s.Sites.Allocated[row], live[of], count[of], m.allocated[of])
		}
	}
	if len(s.Sites.Site) != len(m.allocated) {
		t.Errorf("%d sites are shown of %d", len(s.Sites.Site), len(m.allocated))
	}
	m.checkBlocks(t, &blocks, &name)
	for row, site := range between.Site {
		if of := name.site(site); between.Live[row] != live[of] || between.LiveBlocks[row] != count[of] {
			t.Errorf("since ever %s has allocated %d bytes that are live, want %d", of, between.Live[row], live[of])
		}
	}
	for _, row := range lifetimes.Rows {
		if of := name.site(row.Site); sum(row.Ended) != m.ended[of] || sum(row.Live) != count[of] || row.LiveBytes != live[of] {
			t.Errorf("of %s %v blocks have ended and %v are live, want %d and %d", of, row.Ended, row.Live, m.ended[of], count[of])
		}
	}
	for row, site := range leaks.Site {
		if of := name.site(site); leaks.Live[row] != live[of] || leaks.Before[row] != m.marked[of] || leaks.Before[row]-leaks.Freed[row]+leaks.Added[row] != live[of] {
			t.Errorf("%s has %d bytes live and %d at the mark, of which %d were freed and %d came, want %d and %d", of, leaks.Live[row], leaks.Before[row], leaks.Freed[row], leaks.Added[row], live[of], m.marked[of])
		}
	}
	last := m.events[len(m.events)-min(300, len(m.events)):]
	for row, kind := range events.Kind {
		if events.Kinds[kind] != last[row] || events.DeltaNS[row] < 0 {
			t.Fatalf("event %d of the last is %s, want %s", row, events.Kinds[kind], last[row])
		}
	}
	if events.All != int64(len(m.events)) || events.First != int64(len(m.events)-len(last)) || len(events.Kind) != len(last) || events.Site != nil {
		t.Errorf("%d events are from %d on, of %d, want %d of %d", len(events.Kind), events.First, events.All, len(last), len(m.events))
	}
	for i, row := range events.ErrorRow {
		if events.Kinds[events.Kind[row]] != "allocate failed" || !strings.Contains(events.ErrorText[i], "lign") {
			t.Errorf("event %d has the error %q", row, events.ErrorText[i])
		}
	}
}

func (m *model) checkNodes(t *testing.T, s *page.Snapshot, name *names) {
	t.Helper()
	for row, node := range s.Nodes.Node {
		of := name.node(node)
		var live, blocks int64
		for _, h := range m.live {
			path := map[*alloctrace.Proxy]string{m.children[0]: "mem", m.children[1]: "mem/a", m.children[2]: "mem/b", m.children[3]: "mem/a/x", m.children[4]: "mem/b/x"}[h.by]
			if path == of || strings.HasPrefix(path, of+"/") {
				live += int64(h.Size())
				blocks++
			}
		}
		if s.Nodes.Live[row] != live || s.Nodes.LiveBlocks[row] != blocks || s.Nodes.Limit[row] != -1 {
			t.Errorf("node %s has %d bytes live in %d blocks, want %d in %d", of, s.Nodes.Live[row], s.Nodes.LiveBlocks[row], live, blocks)
		}
	}
	if len(s.Nodes.Node) != len(m.children) {
		t.Errorf("%d nodes are shown, want %d", len(s.Nodes.Node), len(m.children))
	}
}

func (m *model) checkBlocks(t *testing.T, blocks *page.Blocks, name *names) {
	t.Helper()
	if len(blocks.Addr) != len(m.live) || blocks.All != int64(len(m.live)) || blocks.Weight != nil {
		t.Fatalf("%d blocks of %d, want %d", len(blocks.Addr), blocks.All, len(m.live))
	}
	oldest := slices.Clone(m.live)
	slices.SortFunc(oldest, func(a, b held) int { return cmp.Compare(a.n, b.n) })
	for row, h := range oldest {
		if blocks.Addr[row]+blocks.AddrMin != int64(h.Addr()) || blocks.Size[row] != int64(h.Size()) || name.site(blocks.Site[row]) != h.site {
			t.Errorf("block %d is %d bytes at %#x of %s, want %v of %s", row, blocks.Size[row], blocks.Addr[row]+blocks.AddrMin, name.site(blocks.Site[row]), h.Block, h.site)
		}
	}
}

func sum(list []int64) (s int64) {
	for _, n := range list {
		s += n
	}
	return s
}
