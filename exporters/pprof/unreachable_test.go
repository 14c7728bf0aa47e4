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
		t.Skip("Go writes no heap dump here")
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
	h := pprof.Handler(hook)
	if body := get(h, http.MethodHead, "unreachable=1", http.StatusOK, asJSON); body != "" {
		t.Errorf("HEAD: %q", body)
	}
	var u heapprofile.Unreachable
	if err := json.Unmarshal([]byte(get(h, http.MethodGet, "unreachable=1", http.StatusOK, asJSON)), &u); err != nil || u.Report.Blocks < 4 || u.Looked != 8 {
		t.Errorf("%+v, %v", u, err)
	}
	if body := get(h, http.MethodGet, "unreachable=1", http.StatusTooManyRequests, asText); !strings.Contains(body, "ask again in ") {
		t.Errorf("%q", body)
	}
	if body := get(pprof.Handler(hook), http.MethodGet, "unreachable=1&debug=1", http.StatusOK, asText); !strings.Contains(body, " blocks are unreachable from Go:\n") {
		t.Errorf("%q", body)
	}
	for _, wrong := range []string{"unreachable=all", "unreachable=1&at=peak", "unreachable=1&seconds=1", "unreachable=1&older=1h", "unreachable=1&lifetimes=1", "unreachable=1&combined=1"} {
		get(h, http.MethodGet, wrong, http.StatusBadRequest, asText)
	}
	runtime.KeepAlive(mem)
}
