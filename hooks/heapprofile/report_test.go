package heapprofile

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/text"
	"github.com/alloctrace/alloctrace/internal/text/texttest"
)

//go:noinline
func siteA(p *alloctrace.Proxy, size uintptr) {
	_, _ = p.Allocate(blockalloc.Layout{Size: size, Align: 8})
}

//go:noinline
func siteB(p *alloctrace.Proxy, size uintptr) { siteA(p, size) }

func TestReport(t *testing.T) {
	l := New(Options{Rate: 1})
	p := observed(l, new(blockalloc.Heap))
	if text := l.Report().String(); text != "nothing is live\n" {
		t.Errorf("of nothing: %q", text)
	}
	for range 3 {
		siteB(p, 4096)
	}
	siteA(p, 64)
	want := regexp.MustCompile(`^12.06 KiB in 4 blocks are live:
  12 KiB in 3 blocks of 4 KiB: heapprofile.siteA \(report_test.go:\d+\), heapprofile.siteB \(report_test.go:\d+\), heapprofile.TestReport \(report_test.go:\d+\); the oldest is [0-9.]+[nµm]?s old
  64 B in 1 block of 64 B: heapprofile.siteA \(report_test.go:\d+\), heapprofile.TestReport \(report_test.go:\d+\); [0-9.]+[nµm]?s old
$`)
	r := l.Report()
	if !want.MatchString(r.String()) {
		t.Errorf("%s\nwant %v", r, want)
	}
	var listing strings.Builder
	if err := r.WriteListing(&listing); err != nil {
		t.Fatal(err)
	}
	if text := listing.String(); !strings.HasPrefix(text, "heap profile: 4: 12352 [4: 12352] @ heapprofile\n3: 12288 [3: 12288] @ 0x") || strings.Count(text, "\n#\t") != 5 {
		t.Errorf("listing:\n%s", text)
	}
	asJSON, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if oldest := l.Blocks()[0].Allocated; !r.Sites[0].Oldest.Equal(oldest) {
		t.Errorf("the oldest block of the first site is of %v, want %v", r.Sites[0].Oldest, oldest)
	}
	var back Report
	if err := json.Unmarshal(asJSON, &back); err != nil || back.String() != r.String() {
		t.Errorf("back from JSON: %v\n%s", err, back)
	}
}

// TestReportOfSizes: of one site, and the oldest block of all comes first.
func TestReportOfSizes(t *testing.T) {
	l := New(Options{Rate: 1})
	at := &site{stack: &stack{pcs: []uintptr{1}}}
	for i, size := range []uintptr{4096, 100, 9000} {
		l.live.add(uintptr(9-i)<<12, &block{size: size, by: l.direct, site: at, since: time.Duration(10 + i), serial: uint64(i), sampler: l.sampler.Load()})
	}
	if text := l.Report().String(); !strings.Contains(text, "in 3 blocks of 100 B to 8.79 KiB: ") {
		t.Error(text)
	}
	for i, b := range l.Blocks() {
		if got := b.Allocated.Sub(l.start); got != time.Duration(10+i) {
			t.Errorf("block %d is of %v after the start", i, got)
		}
	}
}

// TestReportOfDepths: a line says how many calls it leaves out, and that the stack was cut.
func TestReportOfDepths(t *testing.T) {
	for depth := range 40 {
		l := New(Options{Rate: 1})
		deep(observed(l, new(blockalloc.Heap)), depth)
		r := l.Report()
		s := r.Sites[0]
		line, frames := s.String(), len(s.Stack)
		want := fmt.Sprintf(" and %d more calls; ", frames-4)
		switch {
		case s.Cut:
			want = fmt.Sprintf(" and %d or more other calls; ", frames-4)
		case frames == 5:
			want = " and 1 more call; "
		case frames <= 4:
			want = "; "
		}
		if _, rest, _ := strings.Cut(line, ": "); strings.Count(rest, "(report_test.go:") != min(frames, 4) || !strings.Contains(line, ")"+want) {
			t.Errorf("%d deep, with %d frames: %s", depth, frames, line)
		}
		if frames > depth+3 || frames < depth+3 && !s.Cut || s.Cut && depth < 10 { // with this test, and without the frames of this library and of package testing
			t.Errorf("%d deep there are %d frames, and cut: %t", depth, frames, s.Cut)
		}
		var listing strings.Builder
		if err := r.WriteListing(&listing); err != nil || strings.Contains(listing.String(), "#\tand more\n") != s.Cut {
			t.Errorf("%d deep, %v:\n%s", depth, err, &listing)
		}
	}
}

