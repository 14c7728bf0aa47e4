package heapprofile

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// TestGrowth compares random programs with a model that knows every block, by two owners, from marks at several times on.
func TestGrowth(t *testing.T) {
	programs := uint64(100)
	if testing.Short() {
		programs = 25
	}
	for seed := range programs {
		r := rand.New(rand.NewPCG(2, seed))
		p := New(Options{Rate: 1})
		inner := new(stubborn)
		mem := alloctrace.Wrap(inner, alloctrace.WithHooks(p))
		names := []string{"", "index"}
		children := []*alloctrace.Proxy{mem, mem.Child("index")}
		type liveBlock struct {
			blockalloc.Block
			child, born int
		}
		var live []liveBlock
		marks := map[int]*Mark{}
		before := map[int][]liveBlock{}
		for step := range 200 {
			if step%50 == 0 {
				marks[step], before[step] = p.Mark(), append([]liveBlock(nil), live...)
			}
			switch n := r.IntN(10); {
			case n < 5 || len(live) == 0:
				child := r.IntN(len(children))
				live = append(live, liveBlock{placeA(t, children[child], 1+uintptr(r.UintN(1000))), child, step})
			case n < 6:
				inner.err = errors.New("not today")
				if b := live[r.IntN(len(live))]; children[b.child].Free(b.Block) == nil {
					t.Fatal("the free has not failed")
				}
				inner.err = nil
			default:
				i := r.IntN(len(live))
				if err := children[live[i].child].Free(live[i].Block); err != nil {
					t.Fatal(err)
				}
				live = append(live[:i], live[i+1:]...)
			}
		}
		for at, mark := range marks {
			add := func(a *Amount, b liveBlock) { a.Blocks, a.Bytes = a.Blocks+1, a.Bytes+int64(b.Size()) }
			want := map[string]*SiteGrowth{"": {}, "index": {}, "all": {}}
			for _, b := range before[at] {
				add(&want[names[b.child]].Before, b)
				add(&want["all"].Before, b)
			}
			for _, b := range live {
				add(&want[names[b.child]].Live, b)
				add(&want["all"].Live, b)
				if b.born >= at {
					add(&want[names[b.child]].Added, b)
					add(&want["all"].Added, b)
				}
			}
			for _, w := range want {
				w.Freed = Amount{w.Before.Blocks + w.Added.Blocks - w.Live.Blocks, w.Before.Bytes + w.Added.Bytes - w.Live.Bytes}
			}
			got := mark.Growth()
			for i, s := range append([]SiteGrowth{got.Total}, got.Sites...) {
				w := want[s.Owner]
				if i == 0 {
					w = want["all"]
				}
				if s.Before != w.Before || s.Freed != w.Freed || s.Added != w.Added || s.Live != w.Live || s.Error != 0 || s.Change() != w.Live.Bytes-w.Before.Bytes {
					t.Fatalf("seed %d, mark %d: %+v, want %+v", seed, at, s, *w)
				}
				if i > 1 && s.Change() > got.Sites[i-2].Change() {
					t.Fatalf("seed %d: the sites are not in order: %+v", seed, got.Sites)
				}
			}
		}
	}
}

// TestGrowthOfSample: the change of a sample differs from the true one as its standard error says.
func TestGrowthOfSample(t *testing.T) {
	const trials, rate, size, n = 100, 4096, 1024, 400
	squares := 0.0
	for range trials {
		p := New(Options{Rate: rate})
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(p))
		var old []blockalloc.Block
		for range n {
			old = append(old, placeA(t, mem, size))
		}
		mark := p.Mark()
		for _, b := range old[:n/2] {
			giveBack(t, mem, b)
		}
		for range n {
			placeA(t, mem, size)
		}
		g := mark.Growth().Total
		squares += square(g.Change(), n/2*size, g.Error)
	}
	checkSquares(t, "what has grown", squares, trials)
}

// TestGrowthText: a line for the whole and one for each site that has changed, with the age of the newest block.
func TestGrowthText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Options{Rate: 1})
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(p))
		placeA(t, mem.Child("index"), 2<<10)
		var mark *Mark
		var cache blockalloc.Block
		for range 2 {
			if mark != nil {
				time.Sleep(9 * time.Minute)
				giveBack(t, mem, cache)
			}
			if cache = placeB(t, mem, 1<<10); mark == nil {
				mark = p.Mark()
			}
		}
		placeA(t, mem, 3<<10)
		time.Sleep(time.Minute)
		g := mark.Growth()
		const want = `^3 KiB more is live than 10m0s before: of 3 KiB then 1 KiB freed, 4 KiB added in 2 blocks, the newest 1m0s ago
  \+3 KiB: nothing then, 3 KiB added in 1 block, the newest 1m0s ago: heapprofile.placeA \(profile_test.go:\d+\), heapprofile.TestGrowthText.func1 \(growth_test.go:\d+\).*
  \+0 B: of 1 KiB then 1 KiB freed, 1 KiB added in 1 block, the newest 1m0s ago: heapprofile.placeA \(profile_test.go:\d+\), heapprofile.placeB.*
$`
		if got := g.String(); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%s\nwant %s", got, want)
		}
		var again Growth
		if text, err := json.Marshal(g); err != nil || json.Unmarshal(text, &again) != nil || again.String() != g.String() {
			t.Errorf("%v; from JSON\n%s\nwant\n%s", err, again, g)
		}
		if less := (Growth{Total: SiteGrowth{Before: Amount{1, 100}, Freed: Amount{1, 100}, Error: 7}}).String(); less != "100 B ± 7 B less is live than 0s before: of 100 B then 100 B freed, nothing added\n" {
			t.Error(less)
		}
		if n := strings.Count(Growth{Sites: make([]SiteGrowth, 60)}.String(), "\n"); n != 1 {
			t.Errorf("sites that have not changed make a text of %d lines", n)
		}
	})
}

// TestGrowthStorm: whatever goes on, live is before less freed and added.
func TestGrowthStorm(t *testing.T) {
	p := New(Options{Rate: 1})
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(p))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 2000 {
				giveBack(t, mem, placeA(t, mem, 64))
			}
		})
	}
	for range 50 {
		g := p.Mark().Growth()
		for _, s := range append(g.Sites, g.Total) {
			if s.Live.Bytes != s.Before.Bytes-s.Freed.Bytes+s.Added.Bytes || min(s.Before.Bytes, s.Freed.Bytes, s.Added.Bytes, s.Live.Bytes) < 0 {
				t.Errorf("%+v", s)
			}
		}
	}
	wg.Wait()
	if g := p.Mark().Growth(); g.Total.Live.Bytes != 0 {
		t.Errorf("at the end %+v", g.Total)
	}
}
