package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/history"
)

// A selection is what the flags of a command select.
type selection struct{ proxy, child, region, place string } // "*" is all

func (s selection) args() (list []string) {
	for _, flag := range []struct{ name, value string }{{"proxy", s.proxy}, {"child", s.child}, {"region", s.region}, {"stack", s.place}} {
		if flag.value != "*" {
			list = append(list, "-"+flag.name+"="+flag.value)
		}
	}
	return list
}

func (s selection) has(b *knownBlock) bool {
	is := func(want, name string) bool { return want == "*" || want == name }
	return is(s.proxy, b.proxy) && is(s.child, b.child) && is(s.region, b.region) && (s.place == "*" || strings.HasPrefix(b.place, s.place))
}

// A sum is what the model knows of some blocks.
type sum struct {
	Live, Allocated, Freed, Peak history.Amount
	PeakAt, Longest              time.Duration
	atPeak                       history.Amount // at the peak of all that is selected
}

// sums returns that of all that is selected, and of each key.
func (p *randomProgram) sums(s selection, key func(b *knownBlock) string) (all *sum, by map[string]*sum) {
	all, by = new(sum), make(map[string]*sum)
	of := func(b *knownBlock) *sum {
		k := by[key(b)]
		if k == nil {
			k = new(sum)
			by[key(b)] = k
		}
		return k
	}
	for _, c := range p.changes {
		if !s.has(c.block) {
			continue
		}
		for _, k := range []*sum{all, of(c.block)} {
			k.Live.Blocks += c.by
			k.Live.Bytes += c.by * c.block.size
			if k.Live.Bytes > k.Peak.Bytes {
				k.Peak, k.PeakAt = k.Live, c.at
				if k == all {
					for _, other := range by {
						other.atPeak = other.Live
					}
					of(c.block).atPeak.Blocks += c.by // it comes after all
					of(c.block).atPeak.Bytes += c.by * c.block.size
				}
			}
		}
	}
	for _, b := range p.blocks {
		if b.older || !s.has(b) {
			continue
		}
		for _, k := range []*sum{all, of(b)} {
			k.Allocated.Blocks++
			k.Allocated.Bytes += b.size
			if !b.live {
				k.Freed.Blocks++
				k.Freed.Bytes += b.size
				k.Longest = max(k.Longest, b.released-b.acquired)
			}
		}
	}
	return all, by
}

// liveAt returns what was live at a moment, of each key.
func (p *randomProgram) liveAt(at time.Duration, s selection, key func(b *knownBlock) string) map[string]history.Amount {
	live := make(map[string]history.Amount)
	for _, c := range p.changes {
		if c.at <= at && s.has(c.block) {
			n := live[key(c.block)]
			live[key(c.block)] = history.Amount{Blocks: n.Blocks + c.by, Bytes: n.Bytes + c.by*c.block.size}
		}
	}
	return live
}

// A siteJSON is a site as commands print it.
type siteJSON struct {
	Proxy, Child           string
	Stack                  []recording.Frame
	Live, Allocated, Freed history.Amount
	Peak                   history.Amount
	LongestNS              time.Duration `json:"longest_ns"`
	Before, After, Change  history.Amount
	OldestNS               time.Duration `json:"oldest_ns"`
	NewestNS               time.Duration `json:"newest_ns"`
	Quarters               [4]int64
	Grows                  bool
	Outlived               int64
	Addr, Size, Requested  int64
	Region                 string
	AcquiredNS             time.Duration `json:"acquired_ns"`
	ReleasedNS             time.Duration `json:"released_ns"`
}

var placeName = regexp.MustCompile(`\.(place[ABC])$`)

func placeOf(stack []recording.Frame) string {
	again := ""
	for _, f := range stack {
		if strings.HasSuffix(f.Function, ".reallocates") {
			again = " again"
		}
		if m := placeName.FindStringSubmatch(f.Function); m != nil {
			return m[1] + again
		}
	}
	return ""
}

