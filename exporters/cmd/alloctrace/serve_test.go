package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/internal/page"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/history"
	"github.com/alloctrace/alloctrace/hooks/blackbox"
)

// served serves the page of a file until the test ends, and returns its URL and a function that ends it and returns what the program exits with.
func served(t *testing.T, path string) (url string, end func() (int, error)) {
	t.Helper()
	return servedAt(t, path, "127.0.0.1:0")
}

func servedAt(t *testing.T, path, addr string) (url string, end func() (int, error)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	in, out := io.Pipe()
	type result struct {
		status int
		err    error
	}
	ended := make(chan result, 1)
	go func() {
		status, err := new(reading).serve(ctx, path, addr, out, io.Discard)
		out.CloseWithError(errors.Join(err, io.EOF))
		ended <- result{status, err}
	}()
	line := make([]byte, 100)
	n, err := in.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(line[:n])), func() (int, error) {
		cancel()
		r := <-ended
		return r.status, r.err
	}
}

// fetch returns an answer of the page.
func fetch[T any](t *testing.T, url string, status int) (v T) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil || r.StatusCode != status {
		t.Fatalf("%s: %s: %v", url, r.Status, err)
	}
	return v
}

// TestServeRecording: the page has what the recording has, which newRecording says.
func TestServeRecording(t *testing.T) {
	url, end := served(t, newRecording(t))
	p := fetch[page.Page](t, url+"api/page", 200)
	if p.Mode != page.Recording || p.Title != "a.alloctrace" || p.Rate != 1 || p.NowUS != 99_500_000 || p.Began != "2000-01-01T00:00:00Z" || p.Tabs["map"] != "" || p.Tabs["unreachable"] == "" ||
		!slices.Equal(p.Flame, []string{"live", "allocated", "peak", "lifetime"}) || len(p.Notes) != 0 {
		t.Errorf("the page is of %+v", p)
	}
	s := fetch[page.Snapshot](t, url+"api/snapshot", 200)
	moment := fetch[page.Snapshot](t, url+"api/snapshot?at=10000000", 200)
	blocks := fetch[page.Blocks](t, url+"api/blocks", 200)
	largest := fetch[page.Blocks](t, url+"api/blocks?n=7", 200)
	events := fetch[page.Events](t, url+"api/events?n=7", 200)
	lifetimes := fetch[page.Lifetimes](t, url+"api/lifetimes", 200)
	leaks := fetch[page.Leaks](t, url+"api/leaks", 200)
	between := fetch[page.Between](t, url+"api/between?from=10000000&to=19500000", 200)
	bySite := fetch[page.Timeline](t, url+"api/timeline?by=site&steps=4", 200)
	byRegion := fetch[page.Timeline](t, url+"api/timeline?by=region&steps=4", 200)
	byChild := fetch[page.Timeline](t, url+"api/timeline?by=child&steps=4", 200)
	m := fetch[page.Map](t, url+"api/map", 200)
	tables := fetch[page.Tables](t, url+"api/tables", 200)

	owner := func(site int) string { return tables.Texts[tables.Sites.Owner[site]] }
	called := func(site int) string { return tables.Texts[tables.Frames.Function[tables.Sites.Stack[site][1]]] }
	if want := (page.Stats{Live: 100 << 10, LiveBlocks: 100, Peak: 100<<10 + 512, Allocated: 150 << 10, Freed: 50 << 10, Allocations: 200, Frees: 100, FailedAllocations: 1}); s.Total != want {
		t.Errorf("all is %+v, want %+v", s.Total, want)
	}
	if want := (page.Stats{Live: 11<<10 + 512, LiveBlocks: 12, Peak: 11<<10 + 512, Allocated: 16<<10 + 512, Freed: 5 << 10, Allocations: 22, Frees: 10}); moment.Total != want || moment.AtUS != 10_000_000 {
		t.Errorf("after ten seconds all is %+v, want %+v", moment.Total, want)
	}
	if !slices.Equal(s.Nodes.Live, []int64{100 << 10, 100 << 10}) || !slices.Equal(s.Nodes.Allocated, []int64{150 << 10, 100 << 10}) || !slices.Equal(s.Nodes.FailedAllocations, []int64{1, 0}) ||
		!slices.Equal(tables.Nodes.Parent, []int{-1, 0}) || tables.Texts[tables.Nodes.Name[0]] != "mem" || tables.Texts[tables.Nodes.Name[1]] != "cache" {
		t.Errorf("the nodes are %+v of %+v", s.Nodes, tables.Nodes)
	}
	if c := s.Sites; !slices.Equal(c.Live, []int64{100 << 10, 0}) || !slices.Equal(c.Allocated, []int64{100 << 10, 50 << 10}) || !slices.Equal(c.AllocatedBlocks, []int64{100, 100}) || !slices.Equal(c.Peak, []int64{100 << 10, 512}) ||
		c.PeakUS != 99_000_000 || c.Lifetime[1] != 50<<10*500 || c.Lifetime[0] != 0 || owner(c.Site[0]) != "cache" || owner(c.Site[1]) != "" || !strings.HasSuffix(called(c.Site[1]), ".handle") {
		t.Errorf("the sites are %+v", c)
	}
	if !slices.Equal(s.Classes.Size, []int64{512, 1024}) || !slices.Equal(s.Classes.Live, []int64{0, 100}) || s.RSS != nil || s.RSSWhy == "" || s.RateUS != 99_500_000 {
		t.Errorf("sizes are %+v", s.Classes)
	}
	if len(blocks.Addr) != 100 || blocks.All != 100 || blocks.AllocatedUS[42] != 42_000_000 || blocks.Size[42] != 1024 || owner(blocks.Site[42]) != "cache" || len(largest.Addr) != 7 || largest.All != 100 {
		t.Errorf("blocks are %+v", blocks)
	}
	if events.All != 301 || events.First != 294 || !events.Timed || sumOf(events.DeltaNS)+events.BeginNS != 99_500_000_000 || events.Kinds[events.Kind[6]] != "freeing" || events.Site[6] != -1 || owner(events.Site[4]) != "cache" || events.Size[5] != 512 {
		t.Errorf("the last events are %+v", events)
	}
	if rows := lifetimes.Rows; len(rows) != 2 || sumOf(rows[0].Live) != 100 || len(rows[0].Ended) != 0 || rows[0].HalfUS != -1 || sumOf(rows[1].Ended) != 100 || rows[1].HalfUS != 1<<19 || rows[1].MostUS != 1<<19 || rows[1].EndedBytes != 50<<10 {
		t.Errorf("lifetimes are %+v", rows)
	}
	if !slices.Equal(leaks.Suspicion, []int{3}) || !reflect.DeepEqual(leaks.Quarters, [][]int64{{25 << 10, 50 << 10, 75 << 10, 100 << 10}}) || leaks.Added[0] != 75<<10 || leaks.Why[0] == "" || leaks.OldestUS[0] != 0 || leaks.NewestUS[0] != 99_000_000 || leaks.LongestUS[0] != -1 {
		t.Errorf("leaks are %+v", leaks)
	}
	if !slices.Equal(between.Live, []int64{10 << 10, 0}) || !slices.Equal(between.Allocated, []int64{10 << 10, 5 << 10}) || owner(between.Site[0]) != "cache" {
		t.Errorf("in ten seconds came %+v", between)
	}
	if g := bySite.Groups; len(g) != 2 || owner(g[0].Site) != "cache" || !slices.Equal(g[0].Values, []int64{25 << 10, 50 << 10, 75 << 10, 100 << 10}) || bySite.StepUS != 24_875_000.001 || !slices.Equal(bySite.Total, []int64{25<<10 + 512, 50<<10 + 512, 75<<10 + 512, 100 << 10}) || !slices.Equal(g[1].Values, []int64{512, 512, 512, 0}) || g[1].Peak != 512 {
		t.Errorf("over time, by site: %+v", bySite)
	}
	if g := byRegion.Groups; len(g) != 2 || g[0].Name != "" || g[1].Name != "GET /" || g[1].Peak != 512 || g[1].Site != -1 || g[0].Values[3] != 100<<10 || g[1].Values[3] != 0 {
		t.Errorf("over time, by region: %+v", g)
	}
	if g := byChild.Groups; len(g) != 2 || g[0].Name != "cache" || g[1].Name != "mem" {
		t.Errorf("over time, by child: %+v", g)
	}
	checkMap(t, &m, &blocks)
	for _, what := range []string{"mark", "unreachable"} {
		r, err := http.Post(url+"api/"+what, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.Body.Close(); r.StatusCode != http.StatusNotFound {
			t.Errorf("%s of a recording: %s", what, r.Status)
		}
	}
	if e := fetch[page.Error](t, url+"api/stream", 404); !strings.Contains(e.Error, "file") {
		t.Errorf("the stream of a file: %s", e.Error)
	}
	if status, err := end(); status != whole || err != nil {
		t.Errorf("it exits with %d: %v", status, err)
	}
}

// checkMap: each block is in the span that the map says, and what is not free of a span is its blocks.
func checkMap(t *testing.T, m *page.Map, blocks *page.Blocks) {
	t.Helper()
	addrs := make(map[int64]int64)
	for row, addr := range blocks.Addr {
		addrs[addr+blocks.AddrMin] = blocks.Size[row]
	}
	for _, a := range m.Allocators {
		used := make([]int64, len(a.Spans.Addr))
		for row, addr := range a.Blocks.Addr {
			span := a.Blocks.Span[row]
			if offset := addr - a.Spans.Addr[span]; offset < 0 || offset+a.Blocks.Size[row] > a.Spans.Size[span] || addrs[addr+a.AddrMin] != a.Blocks.Size[row] {
				t.Errorf("block %d is at %#x in the span %d at %#x of %d bytes", row, addr, span, a.Spans.Addr[span], a.Spans.Size[span])
			}
			delete(addrs, addr+a.AddrMin)
			used[span] += a.Blocks.Size[row]
		}
		for span, bytes := range used {
			if bytes != a.Spans.Size[span]-a.Spans.Free[span] {
				t.Errorf("span %d has %d bytes in blocks, and %d of %d free", span, bytes, a.Spans.Free[span], a.Spans.Size[span])
			}
		}
	}
	if len(addrs) > 0 {
		t.Errorf("%d blocks are not in the map", len(addrs))
	}
}

func sumOf(list []int64) (s int64) {
	for _, n := range list {
		s += n
	}
	return s
}

// TestServeSlack: what was granted beyond what was asked for is the slack of who holds it.
func TestServeSlack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.alloctrace")
	rec, err := recording.Create(path, recording.Options{})
	if err != nil {
		t.Fatal(err)
	}
	mem := alloctrace.Wrap(new(rounding), alloctrace.WithHooks(rec))
	hold(t, mem, 100)
	b := hold(t, mem.Child("a"), 1)
	hold(t, mem.Child("b"), 28)
	if err := errors.Join(mem.Child("a").Free(b), rec.Close()); err != nil {
		t.Fatal(err)
	}
	url, end := served(t, path)
	s := fetch[page.Snapshot](t, url+"api/snapshot", 200)
	if s.Total.Slack != 64 || !slices.Equal(s.Nodes.Slack, []int64{64, 0, 36}) || s.Total.Live != 192 || s.Total.Frees != 1 {
		t.Errorf("all is %+v, and by node %+v", s.Total, s.Nodes)
	}
	if _, err := end(); err != nil {
		t.Error(err)
	}
}

