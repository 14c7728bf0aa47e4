package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/charmbracelet/x/term"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/history"
	"github.com/alloctrace/alloctrace/hooks/blackbox"
)

// A reading is what the flags say of how recordings are read.
type reading struct {
	alone, asJSON        bool
	proxy, child, region *string
	stack                *regexp.Regexp
	most, calls          int    // rows, and calls of a row, that a text has
	to                   string // where output goes: - is the standard output
}

// readingFlags adds the flags that all commands have which read recordings, and those that select sites.
func readingFlags(f *flag.FlagSet, selects bool) *reading {
	r := &reading{to: "-"}
	f.BoolVar(&r.alone, "alone", false, leaveOutOld)
	if !selects {
		return r
	}
	name := func(to **string, flag, of string) {
		f.Func(flag, "count the "+of+" of this `NAME` alone; an empty one counts what has none", func(s string) error { *to = &s; return nil })
	}
	name(&r.proxy, "proxy", "Proxy")
	name(&r.child, "child", "child")
	name(&r.region, "region", "region")
	f.Func("stack", "count what was allocated by a function that matches this `REGEXP` alone", func(s string) (err error) {
		r.stack, err = regexp.Compile(s)
		return err
	})
	return r
}

func (r *reading) jsonFlag(f *flag.FlagSet) {
	f.BoolVar(&r.asJSON, "json", false, "print all as JSON: times are nanoseconds since the recording began")
}

func (r *reading) textFlags(f *flag.FlagSet, rows string) {
	r.jsonFlag(f)
	f.IntVar(&r.most, "n", 20, "print the first `N` "+rows+", or all if it is less than 0")
	f.IntVar(&r.calls, "calls", mostCalls, "print the innermost `N` calls of a stack, or all if it is less than 0")
}

// rows returns how many of so many rows a text has.
func (r *reading) rows(all int) int {
	if r.most < 0 {
		return all
	}
	return min(r.most, all)
}

// options returns those that keep the sites that were selected.
func (r *reading) options() (o history.Options) {
	if r.proxy == nil && r.child == nil && r.region == nil && r.stack == nil {
		return o
	}
	known := make(map[*history.Site]bool)
	o.Keep = func(s *history.Site, region string) bool {
		keep, ok := known[s]
		if !ok {
			keep = is(r.proxy, s.Proxy) && is(r.child, s.Child) && r.inStack(s.Stack)
			known[s] = keep
		}
		return keep && is(r.region, region)
	}
	return o
}

func is(want *string, name string) bool { return want == nil || *want == name }

func (r *reading) inStack(stack []recording.Frame) bool {
	if r.stack == nil {
		return true
	}
	for _, f := range stack {
		if r.stack.MatchString(f.Function) {
			return true
		}
	}
	return false
}

// leaveOutOld is what the flag -alone does.
const leaveOutOld = "leave out FILE.old, which is read before FILE if it is of the same process"

func (r *reading) open(path string, errOut io.Writer) (*history.Recording, error) {
	return open(path, r.alone, errOut)
}

// open opens a recording, whose progress is shown if errOut is a terminal.
func open(path string, alone bool, errOut io.Writer) (*history.Recording, error) {
	in, err := history.Open(path, alone)
	if err != nil {
		return nil, err
	}
	in.Progress = shownProgress(errOut)
	return in, nil
}

// shownProgress returns a function that shows how far something is, nil if errOut is no terminal.
func shownProgress(errOut io.Writer) func(done, of int64) {
	if !isTerminal(errOut) {
		return nil
	}
	return progress(errOut)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(f.Fd())
}

// progress returns a function that writes how many percent are done, and removes that in the end.
func progress(w io.Writer) func(done, of int64) {
	last := int64(-1)
	return func(done, of int64) {
		percent := int64(100)
		if of > 0 {
			percent = min(100, 100*done/of)
		}
		switch {
		case percent == last:
		case percent == 100:
			fmt.Fprint(w, "\r      \r")
		default:
			fmt.Fprintf(w, "\r%3d %%", percent)
		}
		last = percent
	}
}

// statusOf returns what the program exits with, after err or if recordings leave something open.
func statusOf(err error, all ...*history.Unknown) (int, error) {
	if err != nil {
		return failed, err
	}
	var problems []string
	for _, u := range all {
		problems = append(problems, missing(u)...)
	}
	if len(problems) > 0 {
		return damaged, errors.New(strings.Join(problems, "; "))
	}
	return whole, nil
}

