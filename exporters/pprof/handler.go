package pprof

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/google/pprof/profile"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/internal/callers"
	"github.com/alloctrace/alloctrace/internal/text"
)

// Handler returns a handler that serves p. The request can have parameters:
//
//	debug=1     returns a text, the most bytes in use first
//	combined=1  returns Go's heap profile and p as one, as WriteCombined does
//	seconds=30  returns what changes within that time, 3600 seconds at most; with debug=1 what grows, as heapprofile.Growth says
//	older=1h    returns what is live and was allocated so long ago, or earlier; what was allocated is what is live
//	since=1h    returns what is live and was allocated since; also since=2006-01-02T15:04:05Z, and with older what is between both
//	at=peak     returns what was live when most was, as WritePeak does of p.Peak; it needs Peak of heapprofile.Options
//	lifetimes=1 returns how long blocks live, as JSON: a list of heapprofile.Lifetime; lifetimes=pprof as WriteLifetimes does;
//	            it needs Lifetimes of heapprofile.Options
//	pinned=1    returns who pins memory of the allocators, as WritePinned does; with debug=1 as a text; pinned=json is a heapprofile.PinnedReport
//
// The allocators are those whose memory pinned=1 is of: pass the Proxies that p observes.
//
// With seconds the handler extends the deadline of the server's WriteTimeout, by
// [http.ResponseController]. If a parameter is wrong, or seconds are too many for a deadline that
// cannot be extended, it answers at once with status 400 and a text that says what would be
// right.
//
// The profile has the names of functions and labels: serve it only where net/http/pprof is
// served. Several goroutines may call the handler at once. Handler panics if p or an allocator is nil.
func Handler(p *heapprofile.Profile, of ...blockalloc.Allocator) http.Handler {
	require("Handler", p != nil)
	if slices.Contains(of, nil) {
		panic("pprof: Handler: an allocator is nil: pass the Proxy that the profile observes")
	}
	return handler{p, slices.Clone(of)}
}

var errNoLifetimes = errors.New("this profile does not know lifetimes: have the program set Lifetimes in heapprofile.Options")

type handler struct {
	profile *heapprofile.Profile
	of      []blockalloc.Allocator // for pinned=1
}

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !begins(w, r) {
		return
	}
	o, err := parseOptions(r.URL.RawQuery)
	if err == nil && o.peak && h.profile.Peak() == nil {
		err = errors.New("at=peak: this profile does not know its peak: have the program set Peak in heapprofile.Options")
	}
	if err == nil && o.wait > 0 {
		err = extendDeadline(w, r, o)
	}
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	if o.pinned {
		h.servePinned(w, r, o)
		return
	}
	var lifetimes []heapprofile.Lifetime
	if o.lifetimes {
		if lifetimes = h.profile.Lifetimes(); lifetimes == nil {
			fail(w, http.StatusBadRequest, errNoLifetimes)
			return
		}
	}
	var taken *profile.Profile
	switch {
	case r.Method != http.MethodGet || o.text:
	case o.lifetimes && o.asProfile:
		taken = buildLifetimes(lifetimes, h.profile.Rate())
	case !o.lifetimes:
		if taken, err = h.take(r, o); err != nil {
			fail(w, http.StatusInternalServerError, err)
			return
		}
	}
	var growth string
	if r.Method == http.MethodGet && o.text && o.wait > 0 {
		mark := h.profile.Mark()
		wait(r, o.wait)
		growth = mark.Growth().String()
	}
	if r.Context().Err() != nil {
		return // nobody waits for it any more
	}
	setType(w, o.text, o.lifetimes && !o.asProfile)
	switch {
	case r.Method == http.MethodHead:
	case o.text && o.wait > 0:
		_, _ = io.WriteString(w, growth) // the client has gone
	case o.text:
		h.text(w, r)
	case taken == nil:
		_ = json.NewEncoder(w).Encode(lifetimes) // the client has gone
	default:
		_ = taken.Write(w) // the client has gone
	}
}

// setType says what the answer is: a text, JSON or a profile.
func setType(w http.ResponseWriter, isText, isJSON bool) {
	switch {
	case isText:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	case isJSON:
		w.Header().Set("Content-Type", "application/json")
	default:
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Disposition", `attachment; filename="offheap.pb.gz"`)
	}
}

// begins reports whether a request is to be answered. It refuses one of another method than GET and HEAD.
func begins(w http.ResponseWriter, r *http.Request) bool {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		fail(w, http.StatusMethodNotAllowed, fmt.Errorf("method %s: use GET or HEAD", text.Line(r.Method, maxValue)))
		return false
	}
	return true
}

