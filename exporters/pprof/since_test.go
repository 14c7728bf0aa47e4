package pprof

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// TestOlderAndSince: of what is live, what was allocated until and since some times, as durations and as times.
func TestOlderAndSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := heapprofile.New(heapprofile.Options{Rate: 1})
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(hook))
		begin := time.Now()
		var blocks []blockalloc.Block
		for i := range 4 { // at 0 h, 1 h, 2 h and 3 h
			blocks = append(blocks, allocate(t, mem, 1<<i))
			if i == 1 {
				if err := mem.Free(allocate(t, mem, 1000)); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Hour)
		}
		at := func(hours int) string { return begin.Add(time.Duration(hours) * time.Hour).Format(time.RFC3339) }
		for query, want := range map[string]int64{
			"":                                   1 + 2 + 4 + 8,
			"older=1h":                           1 + 2 + 4 + 8,
			"older=61m":                          1 + 2 + 4,
			"older=3h":                           1 + 2,
			"older=4h1ns":                        0,
			"since=1h":                           8,
			"since=2h30m":                        4 + 8,
			"since=3h":                           2 + 4 + 8,
			"since=0s":                           0,
			"since=" + at(1):                     2 + 4 + 8,
			"since=" + at(1) + "&older=" + at(2): 2 + 4,
			"older=" + at(0):                     1,
		} {
			w := httptest.NewRecorder()
			Handler(hook).ServeHTTP(w, httptest.NewRequest("GET", "/?"+query, nil))
			if w.Code != http.StatusOK {
				t.Fatalf("%s: %s", query, w.Body)
			}
			got := make(map[string]int64)
			for _, s := range parse(t, w.Body.Bytes()).Sample {
				for i, kind := range []string{"allocated", "", "live"} {
					if kind != "" {
						got[kind] += s.Value[i+1]
					}
				}
			}
			allocated := want
			if query == "" {
				allocated += 1000
			}
			if is := map[string]int64{"allocated": allocated, "live": want}; want > 0 && !maps.Equal(got, is) || want == 0 && len(got) > 0 {
				t.Errorf("%q: %v, want %v", query, got, is)
			}
		}
		for _, b := range blocks {
			if err := mem.Free(b); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestGrowthText: with debug and seconds the answer is what has grown meanwhile.
func TestGrowthText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := heapprofile.New(heapprofile.Options{Rate: 1})
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(hook))
		allocate(t, mem, 100)
		get := func(method string, d time.Duration) *httptest.ResponseRecorder {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			w := httptest.NewRecorder()
			Handler(hook).ServeHTTP(w, httptest.NewRequestWithContext(ctx, method, "/?debug=1&seconds=60", nil))
			return w
		}
		go func() {
			time.Sleep(30 * time.Second)
			allocate(t, mem, 2000)
		}()
		w := get("GET", time.Hour)
		const want = "1.95 KiB more is live than 1m0s before: of 100 B then nothing freed, 1.95 KiB added in 1 block, the newest 30s ago\n"
		if got := w.Body.String(); w.Code != http.StatusOK || !strings.HasPrefix(got, want) || strings.Count(got, "\n") != 2 || w.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Errorf("%d, %v, %s\nwant %s", w.Code, w.Header(), got, want)
		}
		begin := time.Now()
		if w := get("HEAD", time.Hour); w.Code != http.StatusOK || w.Body.Len() > 0 || time.Since(begin) > 0 {
			t.Errorf("HEAD: %d, %q after %v", w.Code, w.Body, time.Since(begin))
		}
	})
}

// TestLifetimes: the answer is what the hook knows, and 400 if it does not.
func TestLifetimes(t *testing.T) {
	hook := heapprofile.New(heapprofile.Options{Rate: 1, Lifetimes: true})
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(hook))
	if err := mem.Free(allocate(t, mem, 100)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		profile      *heapprofile.Profile
		query        string
		status       int
		contentType  string
		answer, want any
	}{
		{hook, "lifetimes=1", http.StatusOK, "application/json", new([]heapprofile.Lifetime), new(hook.Lifetimes())},
		{heapprofile.New(heapprofile.Options{Lifetimes: true}), "lifetimes=true", http.StatusOK, "application/json", new([]heapprofile.Lifetime), &[]heapprofile.Lifetime{}},
		{hook, "lifetimes=0", http.StatusOK, "application/octet-stream", nil, nil},
		{hook, "lifetimes=some", http.StatusBadRequest, "text/plain; charset=utf-8", nil, "lifetimes=some: use 1 for how long blocks live, pprof for that as a profile, or 0"},
		{hook, "lifetimes=1&at=peak", http.StatusBadRequest, "text/plain; charset=utf-8", nil, "lifetimes is of all blocks, without a text: leave out at=peak"},
		{
			heapprofile.New(heapprofile.Options{}), "lifetimes=1", http.StatusBadRequest, "text/plain; charset=utf-8", nil,
			"this profile does not know lifetimes: have the program set Lifetimes in heapprofile.Options",
		},
	} {
		w := httptest.NewRecorder()
		Handler(c.profile).ServeHTTP(w, httptest.NewRequest("GET", "/?"+c.query, nil))
		if w.Code != c.status || w.Header().Get("Content-Type") != c.contentType {
			t.Errorf("%s: %d, %v", c.query, w.Code, w.Header())
		}
		switch want := c.want.(type) {
		case nil:
		case string:
			if w.Body.String() != "offheap profile: "+want+"\n" {
				t.Errorf("%s: %q, want %q", c.query, w.Body, want)
			}
		default:
			if err := json.Unmarshal(w.Body.Bytes(), c.answer); err != nil || !reflect.DeepEqual(c.answer, want) {
				t.Errorf("%s: %+v, %v, want %+v", c.query, c.answer, err, want)
			}
		}
	}
}

// TestBadTimes: what makes no sense says what would.
func TestBadTimes(t *testing.T) {
	h := Handler(heapprofile.New(heapprofile.Options{}))
	for query, want := range map[string]string{
		"older=yesterday":    "older=yesterday: use how long ago, such as 1h30m, or a time, such as 2006-01-02T15:04:05Z",
		"since=-1h":          "since=-1h: use how long ago, such as 1h30m, or a time, such as 2006-01-02T15:04:05Z",
		"since=1h&debug=1":   "since is of what is live now: leave out debug",
		"older=1h&at=peak":   "older is of what is live now: leave out at=peak",
		"older=1h&seconds=1": "older is of what is live now: leave out seconds",
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/?"+query, nil))
		if w.Code != http.StatusBadRequest || w.Body.String() != fmt.Sprintf("offheap profile: %s\n", want) {
			t.Errorf("%s: %d, %q\nwant %q", query, w.Code, w.Body, want)
		}
	}
}