//go:noinline
func deep(p *alloctrace.Proxy, depth int) {
	if depth > 0 {
		deep(p, depth-1)
		return
	}
	siteA(p, 64)
}

// TestAges: the age is that of the oldest block of a site.
func TestAges(t *testing.T) {
	l := New(Options{Rate: 1})
	l.start = time.Now().Add(-time.Hour)
	at := &site{stack: &stack{pcs: []uintptr{1}}}
	for i, since := range []time.Duration{30 * time.Minute, 10 * time.Minute, 0} {
		l.live.add(uintptr(i+1)<<12, &block{size: 64, by: l.direct, site: at, since: since, serial: uint64(3 - i), sampler: l.sampler.Load()})
	}
	if s := l.Report().Sites[0]; s.Age < time.Hour || !s.Oldest.Equal(l.start) || !strings.HasSuffix(s.String(), "; the oldest is "+age(s.Age)+" old") {
		t.Errorf("%+v: %s", s, s)
	}
	for d, want := range map[time.Duration]string{
		0: "0s", 999: "999ns", 12_345: "12.3µs", 1_234_567: "1.23ms", 59 * time.Second: "59s", 90 * time.Second: "1m30s",
		12*time.Minute + 34*time.Second: "12m34s", 72*time.Hour + 29*time.Second: "72h0m",
	} {
		if got := age(d); got != want {
			t.Errorf("the age %v is %q, want %q", d, got, want)
		}
	}
}

// TestUglyOwners: a report is JSON, lines and a listing whatever owners and functions are named.
func TestUglyOwners(t *testing.T) {
	l := New(Options{Rate: 1})
	want := make(map[string]int64)
	for _, ugly := range texttest.Table() {
		siteA(observed(l, new(blockalloc.Heap)).Child(ugly.Text), 64)
		want[text.Name(ugly.Text)] += 64
	}
	r := l.Report()
	r.Sites[0].Stack, r.Sites[0].whole = []Frame{{"a.b\n\xff\x00", "c\nd.go", 7}}, nil
	asJSON, err := json.Marshal(r)
	if err != nil || !utf8.Valid(asJSON) {
		t.Fatalf("%v: %.200q", err, asJSON)
	}
	var back Report
	if err := json.Unmarshal(asJSON, &back); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]int64)
	for _, s := range back.Sites {
		got[s.Owner] += s.Bytes
	}
	if !maps.Equal(got, want) {
		t.Errorf("owners are\n%v\nwant\n%v", got, want)
	}
	text := r.String()
	if n := strings.Count(text, "\n"); n != len(r.Sites)+1 || !utf8.ValidString(text) {
		t.Errorf("%d lines for %d sites, valid: %t", n, len(r.Sites), utf8.ValidString(text))
	}
	var listing strings.Builder
	if err := r.WriteListing(&listing); err != nil {
		t.Fatal(err)
	}
	if text := listing.String(); strings.Count(text, "\n\n") != len(r.Sites) || !utf8.ValidString(text) || !strings.Contains(text, "#\ta.b\\n\ufffd\\x00\tc\\nd.go:7\n") {
		t.Errorf("%d sites in\n%s", len(r.Sites), text)
	}
}

// TestReportOfMany: 100,000 blocks of 60 sites are a line for each of 50 and one for the rest.
func TestReportOfMany(t *testing.T) {
	text := manyBlocks(60).Report().String()
	if n := strings.Count(text, "\n"); n != 52 || !strings.HasPrefix(text, "6.1 MiB in 100000 blocks are live:\n") || !strings.HasSuffix(text, " at 10 more sites\n") {
		t.Errorf("%d lines:\n%s", n, text)
	}
}