// A rounding grants multiples of 64 bytes.
type rounding struct{ blockalloc.Heap }

func (r *rounding) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	granted := l
	granted.Size = (l.Size + 63) &^ 63
	b, err := r.Heap.Allocate(granted)
	if err != nil {
		return b, err
	}
	return blockalloc.NewBlock(b.Pointer(), granted.Size, l)
}

func (r *rounding) Free(b blockalloc.Block) error {
	b, err := blockalloc.NewBlock(b.Pointer(), b.Size(), blockalloc.Layout{Size: b.Size(), Align: b.Align()})
	if err != nil {
		return err
	}
	return r.Heap.Free(b)
}

// TestSuspectLeak: what was only filled is not suspicious.
func TestSuspectLeak(t *testing.T) {
	freed := history.Amount{Blocks: 1}
	for _, c := range []struct {
		leak history.Leak
		want int
	}{
		{history.Leak{Site: &history.Site{}, Grows: true, Quarters: [4]int64{1, 2, 3, 4}}, 3},
		{history.Leak{Site: &history.Site{Freed: freed}, Grows: true, Quarters: [4]int64{1, 2, 3, 4}}, 2},
		{history.Leak{Site: &history.Site{Freed: freed}, Grows: true, Quarters: [4]int64{100, 900, 990, 1000}, Outlived: 1}, 1},
		{history.Leak{Site: &history.Site{Freed: freed}, Quarters: [4]int64{4, 3, 3, 4}}, 0},
	} {
		if got, why := suspectLeak(&c.leak); got != c.want || (why == "") != (got == 0) {
			t.Errorf("%+v is %d: %s, want %d", c.leak, got, why, c.want)
		}
	}
}