// fail answers with an error that go tool pprof shows.
func fail(w http.ResponseWriter, status int, err error) {
	w.Header().Set("X-Go-Pprof", "1")
	http.Error(w, "offheap profile: "+err.Error(), status)
}

// options are a request's parameters.
type options struct {
	text, combined, peak, lifetimes, pinned, json bool

	asProfile bool // lifetimes are wanted as one

	seconds string
	wait    time.Duration

	older, since time.Time // zero if they are not given
}

// keeps reports whether only a part of the live blocks is asked for.
func (o *options) keeps() bool { return !o.older.IsZero() || !o.since.IsZero() }

func (o *options) keep(b heapprofile.Block) bool {
	return (o.older.IsZero() || !b.Allocated.After(o.older)) && !b.Allocated.Before(o.since)
}

const (
	maxSeconds = 3600
	maxValue   = 100 // bytes of a parameter that an error repeats
)

func parseOptions(query string) (o options, err error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return o, fmt.Errorf("query %s: %w: escape it as URLs are", text.Line(query, maxValue), err)
	}
	if o.text, err = parseDebug(values); err != nil {
		return o, err
	}
	if v := values.Get("combined"); v != "" {
		if o.combined, err = strconv.ParseBool(v); err != nil {
			return o, fmt.Errorf("combined=%s: use 1 for Go's heap profile too, or 0", text.Line(v, maxValue))
		}
	}
	if v := values.Get("seconds"); v != "" {
		o.seconds = text.Line(v, maxValue)
		seconds, err := strconv.ParseFloat(v, 64)
		o.wait = time.Duration(seconds * float64(time.Second))
		if err != nil || !(seconds > 0 && seconds <= maxSeconds) || o.wait == 0 {
			return o, fmt.Errorf("seconds=%s: use a number above 0, up to %d", o.seconds, maxSeconds)
		}
	}
	switch v := values.Get("at"); v {
	case "", "now":
	case "peak":
		o.peak = true
	default:
		return o, fmt.Errorf("at=%s: use peak, or now", text.Line(v, maxValue))
	}
	if v := values.Get("lifetimes"); v == "pprof" {
		o.lifetimes, o.asProfile = true, true
	} else if v != "" {
		if o.lifetimes, err = strconv.ParseBool(v); err != nil {
			return o, fmt.Errorf("lifetimes=%s: use 1 for how long blocks live, pprof for that as a profile, or 0", text.Line(v, maxValue))
		}
	}
	if v := values.Get("pinned"); v == "json" {
		o.pinned, o.json = true, true
	} else if v != "" {
		if o.pinned, err = strconv.ParseBool(v); err != nil {
			return o, fmt.Errorf("pinned=%s: use 1 or json for who pins memory, or 0", text.Line(v, maxValue))
		}
	}
	if o.older, err = parseTime(values, "older"); err != nil {
		return o, err
	}
	if o.since, err = parseTime(values, "since"); err != nil {
		return o, err
	}
	if o.pinned && (o.keeps() || o.lifetimes || o.combined || o.peak || o.wait > 0 || o.json && o.text) {
		return o, errors.New("pinned is of now, and of off-heap memory alone: leave out at, older, since, lifetimes, combined and seconds, and debug with json")
	}
	if o.lifetimes && (o.keeps() || o.text || o.combined || o.peak || o.wait > 0) {
		return o, errors.New("lifetimes is of all blocks, without a text: leave out at, older, since, debug, combined and seconds")
	}
	if o.keeps() && (o.text || o.combined || o.peak || o.wait > 0) {
		return o, errors.New("older and since are of what is live now: leave out at, debug, combined and seconds")
	}
	if o.peak && (o.text || o.combined || o.wait > 0) {
		return o, errors.New("at=peak is of off-heap memory alone, and of one moment: leave out debug, combined and seconds")
	}
	if o.text && o.combined {
		return o, errors.New("debug=1 is for text, which is of off-heap memory alone: leave out combined, or debug")
	}
	return o, nil
}

// parseDebug returns whether a text is wanted.
func parseDebug(values url.Values) (bool, error) {
	v := values.Get("debug")
	if v == "" {
		return false, nil
	}
	n, err := strconv.ParseUint(v, 10, 31)
	if err != nil {
		return false, fmt.Errorf("debug=%s: use 1 for text, or 0", text.Line(v, maxValue))
	}
	return n > 0, nil
}