// missing returns what is wrong with a recording.
func missing(u *history.Unknown) (list []string) {
	for _, d := range u.Damage {
		list = append(list, line(d))
	}
	if u.Dropped > 0 {
		list = append(list, fmt.Sprintf("%s dropped at %s: what comes after is uncertain", were(u.Dropped, "event"), number(u.Gaps-int64(len(u.Damage)), "place")))
	}
	return list
}

// unknowns returns what a recording leaves open, a sentence each.
func unknowns(u *history.Unknown) []string {
	list := missing(u)
	for _, of := range []struct {
		history.Amount
		are string
	}{
		{u.Older, "acquired before the recording and released in it: before that they are not counted as live"},
		{u.Unmatched, "released without an acquisition that is in the recording"},
		{u.Lost, "acquired, and their release is not in the recording, but another block at their address is"},
		{u.Uncertain, "counted as live, and may have been released where events are missing"},
	} {
		if of.Blocks != 0 {
			list = append(list, fmt.Sprintf("%s in %s %s", counter.FormatBytes(of.Bytes), were(of.Blocks, "block"), of.are))
		}
	}
	return list
}

func were(n int64, noun string) string {
	if n == 1 {
		return number(n, noun) + " was"
	}
	return number(n, noun) + " were"
}

// writeUnknown writes what a recording leaves open, for people.
func writeUnknown(b *strings.Builder, u *history.Unknown) { writeUnknownOf(b, u, "") }

func writeUnknownOf(b *strings.Builder, u *history.Unknown, of string) {
	if list := unknowns(u); len(list) > 0 {
		fmt.Fprintf(b, "\nnot known%s:\n  %s\n", of, strings.Join(list, "\n  "))
	}
}

// moment returns the time that s says: since the recording began, or as a date.
func moment(s string, r *history.Recording) (at time.Duration, err error) {
	if at, err = time.ParseDuration(s); err != nil {
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return 0, fmt.Errorf("%q is no moment: use the time since the recording began, such as 90s or 1h2m, or a date, such as 2026-11-30T09:12:44Z", s)
		}
		at = t.Sub(r.Header().Began)
	}
	first, last := r.Span()
	if at > last || at < 0 || at < first && first > time.Second {
		return 0, fmt.Errorf("%s is not in the recording, which is from %s to %s", s, since(first), since(last))
	}
	return at, nil
}

// momentOr returns the time that s says, or another if s is empty.
func momentOr(s string, r *history.Recording, other time.Duration) (time.Duration, error) {
	if s == "" {
		return other, nil
	}
	return moment(s, r)
}

// parseBytes returns the bytes that s says, as in 4096, 4K or 1.5MiB.
func parseBytes(s string) (int64, error) {
	digits := strings.TrimRight(s, "KMGTiB")
	n, err := strconv.ParseFloat(digits, 64)
	shift := 0
	switch unit := s[len(digits):]; unit {
	case "", "B":
	case "K", "KiB", "M", "MiB", "G", "GiB", "T", "TiB":
		shift = 10 * (1 + strings.IndexByte("KMGT", unit[0]))
	default:
		err = strconv.ErrSyntax
	}
	if n *= float64(int64(1) << shift); err != nil || !(0 <= n && n < 1<<63) {
		return 0, fmt.Errorf("%q is no number of bytes: use one such as 4096, 4KiB or 1.5MiB", s)
	}
	return int64(n), nil
}

// since writes a time since the beginning for people.
func since(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Second:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Microsecond).String()
}

// amount writes an amount for people.
func amount(a history.Amount) string {
	return counter.FormatBytes(a.Bytes) + " in " + number(a.Blocks, "block")
}

// ownedBy returns the Proxy and the child of something as they follow it.
func ownedBy(proxy, child string) (s string) {
	if proxy != "" {
		s = fmt.Sprintf(" of %q", proxy)
	}
	if child != "" {
		s += fmt.Sprintf(", child %q", child)
	}
	return s
}

// ownerName returns the name of a Proxy or child.
func ownerName(proxy, child string) string {
	name := strings.TrimPrefix(strings.TrimPrefix(ownedBy(proxy, child), " of "), ", ")
	if name == "" {
		return "a Proxy without a name"
	}
	return name
}

// stackLine returns the calls of a stack.
func (r *reading) stackLine(stack []recording.Frame) string {
	var frames []blackbox.Frame
	for _, f := range stack {
		frames = append(frames, blackbox.Frame{Function: f.Function, File: f.File, Line: f.Line})
	}
	return calls(frames, r.calls)
}
