package heapprofile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
)

// observed returns a Proxy around inner that delivers to l.
func observed(l *Profile, inner blockalloc.Allocator) *alloctrace.Proxy {
	return alloctrace.Wrap(inner, alloctrace.WithHooks(l))
}

func allocateOne(t *testing.T, a blockalloc.Allocator, size uintptr) blockalloc.Block {
	t.Helper()
	b, err := a.Allocate(blockalloc.Layout{Size: size, Align: 8})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// wantNoneInFilter: the filter knows of no block and no release, and of one more if l is complete.
func wantNoneInFilter(t *testing.T, l *Profile) {
	t.Helper()
	want := int32(0)
	if l.live.complete.Load() {
		want = 1
	}
	for i := range l.live.filter {
		if n := l.live.filter[i].Load(); n != want {
			t.Errorf("filter %d has %d blocks at the end, want %d", i, n, want)
		}
	}
}

func TestBlocks(t *testing.T) {
	l := New(Options{Rate: 1})
	p := observed(l, new(blockalloc.Heap))
	first, second := allocateOne(t, p, 100), allocateOne(t, p, 200)
	if err := p.Free(first); err != nil {
		t.Fatal(err)
	}
	second, err := p.Reallocate(second, 300)
	if err != nil {
		t.Fatal(err)
	}
	live := l.Blocks()
	if len(live) != 1 || live[0].Addr != second.Addr() || live[0].Size != 300 || live[0].Align != 8 || live[0].Allocated.IsZero() {
		t.Fatalf("live are %+v, want %v alone", live, second)
	}
	if f := live[0].Stack[0]; path.Base(f.Function) != "heapprofile.TestBlocks" || path.Base(f.File) != "blocks_test.go" || f.Line == 0 {
		t.Errorf("it was allocated by %+v", f)
	}
	if _, err := p.Reallocate(second, 0); err != nil {
		t.Fatal(err)
	}
	if live := l.Blocks(); len(live) != 0 {
		t.Errorf("at the end %+v is live", live)
	}
	wantNoneInFilter(t, l)
}

// TestTakesBack: a block whose release failed is live as before, by whom it was; a
// release of what is no live block releases none.
func TestTakesBack(t *testing.T) {
	l := New(Options{Rate: 1})
	heap := new(blockalloc.Heap)
	fail := false
	p := observed(l, failing.If(heap, func(c failing.Call) bool { return fail && c.Op != failing.OpAllocate }))
	b := allocateOne(t, p, 100)
	before := l.Blocks()
	check := func(after string) {
		t.Helper()
		if live := l.Blocks(); len(live) != 1 || live[0].Addr != b.Addr() || !live[0].Allocated.Equal(before[0].Allocated) || !slices.Equal(live[0].Stack, before[0].Stack) {
			t.Errorf("after %s live are %+v, want %+v", after, live, before)
		}
	}
	fail = true
	if err := p.Free(b); !errors.Is(err, failing.ErrInjected) {
		t.Fatalf("Free: %v", err)
	}
	check("a free that failed")
	if _, err := p.Reallocate(b, 200); !errors.Is(err, failing.ErrInjected) {
		t.Fatalf("Reallocate: %v", err)
	}
	check("a reallocation that failed")
	fail = false
	wrong, err := blockalloc.FromRaw(b.Pointer(), blockalloc.Layout{Size: 50, Align: 8})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Free(wrong); !errors.Is(err, blockalloc.ErrNotOwned) {
		t.Fatalf("Free with a wrong size: %v", err)
	}
	check("a free with a wrong size")
	if err := p.Free(b); err != nil {
		t.Fatal(err)
	}
	if err := p.Free(b); !errors.Is(err, blockalloc.ErrDoubleFree) {
		t.Fatalf("second Free: %v", err)
	}
	if live := l.Blocks(); len(live) != 0 {
		t.Errorf("after a second free %+v is live", live)
	}
}

// TestFailureAlone: a failure that comes alone takes back no earlier release of the same address.
func TestFailureAlone(t *testing.T) {
	l := New(Options{Rate: 1})
	e := alloctrace.Event{Kind: alloctrace.Allocated, Addr: 4096, Size: 64, Align: 64}
	l.Observe(t.Context(), e, nil)
	e.Kind = alloctrace.Freeing
	l.Observe(t.Context(), e, nil)
	e.Kind = alloctrace.Allocated
	l.Observe(t.Context(), e, nil)
	before := l.Blocks()
	e.Kind = alloctrace.ReallocateFailed
	l.Observe(t.Context(), e, blockalloc.ErrClosed)
	if live := l.Blocks(); len(live) != 1 || !live[0].Allocated.Equal(before[0].Allocated) {
		t.Errorf("live are %+v, want %+v", live, before)
	}
}

// TestTakesBackOneOfSeveral: others may have been released since.
func TestTakesBackOneOfSeveral(t *testing.T) {
	l := New(Options{Rate: 1})
	var addrs []uintptr
	for addr := uintptr(4096); len(addrs) < 5; addr += 64 {
		if l.live.shard(addr) == l.live.shard(4096) {
			addrs = append(addrs, addr)
		}
	}
	part := l.Attach(&alloctrace.Attachment{ID: 1}).(*part)
	tell := func(k alloctrace.Kind, addr uintptr, err error) {
		part.Observe(t.Context(), alloctrace.Event{Kind: k, Addr: addr, Size: 64, Align: 64}, err)
	}
	for _, addr := range addrs {
		tell(alloctrace.Allocated, addr, nil)
	}
	for _, addr := range addrs {
		tell(alloctrace.Freeing, addr, nil)
	}
	tell(alloctrace.FreeFailed, addrs[1], failing.ErrInjected)
	tell(alloctrace.FreeFailed, addrs[3], failing.ErrInjected)
	live := l.Blocks()
	if len(live) != 2 || live[0].Addr != addrs[1] || live[1].Addr != addrs[3] {
		t.Fatalf("live are %+v, want those at %#x and %#x", live, addrs[1], addrs[3])
	}
	tell(alloctrace.Allocated, addrs[1], nil) // its release was not told
	for _, i := range []int{1, 3} {
		tell(alloctrace.Freeing, addrs[i], nil)
	}
	tell(alloctrace.FreeFailed, addrs[1], failing.ErrInjected)
	tell(alloctrace.Freeing, addrs[1], nil)
	if live := l.Blocks(); len(live) != 0 {
		t.Errorf("live are %+v, want none", live)
	}
	for _, addr := range addrs {
		part.released(addr, 64)
	}
	if n := part.pending.Load(); n != 0 {
		t.Errorf("%d releases are pending at the end", n)
	}
	wantNoneInFilter(t, l)
}

// TestReportIsUnbiased: what is reported of samples is right on average, for small blocks and
// for large ones, and all that was remembered is forgotten.
func TestReportIsUnbiased(t *testing.T) {
	const rate, runs = 4096, 60
	for _, size := range []uintptr{16, 1000, 4096, 100_000} {
		blocks := 64 * rate / int(size)
		blocks = max(blocks, 50)
		var sum, squares float64
		for range runs {
			l := New(Options{Rate: rate})
			for i := range blocks {
				l.Observe(t.Context(), alloctrace.Event{Kind: alloctrace.Allocated, Addr: uintptr(i+1) << 12, Size: size, Align: 8}, nil)
			}
			r := l.Report()
			var bytes int64
			for _, site := range r.Sites {
				bytes += site.Bytes
			}
			if math.Abs(float64(bytes-r.Bytes)) > float64(len(r.Sites)) {
				t.Fatalf("the sites have %d bytes, and all of them %d", bytes, r.Bytes)
			}
			ratio := float64(r.Bytes) / float64(blocks*int(size))
			sum += ratio
			squares += ratio * ratio
			for i := range blocks {
				l.Observe(t.Context(), alloctrace.Event{Kind: alloctrace.Freeing, Addr: uintptr(i+1) << 12, Size: size, Align: 8}, nil)
			}
			if live := l.Blocks(); len(live) != 0 {
				t.Fatalf("size %d: %d blocks are live at the end", size, len(live))
			}
		}
		mean := sum / runs
		deviation := math.Sqrt(max(0, squares/runs-mean*mean) / runs)
		if math.Abs(mean-1) > 6*deviation+0.001 {
			t.Errorf("size %d: on average %.3f ± %.3f of the truth", size, mean, deviation)
		}
	}
}

// TestSetRate: the rate is that of what is allocated from then on, and 0 remembers nothing.
func TestSetRate(t *testing.T) {
	l := New(Options{Rate: 1})
	p := observed(l, new(blockalloc.Heap))
	want := func(blocks int, rate int64) {
		t.Helper()
		if r := l.Report(); len(l.Blocks()) != blocks || r.Rate != rate {
			t.Errorf("%d blocks are live, with rate %d; want %d and %d", len(l.Blocks()), r.Rate, blocks, rate)
		}
	}
	first := allocateOne(t, p, 64)
	l.SetRate(0)
	for range 100 {
		siteA(p, 4096)
	}
	if l.Rate() != 0 {
		t.Errorf("the rate is %d, want 0", l.Rate())
	}
	want(1, 1)
	l.SetRate(1 << 30)
	siteA(p, 64)
	want(1, 1<<30)
	l.SetRate(1)
	siteA(p, 128)
	want(2, 1)
	if r := l.Report(); r.Bytes != 64+128 {
		t.Errorf("%d bytes are live, want %d", r.Bytes, 64+128)
	}
	if err := p.Free(first); err != nil {
		t.Fatal(err)
	}
	want(1, 1)
	defer func() {
		if text, _ := recover().(string); !strings.HasPrefix(text, "heapprofile: Profile.SetRate(-1): use ") {
			t.Errorf("SetRate(-1) panics with %q", text)
		}
	}()
	l.SetRate(-1)
}

// TestOwner: blocks of one place are told apart by who owns them.
func TestOwner(t *testing.T) {
	type key struct{}
	l := New(Options{Rate: 1, Owner: func(ctx context.Context) string {
		owner, _ := ctx.Value(key{}).(string)
		return owner
	}})
	p := observed(l, new(blockalloc.Heap))
	for i, owner := range []string{"", "index", "query", "index"} {
		siteA(p.WithContext(context.WithValue(t.Context(), key{}, owner)), 64<<i)
	}
	got := make(map[string]int64)
	for _, s := range l.Report().Sites {
		got[s.Owner] += s.Bytes
		if s.Owner == "index" && !strings.Contains(s.String(), ` in 2 blocks of 128 B to 512 B of "index": heapprofile.siteA (`) {
			t.Errorf("the site is %q", s)
		}
	}
	if got[""] != 64 || got["index"] != 128+512 || got["query"] != 256 || len(got) != 3 {
		t.Errorf("bytes by owner are %v", got)
	}
	if live := l.Blocks(); len(live) != 4 || live[2].Owner != "query" {
		t.Errorf("live are %+v", live)
	}
	labelled := sums(l, func(s Sample) string { return fmt.Sprint(s.Labels) })
	want := map[string][4]int64{"[{owner }]": {1, 64, 1, 64}, "[{owner index}]": {2, 640, 2, 640}, "[{owner query}]": {1, 256, 1, 256}}
	if !maps.Equal(labelled, want) {
		t.Errorf("samples are %v, want %v", labelled, want)
	}
}

// TestOfChildren: unless told otherwise the owner is the child.
func TestOfChildren(t *testing.T) {
	l := New(Options{Rate: 1})
	p := observed(l, new(blockalloc.Heap))
	siteA(p, 64)
	siteA(p.Child("index"), 128)
	live := l.Blocks()
	if len(live) != 2 || live[0].Owner != "" || live[1].Owner != "index" {
		t.Errorf("live are %+v", live)
	}
}