// parseTime returns the time that a parameter says, zero if it is not there: as RFC 3339 has it, or so long ago.
func parseTime(values url.Values, name string) (time.Time, error) {
	v := values.Get(name)
	if v == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(v); err == nil && ago >= 0 {
		return time.Now().Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, v)
	if err != nil {
		return at, fmt.Errorf("%s=%s: use how long ago, such as 1h30m, or a time, such as 2006-01-02T15:04:05Z", name, text.Line(v, maxValue))
	}
	return at, nil
}

// extendDeadline lets an answer be written that begins after o.wait, by which the server's
// WriteTimeout may have passed. An error says what is too short for that.
func extendDeadline(w http.ResponseWriter, r *http.Request, o options) error {
	if deadline, ok := r.Context().Deadline(); ok && time.Until(deadline) <= o.wait {
		return fmt.Errorf("seconds=%s: the request has to end in %v: use fewer seconds, or a longer timeout", o.seconds, time.Until(deadline).Round(time.Millisecond))
	}
	server, ok := r.Context().Value(http.ServerContextKey).(*http.Server)
	if !ok || server.WriteTimeout <= 0 {
		return nil
	}
	err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(server.WriteTimeout + o.wait))
	if err != nil && server.WriteTimeout <= o.wait {
		return fmt.Errorf("seconds=%s: the server's WriteTimeout is %v, and the http.ResponseWriter, a %T, cannot extend it: use fewer seconds, a longer WriteTimeout, or give that type an Unwrap method",
			o.seconds, server.WriteTimeout, w)
	}
	return nil
}

// take returns the profile that the request asks for. If the client goes away meanwhile, it
// returns what there is.
func (h handler) take(r *http.Request, o options) (*profile.Profile, error) {
	now := func() (*profile.Profile, error) { return build(h.profile), nil }
	switch {
	case o.peak:
		return buildPeak(h.profile.Peak()), nil
	case o.keeps():
		return buildOf(h.profile.SamplesOf(o.keep), h.profile.Rate(), time.Now()), nil
	case o.combined:
		now = func() (*profile.Profile, error) { return combine(h.profile) }
	}
	before, err := now()
	if err != nil || o.wait == 0 {
		return before, err
	}
	if wait(r, o.wait); r.Context().Err() != nil {
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

// wait returns after d, or when the client goes away.
func wait(r *http.Request, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	}
}

// text writes what is in use, and in brackets what was allocated, with its calls. It ends
// early if the client goes away.
func (h handler) text(w http.ResponseWriter, r *http.Request) {
	samples := h.profile.Samples()
	var sum heapprofile.Sample
	for _, s := range samples {
		sum.LiveBlocks += s.LiveBlocks
		sum.LiveBytes += s.LiveBytes
		sum.AllocatedBlocks += s.AllocatedBlocks
		sum.AllocatedBytes += s.AllocatedBytes
	}
	t := tabwriter.NewWriter(w, 1, 8, 1, '\t', 0)
	defer t.Flush()
	// The numbers are estimates already, which "heapprofile" says to go tool pprof.
	line := func(s heapprofile.Sample) {
		fmt.Fprintf(t, "%d: %d [%d: %d] @", s.LiveBlocks, s.LiveBytes, s.AllocatedBlocks, s.AllocatedBytes)
	}
	fmt.Fprint(t, "heap profile: ")
	line(sum)
	fmt.Fprint(t, " heapprofile\n")
	for _, s := range samples {
		if r.Context().Err() != nil {
			return
		}
		line(s)
		for _, pc := range s.Stack {
			fmt.Fprintf(t, " %#x", pc)
		}
		for _, l := range s.Labels {
			fmt.Fprintf(t, "\n#\t%s=%s", text.Line(l.Key, text.MaxName), text.Line(l.Value, text.MaxName))
		}
		for _, f := range callers.Frames(s.Stack) {
			fmt.Fprintf(t, "\n#\t%#x\t%s\t%s:%d", f.PC, text.Line(f.Function, text.MaxText), text.Line(f.File, text.MaxText), f.Line)
		}
		fmt.Fprint(t, "\n\n")
	}
	stats := h.profile.Stats()
	fmt.Fprintf(t, "# rate = %d\n# sampled = %d, of which live = %d, not remembered = %d\n# sites = %d, stacks = %d\n",
		h.profile.Rate(), stats.Sampled, stats.Live, stats.Untracked, stats.Sites, stats.Stacks)
}
