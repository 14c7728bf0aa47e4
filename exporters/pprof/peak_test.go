package pprof

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

//go:noinline
func atThePeak(t testing.TB, a blockalloc.Allocator) blockalloc.Block { return allocate(t, a, 10<<10) }

//go:noinline
func ofTheCache(t testing.TB, a blockalloc.Allocator) blockalloc.Block { return allocate(t, a, 2<<10) }

//go:noinline
func afterThePeak(t testing.TB, a blockalloc.Allocator) blockalloc.Block {
	return allocate(t, a, 1<<10)
}

// TestPeak: go tool pprof shows what was live at the peak, and not what is now.
func TestPeak(t *testing.T) {
	hook := heapprofile.New(heapprofile.Options{Rate: 1, Peak: true})
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithName("mem"), alloctrace.WithHooks(hook))
	other := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithName("other"), alloctrace.WithHooks(hook))
	if err := other.Child("cache").Free(ofTheCache(t, other.Child("cache"))); err != nil {
		t.Fatal(err)
	}
	if err := mem.Free(atThePeak(t, mem)); err != nil {
		t.Fatal(err)
	}
	kept := afterThePeak(t, mem)
	url := serve(t, hook)
	for query, want := range map[string][2]string{
		"": {"afterThePeak", "atThePeak"}, "?at=now": {"afterThePeak", "atThePeak"}, "?at=peak": {"atThePeak", "afterThePeak"},
		"?at=peak&proxy=mem": {"atThePeak", "ofTheCache"}, "?at=peak&proxy=other": {"ofTheCache", "atThePeak"}, "?at=peak&proxy=other&child=cache": {"ofTheCache", "atThePeak"},
	} {
		if got := goTool(t, "-top", "-sample_index=inuse_space", url+query); !strings.Contains(got, "."+want[0]) || strings.Contains(got, "."+want[1]) {
			t.Errorf("%s: no %s, or also %s, in\n%s", query, want[0], want[1], got)
		}
	}
	for query, peak := range map[string]*heapprofile.Peak{"/?at=peak&debug=1": hook.Peak(), "/?at=peak&proxy=other&child=cache&debug=1": hook.PeakOf("other", "cache")} {
		if got := string(body(t, Handler(hook), httptest.NewRequest("GET", query, nil))); got != peak.Get().String() || !strings.Contains(got, "were live at the peak:") {
			t.Errorf("%s: %s", query, got)
		}
	}
	if got := goTool(t, "-top", url+"?at=peak"); !strings.Contains(got, "for 10kB, 100% of 10kB total") {
		t.Errorf("no 10 KiB at the peak in\n%s", got)
	}
	file := filepath.Join(t.TempDir(), "peak.pprof")
	var written bytes.Buffer
	if err := WritePeak(&written, hook.NewPeak()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, written.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := goTool(t, "-top", file); !strings.Contains(got, "for 1kB, 100% of 1kB total") || !strings.Contains(got, ".afterThePeak") {
		t.Errorf("a later peak is\n%s", got)
	}
	if err := WritePeak(&brokenWriter{}, hook.Peak()); err == nil {
		t.Error("a file that cannot be written is no error")
	}
	if err := mem.Free(kept); err != nil {
		t.Error(err)
	}
}

// TestBadPeak: what cannot be had says what would be right.
func TestBadPeak(t *testing.T) {
	known, unknown := heapprofile.New(heapprofile.Options{Peak: true}), heapprofile.New(heapprofile.Options{})
	const apart = "at=peak is of off-heap memory alone, and of one moment: leave out "
	for _, c := range []struct {
		profile     *heapprofile.Profile
		query, want string
	}{
		{known, "at=noon", "at=noon: use peak, or now"},
		{known, "at=peak&combined=1", apart + "combined"},
		{known, "at=peak&seconds=1", apart + "seconds"},
		{known, "proxy=mem", "proxy and child are of a peak: add at=peak"},
		{known, "at=peak&proxy=m%0A", `proxy=m\n&child=: this profile has no peak of that: use one of the first 64 names that it has observed`},
		{known, "at=peak&proxy=mem&combined=1", apart + "combined"},
		{unknown, "at=peak", "at=peak: this profile does not know its peak: have the program set Peak in heapprofile.Options"},
	} {
		w := httptest.NewRecorder()
		Handler(c.profile).ServeHTTP(w, httptest.NewRequest("GET", "/?"+c.query, nil))
		if w.Code != http.StatusBadRequest || w.Body.String() != "offheap profile: "+c.want+"\n" {
			t.Errorf("%s: %d, %q\nwant %q", c.query, w.Code, w.Body, c.want)
		}
	}
}
