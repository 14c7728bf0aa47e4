package pprof

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// A search for unreachable blocks is served once in searchEvery, and has searchTime to be answered.
const (
	searchEvery = time.Minute
	searchTime  = time.Minute
)

// searches are those that a handler has made.
type searches struct {
	mu   sync.Mutex
	next time.Time // when the next one is served
}

// begin returns how long to wait for the next search, 0 if it may begin.
func (s *searches) begin() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if wait := s.next.Sub(now); wait > 0 {
		return wait
	}
	s.next = now.Add(searchEvery)
	return 0
}

// UnreachableHandler returns a handler that serves the live blocks of p that nothing points to any more, as JSON: a
// [heapprofile.Unreachable]. With the parameter debug=1 it is a text.
//
//	mux.Handle("GET /debug/pprof/offheap/unreachable", pprof.UnreachableHandler(profile))
//
// It is a handler of its own because it stops the program while the Go heap is dumped, for seconds if that is large, and because the Go
// runtime can end the program in a dump: see [heapprofile.Profile.Unreachable]. So it is for a program that may be restarted. It
// serves once a minute at most. Status 429 says that it was asked too early, and 501 that Go writes no dump on this platform.
//
// It shows the names of functions: serve it only where net/http/pprof is served. It panics if p is nil.
func UnreachableHandler(p *heapprofile.Profile) http.Handler {
	require("UnreachableHandler", p != nil)
	return &unreachableHandler{profile: p}
}

type unreachableHandler struct {
	profile  *heapprofile.Profile
	searches searches
}

func (h *unreachableHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !begins(w, r) {
		return
	}
	o, err := parseOptions(r.URL.RawQuery, debugParameter)
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	contentType := "application/json"
	if o.text {
		contentType = "text/plain; charset=utf-8"
	}
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", contentType)
		return
	}
	if wait := h.searches.begin(); wait > 0 {
		seconds := int(wait/time.Second) + 1
		w.Header().Set("Retry-After", strconv.Itoa(seconds))
		fail(w, http.StatusTooManyRequests, fmt.Errorf("the search stops the program, and is served once in %v: ask again in %d seconds", searchEvery, seconds))
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(searchTime)) // else the server's holds
	u, err := h.profile.Unreachable(r.Context())
	switch {
	case r.Context().Err() != nil: // nobody waits for it any more
	case errors.Is(err, errors.ErrUnsupported):
		fail(w, http.StatusNotImplemented, err)
	case err != nil:
		fail(w, http.StatusInternalServerError, err)
	case o.text:
		w.Header().Set("Content-Type", contentType)
		_, _ = io.WriteString(w, u.String()) // the client has gone
	default:
		w.Header().Set("Content-Type", contentType)
		_ = json.NewEncoder(w).Encode(u) // the client has gone
	}
}
