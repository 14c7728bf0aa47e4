package pprof_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/pprof"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// TestUnreachable: what was lost is served, as JSON and as text, and once a minute at most.
func TestUnreachable(t *testing.T) {
	if runtime.GOOS == "js" {
		return // Go writes no heap dump there
	}
	hook := heapprofile.New(heapprofile.Options{Rate: 1})
	mem := alloctrace.Wrap(new(blockalloc.System), alloctrace.WithHooks(hook))
	done := make(chan error)
	go func() {
		var err error
		for range 8 { // an address that is left anywhere can hide one
			if _, err = mem.Allocate(blockalloc.BlockLayout(4096)); err != nil {
				break
			}
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	get := func(h http.Handler, method, query string, status int, contentType string) string {
		t.Helper()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "/?"+query, nil))
		if w.Code != status || w.Header().Get("Content-Type") != contentType {
			t.Errorf("%s %s: status %d, %s: %s", method, query, w.Code, w.Header().Get("Content-Type"), w.Body)
		}
		return w.Body.String()
	}
	const asJSON, asText = "application/json", "text/plain; charset=utf-8"
	h := pprof.UnreachableHandler(hook)
	if body := get(h, http.MethodHead, "", http.StatusOK, asJSON); body != "" {
		t.Errorf("HEAD: %q", body)
	}
	var u heapprofile.Unreachable
	if err := json.Unmarshal([]byte(get(h, http.MethodGet, "", http.StatusOK, asJSON)), &u); err != nil || u.Report.Blocks < 4 || u.Looked != 8 {
		t.Errorf("%+v, %v", u, err)
	}
	if body := get(h, http.MethodGet, "", http.StatusTooManyRequests, asText); !strings.Contains(body, "ask again in ") {
		t.Errorf("%q", body)
	}
	if body := get(pprof.UnreachableHandler(hook), http.MethodGet, "debug=1", http.StatusOK, asText); !strings.Contains(body, " blocks are unreachable from Go:\n") {
		t.Errorf("%q", body)
	}
	for _, wrong := range []string{"debug=all", "debug=-1", "%zz"} {
		get(h, http.MethodGet, wrong, http.StatusBadRequest, asText)
	}
	get(h, http.MethodPost, "", http.StatusMethodNotAllowed, asText)
	runtime.KeepAlive(mem)
}
