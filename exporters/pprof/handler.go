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
	"strings"
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
//	at=peak     returns what was live when most was, as WritePeak does of p.Peak; with debug=1 as a text; it needs Peak of heapprofile.Options
//	proxy=name  with at=peak, of the Proxies of that name, as WritePeak does of p.PeakOf; child=name of their children of that name
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
	o, err := parseOptions(r.URL.RawQuery, parameters...)
	var peak *heapprofile.Peak
	if err == nil && o.peak {
		peak, err = h.peak(o)
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
		if taken, err = h.take(r, o, peak); err != nil {
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
	case o.text && peak != nil:
		_, _ = io.WriteString(w, peak.Get().String()) // likewise
	case o.text:
		h.text(w, r)
	case taken == nil:
		_ = json.NewEncoder(w).Encode(lifetimes) // the client has gone
	default:
		_ = taken.Write(w) // the client has gone
	}
}

// peak returns the one that is asked for.
func (h handler) peak(o options) (k *heapprofile.Peak, err error) {
	if k = h.profile.Peak(); k == nil {
		return nil, errors.New("at=peak: this profile does not know its peak: have the program set Peak in heapprofile.Options")
	}
	if o.proxy != "" || o.child != "" {
		if k = h.profile.PeakOf(o.proxy, o.child); k == nil {
			return nil, fmt.Errorf("proxy=%s&child=%s: this profile has no peak of that: use one of the first 64 names that it has observed",
				text.Line(o.proxy, maxValue), text.Line(o.child, maxValue))
		}
	}
	return k, nil
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

	proxy, child string // of the peak
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

// A parameter of a request has values that are right, says what the answer is of then, and takes in a value. Take returns the name that counts as
// given, "" if the value says the same as no parameter, and false if it is wrong.
type parameter struct {
	name, values, answer string
	take                 func(o *options, v string) (given string, ok bool)
}

var parameters = []parameter{
	{"pinned", "1 or json for who pins memory, or 0", "is of now, and of off-heap memory alone", func(o *options, v string) (string, bool) {
		name := "pinned"
		if o.json = v == "json"; o.json {
			name, v = "pinned=json", "1"
		}
		return takeBool(name, v, &o.pinned)
	}},
	{"lifetimes", "1 for how long blocks live, pprof for that as a profile, or 0", "is of all blocks, without a text", func(o *options, v string) (string, bool) {
		if o.asProfile = v == "pprof"; o.asProfile {
			v = "1"
		}
		return takeBool("lifetimes", v, &o.lifetimes)
	}},
	{"older", times, "is of what is live now", func(o *options, v string) (string, bool) { return takeTime("older", v, &o.older) }},
	{"since", times, "is of what is live now", func(o *options, v string) (string, bool) { return takeTime("since", v, &o.since) }},
	{"at", "peak, or now", "is of off-heap memory alone, and of one moment", func(o *options, v string) (string, bool) {
		o.peak = v == "peak"
		return nameIf(o.peak, "at=peak"), o.peak || v == "now"
	}},
	{"proxy", "", "is of a peak", func(o *options, v string) (string, bool) { o.proxy = v; return "proxy", true }},
	{"child", "", "is of a peak", func(o *options, v string) (string, bool) { o.child = v; return "child", true }},
	debugParameter,
	{"combined", "1 for Go's heap profile too, or 0", "", func(o *options, v string) (string, bool) { return takeBool("combined", v, &o.combined) }},
	{"seconds", "a number above 0, up to " + strconv.Itoa(maxSeconds), "", func(o *options, v string) (string, bool) {
		seconds, err := strconv.ParseFloat(v, 64)
		o.seconds, o.wait = text.Line(v, maxValue), time.Duration(seconds*float64(time.Second))
		return "seconds", err == nil && seconds > 0 && seconds <= maxSeconds && o.wait != 0
	}},
}

var debugParameter = parameter{"debug", "1 for text, or 0", "is for text, which is of off-heap memory alone", func(o *options, v string) (string, bool) {
	n, err := strconv.ParseUint(v, 10, 31)
	o.text = n > 0
	return nameIf(o.text, "debug"), err == nil
}}

// together are the parameters that go with each other, in the order of parameters. All others exclude each other.
var together = [][2]string{{"pinned", "debug"}, {"older", "since"}, {"at=peak", "proxy"}, {"at=peak", "child"}, {"at=peak", "debug"},
	{"proxy", "child"}, {"proxy", "debug"}, {"child", "debug"}, {"debug", "seconds"}, {"combined", "seconds"}}

const times = "how long ago, such as 1h30m, or a time, such as 2006-01-02T15:04:05Z"

func nameIf(given bool, name string) string { return map[bool]string{true: name}[given] }

func takeBool(name, v string, is *bool) (given string, ok bool) {
	b, err := strconv.ParseBool(v)
	*is = b
	return nameIf(b, name), err == nil
}

// takeTime takes in a time as RFC 3339 has it, or so long ago.
func takeTime(name, v string, at *time.Time) (given string, ok bool) {
	ago, err := time.ParseDuration(v)
	if *at = time.Now().Add(-ago); err != nil || ago < 0 {
		*at, err = time.Parse(time.RFC3339, v)
	}
	return name, err == nil
}

func parseOptions(query string, of ...parameter) (o options, err error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return o, fmt.Errorf("query %s: %w: escape it as URLs are", text.Line(query, maxValue), err)
	}
	var given, answers []string
	for _, p := range of {
		v := values.Get(p.name)
		if v == "" {
			continue
		}
		name, ok := p.take(&o, v)
		if !ok {
			return o, fmt.Errorf("%s=%s: use %s", p.name, text.Line(v, maxValue), p.values)
		}
		if name != "" {
			given, answers = append(given, name), append(answers, p.answer)
		}
	}
	for i, name := range given {
		apart := slices.DeleteFunc(slices.Clone(given[i+1:]), func(other string) bool { return slices.Contains(together, [2]string{name, other}) })
		if len(apart) > 0 {
			return o, fmt.Errorf("%s %s: leave out %s", name, answers[i], strings.Join(apart, ", "))
		}
	}
	if (o.proxy != "" || o.child != "") && !o.peak {
		return o, errors.New("proxy and child are of a peak: add at=peak")
	}
	return o, nil
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
func (h handler) take(r *http.Request, o options, peak *heapprofile.Peak) (*profile.Profile, error) {
	now := func() (*profile.Profile, error) { return build(h.profile), nil }
	switch {
	case peak != nil:
		return buildPeak(peak), nil
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