func (s *siteJSON) key() string { return siteKey(s.Proxy, s.Child, placeOf(s.Stack)) }

func siteKey(proxy, child, place string) string { return proxy + "/" + child + "/" + place }

func keyOfBlock(b *knownBlock) string { return siteKey(b.proxy, b.child, b.place) }

// answerOf runs a command and returns what it prints as JSON.
func answerOf[T any](r *runner, args ...string) (of T) {
	r.t.Helper()
	if err := json.Unmarshal([]byte(r.run(whole, append(args, "-json")...)), &of); err != nil {
		r.t.Errorf("%q: %v", args, err)
	}
	return of
}

// TestModel: of random programs, each command's answer is what a model says that adds up all that the program did.
func TestModel(t *testing.T) {
	seeds := uint64(6)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		p := newRandomProgram(t, seed)
		rng := rand.New(rand.NewPCG(seed, 2))
		everything := selection{"*", "*", "*", "*"}
		p.checkInfo(t, everything)
		for range 12 {
			s := everything
			for _, one := range []struct {
				to     *string
				values []string
			}{
				{&s.proxy, []string{"one", "two", ""}}, {&s.child, []string{"child0", "child1", ""}}, {&s.region, []string{"region0", "region2", ""}}, {&s.place, []string{"placeA", "placeC"}},
			} {
				if rng.IntN(3) == 0 {
					*one.to = one.values[rng.IntN(len(one.values))]
				}
			}
			t.Run(fmt.Sprintf("%d %q", seed, s.args()), func(t *testing.T) {
				p.checkSites(t, s)
				p.checkMoments(t, s, rng)
				p.checkQueries(t, s, rng)
				p.checkTimelines(t, s, 1+rng.IntN(50))
			})
		}
	}
}

func (p *randomProgram) checkInfo(t *testing.T, s selection) {
	info := answerOf[struct {
		FirstNS time.Duration `json:"first_ns"`
		LastNS  time.Duration `json:"last_ns"`
		Counts  history.Counts
		Owners  []struct {
			Proxy, Child          string
			Allocated, Live, Peak history.Amount
			PeakNS                time.Duration `json:"peak_ns"`
		}
		Live, Peak history.Amount
		PeakNS     time.Duration `json:"peak_ns"`
		Unknown    history.Unknown
		Closed     bool
	}](&runner{t: t}, "info", p.path)
	all, owners := p.sums(s, func(b *knownBlock) string { return siteKey(b.proxy, b.child, "") })
	var older history.Amount
	for _, b := range p.blocks {
		if b.older {
			older.Blocks++
			older.Bytes += b.size
		}
	}
	if info.Counts != p.counts || info.Live != all.Live || info.Peak != all.Peak || info.PeakNS != all.PeakAt || !info.Closed || info.FirstNS != 0 || info.LastNS != p.end {
		t.Errorf("%+v, want %+v, %+v and %v", info, p.counts, all, p.end)
	}
	if !reflect.DeepEqual(info.Unknown, history.Unknown{Older: older}) {
		t.Errorf("%+v is not known, want %+v", info.Unknown, older)
	}
	for _, o := range info.Owners {
		want := owners[siteKey(o.Proxy, o.Child, "")]
		if want == nil {
			want = new(sum) // what was older was freed through it
		}
		if o.Live != want.Live || o.Peak != want.Peak || o.PeakNS != want.PeakAt || o.Allocated != want.Allocated {
			t.Errorf("%+v, want %+v", o, want)
		}
		delete(owners, siteKey(o.Proxy, o.Child, ""))
	}
	if len(owners) > 0 {
		t.Errorf("%v are missing", owners)
	}
}