// TestServeBlackBox: the page has what the box has, which newBox says.
func TestServeBlackBox(t *testing.T) {
	path := newBox(t)
	url, end := served(t, path)
	p := fetch[page.Page](t, url+"api/page", 200)
	s := fetch[page.Snapshot](t, url+"api/snapshot", 200)
	events := fetch[page.Events](t, url+"api/events", 200)
	tables := fetch[page.Tables](t, url+"api/tables", 200)
	if p.Mode != page.BlackBox || p.Rate != 1 || p.Tabs["timeline"] == "" || p.Tabs["flame"] != "" || !slices.Equal(p.Flame, []string{"live", "peak"}) || len(p.Notes) != 0 || p.PID != os.Getpid() {
		t.Errorf("the page is of %+v", p)
	}
	if s.Total.Live != 4096 || s.Total.LiveBlocks != 1 || s.Total.FailedAllocations != 1 || !slices.Equal(s.Nodes.Live, []int64{4096, 4096}) || !slices.Equal(tables.Nodes.Parent, []int{-1, 0}) {
		t.Errorf("the snapshot is %+v", s)
	}
	if c := s.Sites; !slices.Equal(c.Live, []int64{4096, 0}) || !slices.Equal(c.Peak, []int64{4096, 64 << 10}) || tables.Texts[tables.Sites.Owner[c.Site[0]]] != "cache" {
		t.Errorf("the sites are %+v", c)
	}
	if events.All != 4 || events.Kinds[events.Kind[3]] != "allocate failed" || !slices.Equal(events.ErrorRow, []int{3}) || !strings.Contains(events.ErrorText[0], "Limit") || events.Site != nil || tables.Texts[events.Owner[1]] != "cache" {
		t.Errorf("the events are %+v", events)
	}
	for _, what := range []string{"timeline", "map", "blocks", "leaks", "lifetimes", "between?from=1&to=2"} {
		if e := fetch[page.Error](t, url+"api/"+what, 404); e.Error != noHistory {
			t.Errorf("%s: %s", what, e.Error)
		}
	}
	if status, err := end(); status != whole || err != nil {
		t.Errorf("it exits with %d: %v", status, err)
	}

	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut.box")
	if err := os.WriteFile(cut, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := blackbox.Open(cut); err != nil || len(c.Damage) == 0 {
		t.Fatalf("half a box has the damage %v: %v", c, err)
	}
	url, end = served(t, cut)
	if p := fetch[page.Page](t, url+"api/page", 200); len(p.Notes) == 0 || !strings.HasPrefix(p.Notes[0], "damaged: ") {
		t.Errorf("the notes are %q", p.Notes)
	}
	if status, err := end(); status != damaged || err != nil {
		t.Errorf("half a box: it exits with %d: %v", status, err)
	}
}

// TestServeSaves: the page of a file can be saved, with its data.
func TestServeSaves(t *testing.T) {
	url, end := served(t, newRecording(t))
	r, err := http.Get(url + "save")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := io.ReadAll(r.Body)
	if err != nil || r.Body.Close() != nil || r.StatusCode != http.StatusOK || !strings.HasPrefix(r.Header.Get("Content-Disposition"), `attachment; filename="a.alloctrace-`) {
		t.Fatalf("%s %v: %v", r.Status, r.Header, err)
	}
	for _, want := range []string{`"api/timeline?by=site":{`, `"api/timeline?by=region":{`, `"mode":"saved","of":"recording"`, `<title>a.alloctrace</title>`} {
		if !strings.Contains(string(doc), want) {
			t.Errorf("the saved page has no %s", want)
		}
	}
	if _, err := end(); err != nil {
		t.Error(err)
	}
}

// TestServeEverywhere: the URL that is printed opens the page, also if it listens at all addresses.
func TestServeEverywhere(t *testing.T) {
	for _, addr := range []string{":0", "0.0.0.0:0"} {
		url, end := servedAt(t, newRecording(t), addr)
		if p := fetch[page.Page](t, url+"api/page", 200); p.Mode != page.Recording {
			t.Errorf("%s: the page is of %+v", addr, p)
		}
		if _, err := end(); err != nil {
			t.Error(err)
		}
	}
}

// TestServeProxies: children and sites of two Proxies are told apart, or put together, in each answer.
func TestServeProxies(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.alloctrace")
	rec, err := recording.Create(path, recording.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"a", "b"} {
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithName(name), alloctrace.WithHooks(rec))
		hold(t, mem.Child("cache"), uintptr(100*(i+1)))
		hold(t, mem, uintptr(250))
	}
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	url, end := served(t, path)
	var names []string
	for _, g := range fetch[page.Timeline](t, url+"api/timeline?by=child", 200).Groups {
		names = append(names, g.Name)
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"a", "a/cache", "b", "b/cache"}) {
		t.Errorf("the children are %q", names)
	}
	line := fetch[page.Timeline](t, url+"api/timeline?by=site", 200)
	if g := line.Groups; len(g) != 2 || g[0].Peak != 500 || g[1].Peak != 300 || g[0].Values[len(g[0].Values)-1] != 500 {
		t.Errorf("the sites are %+v", g)
	}
	last := fetch[page.Snapshot](t, url+"api/snapshot", 200)
	if !slices.Equal(last.Sites.Live, []int64{500, 300}) || last.Total.Live != 800 {
		t.Errorf("the sites hold %v of %d", last.Sites.Live, last.Total.Live)
	}
	if moment := fetch[page.Snapshot](t, url+"api/snapshot?at=-1", 200); moment.Total.Live != 0 || len(moment.Sites.Site) != 0 {
		t.Errorf("before the beginning all is %+v", moment.Total)
	}
	if _, err := end(); err != nil {
		t.Error(err)
	}
}