// TestReportError: what a report says that is live differs from what is live as its standard error says, and does not where every block
// is known.
func TestReportError(t *testing.T) {
	const trials, blocks = 400, 2000
	sizes := rand.New(rand.NewPCG(1, 2))
	squares := 0.0
	for range trials {
		p := New(Options{Rate: 64 << 10})
		var live int64
		for range blocks {
			size := 100 + uintptr(sizes.UintN(5000))
			p.Observe(t.Context(), alloctrace.Event{Kind: alloctrace.Allocated, Addr: uintptr(live + 1), Size: size, Align: 1}, nil)
			live += int64(size)
		}
		r := p.Report()
		if len(r.Sites) != 1 || r.Error == 0 || r.Sites[0].Error != r.Error {
			t.Fatalf("the standard error is %d, of the sites %v", r.Error, r.Sites)
		}
		if s := p.Samples(); len(s) != 1 || max(s[0].LiveError, r.Error)-min(s[0].LiveError, r.Error) > 1 || max(s[0].LiveBytes, r.Bytes)-min(s[0].LiveBytes, r.Bytes) > r.Blocks {
			t.Fatalf("the report has %d ± %d, the samples %+v", r.Bytes, r.Error, s)
		}
		z := float64(r.Bytes-live) / float64(r.Error)
		squares += z * z / trials
	}
	if squares < 0.6 || squares > 1.6 { // 1, with a standard deviation of a fourteenth
		t.Errorf("the squares of the differences are %.2f times those of the standard errors, want 1", squares)
	}
	text := Report{Blocks: 70, Bytes: 3 << 20, Error: 300 << 10, Rate: DefaultRate, Sites: []Site{{Blocks: 70, Bytes: 3 << 20, Error: 300 << 10, Smallest: 64, Largest: 64}}}.String()
	for _, want := range []string{"about 3 MiB ± 300 KiB in 70 blocks are live:\n", "  about 3 MiB ± 300 KiB in 70 blocks of 64 B: "} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if r := manyBlocks(3).Report(); r.Error != 0 || r.Sites[0].Error != 0 || strings.Contains(r.String(), "±") {
		t.Errorf("where every block is known, the standard error is %d: %v", r.Error, r)
	}
}

// TestReportOf: a report of some blocks has these, and the block that is asked about is as in Blocks.
func TestReportOf(t *testing.T) {
	p := New(Options{Rate: 1})
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(p))
	siteA(mem, 64)
	index := mem.Child("index")
	for _, size := range []uintptr{100, 200} {
		siteB(index, size)
	}
	var asked []Block
	large := func(b Block) bool {
		asked = append(asked, b)
		return b.Size >= 100
	}
	r := p.ReportOf(large)
	if r.Blocks != 2 || r.Bytes != 300 || len(r.Sites) != 1 || r.Sites[0].Owner != "index" || r.Sites[0].Smallest != 100 {
		t.Errorf("of the large blocks: %v", r)
	}
	if want := p.Blocks(); !reflect.DeepEqual(asked, want) {
		t.Errorf("asked about %v, want %v", asked, want)
	}
	if all := p.ReportOf(func(Block) bool { return true }); all.Blocks != 3 || all.Bytes != 364 || len(all.Sites) != 2 {
		t.Errorf("all blocks are %v", all)
	}
	if none := p.ReportOf(func(Block) bool { return false }).String(); none != "nothing is live\n" {
		t.Errorf("no block is %q", none)
	}
	s := p.SamplesOf(large)
	if len(s) != 1 || s[0].LiveBytes != 300 || s[0].AllocatedBytes != 300 || s[0].LiveBlocks != 2 || fmt.Sprint(s[0].Labels) != "[{allocator index}]" {
		t.Errorf("samples of the large blocks: %+v", s)
	}
}

// manyBlocks returns a Profile that knows 100,000 blocks of so many sites.
func manyBlocks(sites int) *Profile {
	l := New(Options{Rate: 1})
	all := make([]*site, sites)
	for i := range all {
		all[i] = &site{stack: &stack{pcs: []uintptr{uintptr(i + 1)}}}
	}
	for i := range 100_000 {
		l.live.add(uintptr(i+1)<<6, &block{size: 64, by: l.direct, site: all[i%len(all)], sampler: l.sampler.Load()})
	}
	return l
}

// BenchmarkReport measures the text of a report on 100,000 blocks of 50 sites.
func BenchmarkReport(b *testing.B) {
	l := manyBlocks(50)
	b.ReportAllocs()
	for b.Loop() {
		_ = l.Report().String()
	}
}

// brokenWriter fails one write, after so many.
type brokenWriter struct{ writes int }

func (w *brokenWriter) Write(p []byte) (int, error) {
	if w.writes--; w.writes == -1 {
		return 0, errors.New("broken")
	}
	return len(p), nil
}

func TestListingFails(t *testing.T) {
	l := New(Options{Rate: 1})
	siteA(observed(l, new(blockalloc.Heap)), 64)
	for writes := range 2 {
		if err := l.Report().WriteListing(&brokenWriter{writes}); err == nil {
			t.Errorf("the error of write %d is lost", writes+1)
		}
	}
}