func (p *randomProgram) checkSites(t *testing.T, s selection) {
	r := &runner{t: t}
	all, sites := p.sums(s, keyOfBlock)
	for _, by := range []string{"live", "allocated", "peak"} {
		top := answerOf[struct {
			Live, Allocated, Peak history.Amount
			PeakNS                time.Duration `json:"peak_ns"`
			Sites                 []siteJSON
		}](r, slices.Concat([]string{"top", "-by", by}, s.args(), []string{p.path})...)
		if top.Live != all.Live || top.Allocated != all.Allocated || top.Peak != all.Peak || top.PeakNS != all.PeakAt {
			t.Errorf("top -by %s: %+v, want %+v", by, top, all)
		}
		amountOf := func(live, allocated, peak history.Amount) history.Amount {
			return map[string]history.Amount{"live": live, "allocated": allocated, "peak": peak}[by]
		}
		wanted, last := 0, int64(-1)
		for _, k := range sites {
			if amountOf(k.Live, k.Allocated, k.atPeak).Blocks > 0 {
				wanted++
			}
		}
		for i := range top.Sites {
			site := &top.Sites[i]
			want := sites[site.key()]
			if want == nil || site.Live != want.Live || site.Allocated != want.Allocated || site.Freed != want.Freed || site.Peak != want.atPeak || site.LongestNS != want.Longest {
				t.Errorf("top -by %s: %+v, want %+v", by, site, want)
			}
			bytes := amountOf(site.Live, site.Allocated, site.Peak).Bytes
			if last >= 0 && bytes > last {
				t.Errorf("top -by %s: %d bytes come after %d", by, bytes, last)
			}
			last = bytes
		}
		if wanted != len(top.Sites) {
			t.Errorf("top -by %s: %d sites, want %d", by, len(top.Sites), wanted)
		}
		var folded map[string]int64
		flame := int64(0)
		folded = answerOf[map[string]int64](r, slices.Concat([]string{"flame", "-by", by}, s.args(), []string{p.path})...)
		for _, bytes := range folded {
			flame += bytes
		}
		if want := amountOf(all.Live, all.Allocated, all.Peak).Bytes; flame != want {
			t.Errorf("flame -by %s: %d bytes, want %d", by, flame, want)
		}
	}

	leaks := answerOf[struct {
		MomentsNS [4]time.Duration `json:"moments_ns"`
		Live      history.Amount
		Sites     []siteJSON
	}](r, slices.Concat([]string{"leaks"}, s.args(), []string{p.path})...)
	if leaks.Live != all.Live || leaks.MomentsNS[3] != p.end || leaks.MomentsNS[0] != p.end/4 {
		t.Errorf("%+v, want %+v", leaks, all)
	}
	var quarters [4]map[string]history.Amount
	for i, at := range leaks.MomentsNS {
		quarters[i] = p.liveAt(at, s, keyOfBlock)
	}
	for i := range leaks.Sites {
		site := &leaks.Sites[i]
		oldest, newest, outlived := time.Duration(1<<62), time.Duration(0), int64(0)
		for _, b := range p.blocks {
			if b.live && s.has(b) && keyOfBlock(b) == site.key() {
				oldest, newest = min(oldest, b.acquired), max(newest, b.acquired)
				if site.Freed.Blocks > 0 && p.end-b.acquired > site.LongestNS {
					outlived++
				}
			}
		}
		grows := true
		for i := range quarters {
			if site.Quarters[i] != quarters[i][site.key()].Bytes {
				t.Errorf("leaks: %+v, want %d at %v", site, quarters[i][site.key()].Bytes, leaks.MomentsNS[i])
			}
			grows = grows && (i == 0 || site.Quarters[i] > site.Quarters[i-1])
		}
		if site.OldestNS != oldest || site.NewestNS != newest || site.Outlived != outlived || site.Grows != grows {
			t.Errorf("leaks: %+v, want %v to %v, %d outlived, grows: %t", site, oldest, newest, outlived, grows)
		}
	}
}