// TestBoxErrors: sites of a black box that are one on the page have one error, and the others keep theirs.
func TestBoxErrors(t *testing.T) {
	site := func(bytes, deviation int64, labels ...blackbox.Label) blackbox.Site {
		return blackbox.Site{Blocks: 1, Bytes: bytes, Error: deviation, Labels: labels, Stack: []blackbox.Frame{{Function: "f", Line: len(labels)}}}
	}
	label := blackbox.Label{Key: "region", Value: "x"}
	c := &blackbox.Contents{Live: blackbox.Sites{Sites: []blackbox.Site{site(50, 1), site(40, 3, label), site(30, 4, label), site(20, 5, label, label)}}}
	got := newBoxPage("a.box", c).snapshot().Sites
	if !slices.Equal(got.Live, []int64{70, 50, 20}) || !slices.Equal(got.LiveError, []int64{5, 1, 5}) {
		t.Errorf("%v ± %v are live", got.Live, got.LiveError)
	}
}

// TestServeFails: what cannot be served is an error that says why.
func TestServeFails(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &runner{t: t}
	for args, want := range map[string]string{
		other:                      "is neither a recording nor a black box: ",
		filepath.Join(dir, "none"): "none",
		"":                         "usage: alloctrace serve",
		other + "\x00" + other:     "usage: alloctrace serve",
		"-addr\x00nowhere:1:2\x00" + newRecording(t): "nowhere:1:2",
	} {
		r.run(failed, append([]string{"serve"}, strings.FieldsFunc(args, func(r rune) bool { return r == 0 })...)...)
		if !strings.Contains(r.errOut.String(), want) {
			t.Errorf("%q says %q, want %q", args, &r.errOut, want)
		}
	}
}
