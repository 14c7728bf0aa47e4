package heapprofile

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/adapter.v2"
	"github.com/alloctrace/alloctrace/internal/adapter.v2/inner"
	"github.com/alloctrace/alloctrace/internal/callers"
)

// adapterPackages are those of package adapter.
const adapterPackages = "github.com/alloctrace/alloctrace/internal/adapter.v2/..."

// These stand for a program whose memory an adapter allocates.

//go:noinline
func users(p *alloctrace.Proxy, size uintptr) blockalloc.Block { return adapter.New(p, size) }

//go:noinline
func orders(p *alloctrace.Proxy, size uintptr) blockalloc.Block { return adapter.New(p, size) }

//go:noinline
func twoWays(p *alloctrace.Proxy) { adapter.New(p, 100); inner.Allocate(p, 28) }

// stable leaves out of a text what differs from run to run, and from one Go release to another.
func stable(text string) string {
	for pattern, by := range map[string]string{
		`0x[0-9a-f]+`:                "ADDR",
		`\.go:\d+`:                   ".go:LINE",
		`[0-9.]+[nµm]?s old`:         "AGE old",
		`adapter%2\S+\.block\.func1`: "adapter.CLOSURE", // two names in Go 1.26 and 1.27
		`adapter%2\S+\.Free\.func1`:  "adapter.CLOSURE",
	} {
		text = regexp.MustCompile(pattern).ReplaceAllString(text, by)
	}
	return text
}

// TestReportByCaller: lines show who called an adapter, by as many calls as it takes, or without it.
func TestReportByCaller(t *testing.T) {
	const adapter = "inner.Allocate (inner.go:LINE), adapter.CLOSURE (adapter.go:LINE), adapter%2ev2.call (adapter.go:LINE), adapter%2ev2.(*builder[...]).block (adapter.go:LINE), adapter%2ev2.build[...] (adapter.go:LINE), adapter%2ev2.New (adapter.go:LINE), "
	for name, c := range map[string]struct {
		skip []string
		want string
	}{
		"unique": {nil, `512 B in 5 blocks are live:
  256 B in 2 blocks of 128 B: ` + adapter + `heapprofile.users (calls_test.go:LINE) and 1 more call; the oldest is AGE old
  128 B in 1 block of 128 B: ` + adapter + `heapprofile.orders (calls_test.go:LINE) and 1 more call; AGE old
  100 B in 1 block of 100 B: ` + adapter + `heapprofile.twoWays (calls_test.go:LINE) and 1 more call; AGE old
  28 B in 1 block of 28 B: inner.Allocate (inner.go:LINE), heapprofile.twoWays (calls_test.go:LINE), heapprofile.TestReportByCaller (calls_test.go:LINE); AGE old
`},
		"skipped": {[]string{adapterPackages}, `512 B in 5 blocks are live:
  256 B in 2 blocks of 128 B: heapprofile.users (calls_test.go:LINE), heapprofile.TestReportByCaller (calls_test.go:LINE); the oldest is AGE old
  128 B in 1 block of 128 B: heapprofile.orders (calls_test.go:LINE), heapprofile.TestReportByCaller (calls_test.go:LINE); AGE old
  128 B in 2 blocks of 28 B to 100 B: heapprofile.twoWays (calls_test.go:LINE), heapprofile.TestReportByCaller (calls_test.go:LINE); the oldest is AGE old
`},
	} {
		p := New(Options{Rate: 1, Skip: c.skip})
		mem := observed(p, new(blockalloc.Heap))
		for range 2 {
			users(mem, 128)
		}
		orders(mem, 128)
		twoWays(mem)
		r := p.Report()
		if got := stable(r.String()); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, c.want)
		}
		asJSON, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var back Report
		if err := json.Unmarshal(asJSON, &back); err != nil || back.String() != r.String() {
			t.Errorf("%s: back from JSON: %v\n%s", name, err, back)
		}
		var lines []string
		for _, s := range r.Sites { // as spans have them
			lines = append(lines, "  "+s.String())
		}
		if text := strings.Join(lines, "\n") + "\n"; !strings.HasSuffix(r.String(), text) {
			t.Errorf("%s: sites by themselves are\n%s", name, text)
		}
		for _, b := range p.Blocks() {
			if first := b.Stack[0].Function; strings.HasPrefix(first, "github.com/alloctrace/alloctrace/internal/adapter") != (c.skip == nil) {
				t.Errorf("%s: a block was allocated by %s", name, first)
			}
		}
		for _, s := range p.Samples() {
			if first := callers.Frames(s.Stack)[0].Function; !strings.HasSuffix(first, "inner.Allocate") {
				t.Errorf("%s: a sample begins with %s", name, first)
			}
		}
	}
}