func (p *randomProgram) checkMoments(t *testing.T, s selection, rng *rand.Rand) {
	r := &runner{t: t}
	moments := []time.Duration{time.Duration(rng.Int64N(int64(p.end) + 1)), p.changes[rng.IntN(len(p.changes))].at, 0, p.end}
	from, to := moments[rng.IntN(4)], moments[rng.IntN(4)]
	c := answerOf[struct {
		Before, After history.Amount
		Sites         []siteJSON
	}](r, slices.Concat([]string{"diff", "-from", from.String(), "-to", to.String()}, s.args(), []string{p.path})...)
	before, after := p.liveAt(from, s, keyOfBlock), p.liveAt(to, s, keyOfBlock)
	total := func(of map[string]history.Amount) (sum history.Amount) {
		for _, a := range of {
			sum = history.Amount{Blocks: sum.Blocks + a.Blocks, Bytes: sum.Bytes + a.Bytes}
		}
		return sum
	}
	if c.Before != total(before) || c.After != total(after) {
		t.Errorf("diff %v to %v: %+v and %+v, want %+v and %+v", from, to, c.Before, c.After, total(before), total(after))
	}
	for i := range c.Sites {
		site := &c.Sites[i]
		if site.Before != before[site.key()] || site.After != after[site.key()] || site.Change != site.After.Sub(site.Before) || site.Change == (history.Amount{}) {
			t.Errorf("diff %v to %v: %+v, want %+v and %+v", from, to, site, before[site.key()], after[site.key()])
		}
		delete(before, site.key())
		delete(after, site.key())
	}
	for key, a := range before {
		if a != after[key] {
			t.Errorf("diff %v to %v lacks %s", from, to, key)
		}
	}
}

