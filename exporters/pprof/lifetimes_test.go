package pprof

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

//go:noinline
func forTwoHours(t testing.TB, a blockalloc.Allocator) blockalloc.Block { return allocate(t, a, 2<<10) }

//go:noinline
func forAMinute(t testing.TB, a blockalloc.Allocator) blockalloc.Block { return allocate(t, a, 5<<10) }

// TestWriteLifetimes: go tool pprof tells by the tags what has lived for long, and what has been live for long.
func TestWriteLifetimes(t *testing.T) {
	var written bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		hook := heapprofile.New(heapprofile.Options{Rate: 1, Lifetimes: true})
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(hook))
		ends := forTwoHours(t, mem)
		forTwoHours(t, mem.Child("cache"))
		time.Sleep(2 * time.Hour)
		if err := mem.Free(ends); err != nil {
			t.Fatal(err)
		}
		ends = forAMinute(t, mem)
		forAMinute(t, mem)
		time.Sleep(time.Minute)
		if err := mem.Free(ends); err != nil {
			t.Fatal(err)
		}
		if err := WriteLifetimes(&written, hook); err != nil {
			t.Fatal(err)
		}
		if err := WriteLifetimes(&brokenWriter{}, hook); err == nil {
			t.Error("a file that cannot be written is no error")
		}
		w := httptest.NewRecorder()
		Handler(hook).ServeHTTP(w, httptest.NewRequest("GET", "/?lifetimes=pprof", nil))
		if got := parse(t, w.Body.Bytes()); w.Code != http.StatusOK || len(got.Sample) != 4 || w.Header().Get("Content-Type") != "application/octet-stream" {
			t.Errorf("the handler answers %d, %v, %v", w.Code, w.Header(), got)
		}
	})
	file := filepath.Join(t.TempDir(), "lifetimes.pprof")
	if err := os.WriteFile(file, written.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for flags, want := range map[string][2]string{
		"":                        {"7kB total", ""},
		"-tagfocus=lifetime=1hr:": {".forTwoHours", ".forAMinute"},
		"-tagfocus=lifetime=:1hr": {".forAMinute", ".forTwoHours"},
		"-sample_index=inuse_space -tagfocus=age=1hr:":         {".forTwoHours", ".forAMinute"},
		"-sample_index=inuse_space -tagfocus=age=:1hr":         {".forAMinute", ".forTwoHours"},
		"-sample_index=inuse_space -tagfocus=cache":            {".forTwoHours", ".forAMinute"},
		"-sample_index=ended_objects -tagfocus=lifetime=:600s": {".forAMinute", ".forTwoHours"},
		"-sample_index=inuse_objects -tagignore=age=:600s":     {".forTwoHours", ".forAMinute"},
	} {
		got := goTool(t, append(append([]string{"-top"}, strings.Fields(flags)...), file)...)
		if !strings.Contains(got, want[0]) || want[1] != "" && strings.Contains(got, want[1]) {
			t.Errorf("%s: no %s, or also %s, in\n%s", flags, want[0], want[1], got)
		}
	}
	if err := WriteLifetimes(&written, heapprofile.New(heapprofile.Options{})); err == nil || err.Error() != "pprof: WriteLifetimes: this profile does not know lifetimes: have the program set Lifetimes in heapprofile.Options" {
		t.Errorf("without the option: %v", err)
	}
}

// TestAgeClasses: what has been live for 65 minutes is in the class below an hour, and that for 75 above. With older=1h both are there.
func TestAgeClasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := heapprofile.New(heapprofile.Options{Rate: 1, Lifetimes: true})
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(hook))
		older := allocate(t, mem, 2000)
		time.Sleep(10 * time.Minute)
		younger := allocate(t, mem, 1000)
		time.Sleep(65 * time.Minute)
		above, all := int64(0), int64(0)
		for _, s := range buildLifetimes(hook.Lifetimes(), hook.Rate()).Sample {
			if time.Duration(s.NumLabel["age"][0]) >= time.Hour {
				above += s.Value[3]
			}
		}
		for _, s := range parse(t, body(t, Handler(hook), httptest.NewRequest("GET", "/?older=1h", nil))).Sample {
			all += s.Value[3]
		}
		if above != 2000 || all != 3000 {
			t.Errorf("the classes above an hour have %d bytes, and %d are older; want 2000, and 3000", above, all)
		}
		if err := errors.Join(mem.Free(older), mem.Free(younger)); err != nil {
			t.Error(err)
		}
	})
}
