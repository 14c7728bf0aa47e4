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

// unreachable serves the blocks that nothing points to.
func (h handler) unreachable(w http.ResponseWriter, r *http.Request, o options) {
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
		fail(w, http.StatusTooManyRequests, fmt.Errorf("unreachable=1: it stops the program, and is served once in %v: ask again in %d seconds", searchEvery, seconds))
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