func (p *randomProgram) checkQueries(t *testing.T, s selection, rng *rand.Rand) {
	r := &runner{t: t}
	moment := func() time.Duration { return time.Duration(rng.Int64N(int64(p.end) + 1)) }
	life := func(b *knownBlock) time.Duration {
		if b.live {
			return p.end - b.acquired
		}
		return b.released - b.acquired
	}
	liveAt := func(b *knownBlock, at time.Duration) bool { return b.acquired <= at && (b.live || at < b.released) }
	for range 4 {
		args := []string{"query", "-n", "-1", "-sort", []string{"size", "life", "time"}[rng.IntN(3)]}
		matches := []func(b *knownBlock) bool{s.has}
		if rng.IntN(2) == 0 {
			at := moment()
			args = append(args, "-at", at.String())
			matches = append(matches, func(b *knownBlock) bool { return liveAt(b, at) })
		}
		if rng.IntN(3) == 0 {
			from, to := moment(), moment()
			from, to = min(from, to), max(from, to)
			args = append(args, "-grew", from.String()+":"+to.String())
			matches = append(matches, func(b *knownBlock) bool { return !b.older && b.acquired >= from && liveAt(b, to) })
		}
		if rng.IntN(3) == 0 {
			d := 1 + moment()/10
			args = append(args, "-longer", d.String())
			matches = append(matches, func(b *knownBlock) bool { return life(b) >= d })
		}
		if rng.IntN(3) == 0 {
			d := 1 + moment()/10
			args = append(args, "-shorter", d.String())
			matches = append(matches, func(b *knownBlock) bool { return !b.live && !b.older && life(b) < d })
		}
		if rng.IntN(3) == 0 {
			least, most := rng.Int64N(10_000), 10_000+rng.Int64N(20_000)
			args = append(args, "-size", fmt.Sprintf("%d:%d", least, most))
			matches = append(matches, func(b *knownBlock) bool { return least <= b.size && b.size <= most })
		}
		args = slices.Concat(args, s.args(), []string{p.path})
		found := answerOf[struct {
			Matched, Live history.Amount
			Blocks        []struct {
				siteJSON
				Live, Older bool
			}
		}](r, args...)
		var want, got []string
		var matched, live history.Amount
		for _, b := range p.blocks {
			if slices.ContainsFunc(matches, func(is func(b *knownBlock) bool) bool { return !is(b) }) {
				continue
			}
			matched = history.Amount{Blocks: matched.Blocks + 1, Bytes: matched.Bytes + b.size}
			released := b.released
			if b.live {
				live = history.Amount{Blocks: live.Blocks + 1, Bytes: live.Bytes + b.size}
				released = p.end
			}
			want = append(want, fmt.Sprint(b.proxy, "/", b.child, "/", b.place, "/", b.region, " ", b.addr, " ", b.size, " ", b.requested, " ", b.acquired, " ", released, " ", b.live, b.older))
		}
		for i, b := range found.Blocks {
			got = append(got, fmt.Sprint(b.Proxy, "/", b.Child, "/", placeOf(b.Stack), "/", b.Region, " ", b.Addr, " ", b.Size, " ", b.Requested, " ", b.AcquiredNS, " ", b.ReleasedNS, " ", b.Live, b.Older))
			if i == 0 {
				continue
			}
			if last := found.Blocks[i-1]; args[4] == "size" && b.Size > last.Size || args[4] == "time" && b.AcquiredNS < last.AcquiredNS || args[4] == "life" && b.ReleasedNS-b.AcquiredNS > last.ReleasedNS-last.AcquiredNS {
				t.Errorf("%q: %+v comes after %+v", args, b, last)
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) || found.Matched != matched || found.Live != live {
			t.Errorf("%q: %+v and %+v, want %+v and %+v\n%s\nwant\n%s", args, found.Matched, found.Live, matched, live, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

func (p *randomProgram) checkTimelines(t *testing.T, s selection, steps int) {
	r := &runner{t: t}
	for by, key := range map[string]func(b *knownBlock) string{
		"":       func(*knownBlock) string { return "" },
		"proxy":  func(b *knownBlock) string { return siteKey(b.proxy, "", "") },
		"child":  func(b *knownBlock) string { return siteKey(b.proxy, b.child, "") },
		"region": func(b *knownBlock) string { return b.region },
		"site":   keyOfBlock,
	} {
		type group struct {
			Proxy, Child, Region string
			Site                 *siteJSON
			Peak, Live           int64
			Values               []int64
		}
		got := answerOf[struct {
			BeginNS time.Duration `json:"begin_ns"`
			StepNS  time.Duration `json:"step_ns"`
			Total   group
			Groups  []group
		}](r, slices.Concat([]string{"timeline", "-by", by, "-steps", fmt.Sprint(steps)}, s.args(), []string{p.path})...)
		step := p.end/time.Duration(steps) + 1
		n := int(p.end/step) + 1
		values, live := map[string][]int64{"all": make([]int64, n)}, make(map[string]int64)
		at := 0
		reach := func(to int) {
			for ; at < to; at++ {
				for key, v := range values {
					v[at+1] = live[key]
				}
			}
		}
		for _, c := range p.changes {
			if !s.has(c.block) {
				continue
			}
			reach(int(c.at / step))
			for _, key := range []string{"all", "of " + key(c.block)} {
				if values[key] == nil {
					values[key] = make([]int64, n)
				}
				live[key] += c.by * c.block.size
				values[key][at] = max(values[key][at], live[key])
			}
		}
		reach(n - 1)
		check := func(key string, g *group) {
			if !slices.Equal(g.Values, values[key]) || g.Live != live[key] || g.Peak != max(0, slices.Max(g.Values)) {
				t.Errorf("timeline -by %q of %s: %+v, want %v", by, key, g, values[key])
			}
			delete(values, key)
		}
		check("all", &got.Total)
		for i := range got.Groups {
			g := &got.Groups[i]
			name := map[string]string{"proxy": siteKey(g.Proxy, "", ""), "child": siteKey(g.Proxy, g.Child, ""), "region": g.Region}[by]
			if g.Site != nil {
				name = g.Site.key()
			}
			check("of "+name, g)
		}
		if by != "" && len(values) > 0 {
			t.Errorf("timeline -by %s lacks %v", by, values)
		}
	}
}
