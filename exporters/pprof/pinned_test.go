package pprof

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

//go:noinline
func keepsOne(t testing.TB, a blockalloc.Allocator) blockalloc.Block { return allocate(t, a, 1024) }

//go:noinline
func comesLater(t testing.TB, a blockalloc.Allocator) blockalloc.Block { return allocate(t, a, 1024) }

// pinning is a program of which one old block and one unknown block pin the memory of others, in a Slab on a Heap.
type pinning struct {
	hook *heapprofile.Profile
	mem  *alloctrace.Proxy
	slab *blockalloc.Slab
	left []blockalloc.Block
}

func newPinning(t *testing.T) *pinning {
	t.Helper()
	for range 10 {
		p := &pinning{hook: heapprofile.New(heapprofile.Options{Rate: 1})}
		var err error
		if p.slab, err = blockalloc.NewSlab(new(blockalloc.Heap), 16<<10); err != nil {
			t.Fatal(err)
		}
		p.mem = alloctrace.Wrap(p.slab, alloctrace.WithHooks(p.hook))
		p.left = append(p.left, keepsOne(t, p.mem), comesLater(t, p.mem)) // in a block with room for 16
		p.left = append(p.left, allocate(t, p.slab, 2048))                // which nobody observes, one of 8
		if err := p.mem.Free(allocate(t, p.mem, 512)); err != nil {       // an empty block is left
			t.Fatal(err)
		}
		if p.slab.Stats().Blocks == 3 {
			t.Cleanup(func() { p.close(t) })
			return p
		}
		p.close(t) // its stack has moved meanwhile, and with it the goroutine to another shard
	}
	t.Fatal("two blocks are never side by side")
	return nil
}

func (p *pinning) close(t *testing.T) {
	for _, b := range p.left {
		if err := p.slab.Free(b); err != nil {
			t.Error(err)
		}
	}
	if err := p.slab.Close(); err != nil {
		t.Error(err)
	}
}

// TestPinned: go tool pprof shows who pins memory, also what unknown blocks pin and nobody, and the sum is what the Slab says.
func TestPinned(t *testing.T) {
	p := newPinning(t)
	stats := p.slab.Stats()
	if want := int64(14+14+16) << 10; stats.BlockBytes-stats.LiveSlotBytes != want { // KiB of the old block, the unknown one and nobody
		t.Fatalf("%+v, want %d bytes free", stats, want)
	}
	file := filepath.Join(t.TempDir(), "pinned.pprof")
	var written bytes.Buffer
	if err := WritePinned(&written, p.hook, p.mem); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, written.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{file, serve(t, p.hook, p.mem) + "?pinned=1"} {
		got := goTool(t, "-top", from)
		for _, want := range []string{"Type: pinned", "for 44kB, 100% of 44kB total", "16kB 36.36% 36.36%       16kB 36.36%  nobody: empty", "14kB 31.82%   100%       14kB 31.82%  unknown blocks", ".keepsOne"} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in\n%s", want, got)
			}
		}
		if strings.Contains(got, "comesLater") {
			t.Errorf("the younger block is charged in\n%s", got)
		}
	}
	if err := WritePinned(&brokenWriter{}, p.hook, p.mem); err == nil {
		t.Error("a file that cannot be written is no error")
	}
	if err := WritePinned(&written, p.hook, new(blockalloc.Heap)); err == nil || !strings.HasPrefix(err.Error(), "pprof: WritePinned: heapprofile: ") {
		t.Errorf("of a Heap: %v", err)
	}
}

// TestPinnedSampled: when sampled, unknown blocks are stood for by others, and have no sample of their own.
func TestPinnedSampled(t *testing.T) {
	p := newPinning(t)
	p.hook.SetRate(1 << 20)
	var written bytes.Buffer
	if err := WritePinned(&written, p.hook, p.mem); err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, s := range parse(t, written.Bytes()).Sample {
		sum += s.Value[0]
	}
	if sum != (14+16)<<10 {
		t.Errorf("the samples have %d bytes, want those of the known block and of nobody", sum)
	}
}

// TestServesPinned: the text and the JSON are those of the report, and what cannot be had says what would be right.
func TestServesPinned(t *testing.T) {
	p := newPinning(t)
	get := func(h http.Handler, method, query string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "/?"+query, nil))
		return w
	}
	h := Handler(p.hook, p.mem)
	w := get(h, "GET", "pinned=1&debug=1")
	for _, want := range []string{
		"44 KiB are free and pinned:\n  Slab: 44 KiB of 48 KiB in 3 spans\nby\n  14 KiB in 1 span: pprof.allocate (pprof_test.go:", "pprof.keepsOne (pinned_test.go:",
		"  14 KiB by unknown blocks, none of which was sampled\n  16 KiB by nobody: no block is live there, it is kept for reuse\n",
	} {
		if !strings.Contains(w.Body.String(), want) || w.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Errorf("no %q in %v\n%s", want, w.Header(), w.Body)
		}
	}
	w = get(h, "GET", "pinned=json")
	var got heapprofile.PinnedReport
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("%v: %v\n%s", err, w.Header(), w.Body)
	}
	want, err := p.hook.Pinned(p.mem)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() == "" || len(got.Sites) != 1 || got.Bytes != want.Bytes || got.Known != want.Known || got.Unknown != want.Unknown || got.Empty != want.Empty ||
		!reflect.DeepEqual(got.Sites[0].Stack, want.Sites[0].Stack) || !reflect.DeepEqual(got.Allocators, want.Allocators) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	if w := get(h, "HEAD", "pinned=1"); w.Code != http.StatusOK || w.Body.Len() != 0 {
		t.Errorf("HEAD: %d, %q", w.Code, w.Body)
	}
	const apart = " is of now, and of off-heap memory alone: leave out "
	for _, c := range []struct {
		h           http.Handler
		query, want string
	}{
		{h, "pinned=some", "pinned=some: use 1 or json for who pins memory, or 0"},
		{h, "pinned=1&at=peak&lifetimes=1", "pinned" + apart + "lifetimes, at=peak"},
		{h, "pinned=1&older=1h", "pinned" + apart + "older"},
		{h, "pinned=json&debug=1", "pinned=json" + apart + "debug"},
		{Handler(p.hook), "pinned=1", "pinned=1: this handler does not know whose memory that is: have the program pass its Proxy to Handler"},
		{Handler(p.hook, new(blockalloc.Heap)), "pinned=1", "pinned=1: heapprofile: Profile.Pinned: unsupported operation: a Heap has no Pool or Slab below it: pass a Proxy of one"},
	} {
		if w := get(c.h, "GET", c.query); w.Code != http.StatusBadRequest || w.Body.String() != "offheap profile: "+c.want+"\n" {
			t.Errorf("%s: %d, %q\nwant %q", c.query, w.Code, w.Body, c.want)
		}
	}
}
