package pprof

import (
	"fmt"
	"net/http"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/google/pprof/profile"

	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/internal/callers"
)

// Handler returns a handler that serves p. Of the request's parameters,
//
//	debug=1     is for text, the most bytes in use first
//	combined=1  is for Go's heap profile and p as one, as WriteCombined does it
//	seconds=30  is for what has changed within that time
//
// Whoever can reach it learns the names of functions: serve it where net/http/pprof is
// served. It may be called by several goroutines at once.
func Handler(p *hooks.Profile) http.Handler { return handler{p} }

type handler struct{ profile *hooks.Profile }

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("debug") != "" && r.FormValue("debug") != "0" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		h.text(w)
		return
	}
	taken, err := h.take(r)
	if err != nil {
		http.Error(w, "offheap profile: "+err.Error(), http.StatusBadRequest)
		return
	}
	if r.Context().Err() != nil {
		return // nobody waits for it any more
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="offheap.pb.gz"`)
	_ = taken.Write(w) // the client has gone
}

// take returns the profile that the request asks for.
func (h handler) take(r *http.Request) (*profile.Profile, error) {
	now := func() (*profile.Profile, error) { return build(h.profile), nil }
	if c := r.FormValue("combined"); c != "" && c != "0" {
		now = func() (*profile.Profile, error) { return combine(h.profile) }
	}
	text := r.FormValue("seconds")
	if text == "" {
		return now()
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil || !(seconds > 0 && seconds <= maxSeconds) {
		return nil, fmt.Errorf("seconds=%s: use a number above 0, up to %d", text, maxSeconds)
	}
	before, err := now()
	if err != nil {
		return nil, err
	}
	wait := time.NewTimer(time.Duration(seconds * float64(time.Second)))
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-r.Context().Done():
		return before, nil
	}
	after, err := now()
	if err != nil {
		return nil, err
	}
	before.Scale(-1)
	taken, err := profile.Merge([]*profile.Profile{before, after})
	if err == nil {
		taken.TimeNanos, taken.DurationNanos = before.TimeNanos, after.TimeNanos-before.TimeNanos
	}
	return taken, err
}

const maxSeconds = 3600

// text writes what is in use, and in brackets what was allocated, with its calls.
func (h handler) text(w http.ResponseWriter) {
	samples := h.profile.Samples()
	var sum hooks.ProfileSample
	for _, s := range samples {
		sum.LiveBlocks += s.LiveBlocks
		sum.LiveBytes += s.LiveBytes
		sum.AllocatedBlocks += s.AllocatedBlocks
		sum.AllocatedBytes += s.AllocatedBytes
	}
	t := tabwriter.NewWriter(w, 1, 8, 1, '\t', 0)
	defer t.Flush()
	// The numbers are estimates already, which "heapprofile" says to go tool pprof.
	line := func(s hooks.ProfileSample) {
		fmt.Fprintf(t, "%d: %d [%d: %d] @", s.LiveBlocks, s.LiveBytes, s.AllocatedBlocks, s.AllocatedBytes)
	}
	fmt.Fprint(t, "heap profile: ")
	line(sum)
	fmt.Fprint(t, " heapprofile\n")
	for _, s := range samples {
		line(s)
		for _, pc := range s.Stack {
			fmt.Fprintf(t, " %#x", pc)
		}
		for _, l := range s.Labels {
			fmt.Fprintf(t, "\n#\t%s=%s", l.Key, l.Value)
		}
		for _, f := range callers.Frames(s.Stack) {
			fmt.Fprintf(t, "\n#\t%#x\t%s\t%s:%d", f.PC, f.Function, f.File, f.Line)
		}
		fmt.Fprint(t, "\n\n")
	}
	stats := h.profile.Stats()
	fmt.Fprintf(t, "# rate = %d\n# sampled = %d, of which live = %d, not remembered = %d\n# places = %d, stacks = %d\n",
		h.profile.Rate(), stats.Sampled, stats.Live, stats.Untracked, stats.Places, stats.Stacks)
}