// TestListingIsWhole: a listing has the calls that a report leaves out, of each way to a site.
func TestListingIsWhole(t *testing.T) {
	p := New(Options{Rate: 1, Skip: []string{adapterPackages}})
	twoWays(observed(p, new(blockalloc.Heap)))
	var listing strings.Builder
	if err := p.Report().WriteListing(&listing); err != nil {
		t.Fatal(err)
	}
	got := regexp.MustCompile(`@( ADDR)+`).ReplaceAllString(stable(listing.String()), "@ ADDRS")
	got = regexp.MustCompile(`(?m)\S+/`).ReplaceAllString(got, "")
	const want = `heap profile: 2: 128 [2: 128] @ heapprofile
1: 100 [1: 100] @ ADDRS
#	inner.Allocate	inner.go:LINE
#	adapter.CLOSURE	adapter.go:LINE
#	adapter%2ev2.call	adapter.go:LINE
#	adapter%2ev2.(*builder[...]).block	adapter.go:LINE
#	adapter%2ev2.build[...]	adapter.go:LINE
#	adapter%2ev2.New	adapter.go:LINE
#	heapprofile.twoWays	calls_test.go:LINE
#	heapprofile.TestListingIsWhole	calls_test.go:LINE

1: 28 [1: 28] @ ADDRS
#	inner.Allocate	inner.go:LINE
#	heapprofile.twoWays	calls_test.go:LINE
#	heapprofile.TestListingIsWhole	calls_test.go:LINE

`
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// TestForeignFreesByCaller: their lines show callers likewise.
func TestForeignFreesByCaller(t *testing.T) {
	for name, c := range map[string]struct {
		skip []string
		want string
	}{
		"unique": {nil, `  128 B at ADDR: allocated through Proxy "a" by inner.Allocate (inner.go:LINE), adapter.CLOSURE (adapter.go:LINE), adapter%2ev2.call (adapter.go:LINE), adapter%2ev2.(*builder[...]).block (adapter.go:LINE), adapter%2ev2.build[...] (adapter.go:LINE), adapter%2ev2.New (adapter.go:LINE), heapprofile.users (calls_test.go:LINE) and 1 more call; freed through Proxy "a", child "x", by inner.Free (inner.go:LINE), adapter.CLOSURE (adapter.go:LINE), adapter%2ev2.call (adapter.go:LINE), adapter%2ev2.Free (adapter.go:LINE) and 1 more call
  64 B at ADDR: allocated through Proxy "a" by inner.Allocate (inner.go:LINE), adapter.CLOSURE (adapter.go:LINE), adapter%2ev2.call (adapter.go:LINE), adapter%2ev2.(*builder[...]).block (adapter.go:LINE), adapter%2ev2.build[...] (adapter.go:LINE), adapter%2ev2.New (adapter.go:LINE), heapprofile.orders (calls_test.go:LINE) and 1 more call; freed through Proxy "a", child "x", by inner.Free (inner.go:LINE), adapter.CLOSURE (adapter.go:LINE), adapter%2ev2.call (adapter.go:LINE), adapter%2ev2.Free (adapter.go:LINE) and 1 more call
`},
		"skipped": {[]string{adapterPackages}, `  128 B at ADDR: allocated through Proxy "a" by heapprofile.users (calls_test.go:LINE), heapprofile.TestForeignFreesByCaller (calls_test.go:LINE); freed through Proxy "a", child "x", by heapprofile.TestForeignFreesByCaller (calls_test.go:LINE)
  64 B at ADDR: allocated through Proxy "a" by heapprofile.orders (calls_test.go:LINE), heapprofile.TestForeignFreesByCaller (calls_test.go:LINE); freed through Proxy "a", child "x", by heapprofile.TestForeignFreesByCaller (calls_test.go:LINE)
`},
	} {
		f := newFamily(Options{Rate: 1, Skip: c.skip}, new(blockalloc.Heap))
		for _, b := range []blockalloc.Block{users(f.a, 128), orders(f.a, 64)} {
			if err := adapter.Free(f.x, b); err != nil {
				t.Fatal(err)
			}
		}
		text := f.p.Report().String()
		_, got, _ := strings.Cut(stable(text), "are wrong:\n")
		if got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, c.want)
		}
	}
}

func TestShown(t *testing.T) {
	stack := func(names ...string) (frames []Frame) {
		for _, name := range names {
			for _, letter := range name {
				frames = append(frames, Frame{Function: string(letter)})
			}
		}
		return frames
	}
	for name, c := range map[string]struct {
		stacks [][]Frame
		want   []int
	}{
		"none":                    {nil, []int{}},
		"one":                     {[][]Frame{stack("abcdefg")}, []int{4}},
		"different":               {[][]Frame{stack("abcdefg"), stack("xbcdefg")}, []int{4, 4}},
		"different at the end":    {[][]Frame{stack("abcdefg"), stack("abcdefx")}, []int{7, 7}},
		"one of them":             {[][]Frame{stack("abcdefg"), stack("abcdefx"), stack("xyz")}, []int{7, 7, 4}},
		"each as much as it must": {[][]Frame{stack("abcdefg"), stack("abcdefx"), stack("abcdxyz")}, []int{7, 7, 5}},
		"equal":                   {[][]Frame{stack("abcdefg"), stack("abcdefg")}, []int{4, 4}},
		"a part":                  {[][]Frame{stack("abcdef"), stack("abcdefg")}, []int{7, 7}},
		"as far out as is shown":  {[][]Frame{stack("abcdefghijklmno", "1"), stack("abcdefghijklmno", "2")}, []int{16, 16}},
		"farther out":             {[][]Frame{stack("abcdefghijklmnop", "1"), stack("abcdefghijklmnop", "2")}, []int{4, 4}},
		"nothing known":           {[][]Frame{nil, stack("a"), nil}, []int{4, 4, 4}},
	} {
		if got := shown(c.stacks); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestSkipIsNoPath: who gives another thing than import paths hears what to give.
func TestSkipIsNoPath(t *testing.T) {
	const want = `heapprofile: New: Options.Skip has "./adapter": it is a folder: use import paths, such as "example.com/adapter", or "example.com/adapter/..." for all packages below as well`
	defer func() {
		if got := recover(); got != want {
			t.Errorf("%v\nwant %s", got, want)
		}
	}()
	New(Options{Skip: []string{"./adapter"}})
}
