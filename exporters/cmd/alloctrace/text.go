package main

import (
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/hooks/blackbox"
	"github.com/alloctrace/alloctrace/internal/text"
)

const (
	mostSites = 50 // that a text has of what was live
	mostCalls = 8  // that a line has
)

// writeText writes the contents for people, with so many of the last events, or all if it is less than 0.
func writeText(w io.Writer, c *blackbox.Contents, events int) error {
	var b strings.Builder
	for _, damage := range c.Damage {
		fmt.Fprintf(&b, "damaged: %s\n", line(damage))
	}
	writeProgram(&b, c)
	for _, p := range c.Proxies {
		of := "all"
		if p.Name != "" {
			of = fmt.Sprintf("%q", p.Name)
		}
		if p.Child != "" {
			of += fmt.Sprintf(", child %q", p.Child)
		}
		fmt.Fprintf(&b, "%s: %s\n", of, p.Stats)
	}
	if c.Omitted > 0 {
		fmt.Fprintf(&b, "and the numbers of %d more, for which the file had no room\n", c.Omitted)
	}
	writeSites(&b, "live", c.Live)
	writeSites(&b, "live at the peak", c.Peak)
	writeEvents(&b, c, events)
	_, err := io.WriteString(w, b.String())
	return err
}

func writeProgram(b *strings.Builder, c *blackbox.Contents) {
	fmt.Fprintf(b, "process %d", c.PID)
	if c.Build.Executable != "" {
		fmt.Fprintf(b, ", %s", line(c.Build.Executable))
	}
	if c.Build.Go != "" {
		fmt.Fprintf(b, ", %s %s, %s", line(c.Build.Package), line(c.Build.Version), line(c.Build.Go))
	}
	b.WriteString("\n")
	if c.Build.ID != "" {
		fmt.Fprintf(b, "build ID %s\n", line(c.Build.ID))
	}
	fmt.Fprintf(b, "from %s\n", date(c.Created))
	if c.Closed.IsZero() {
		b.WriteString("not closed: the process was killed, has crashed, or still runs\n")
	} else {
		fmt.Fprintf(b, "closed %s\n", date(c.Closed))
	}
	if !c.Written.IsZero() {
		fmt.Fprintf(b, "\nas of %s:\n", date(c.Written))
	}
}

func writeSites(b *strings.Builder, what string, s blackbox.Sites) {
	if s.Time.IsZero() {
		return
	}
	fmt.Fprintf(b, "\n%s, %s: %s in %s\n", what, date(s.Time), estimate(s.Bytes, s.Error), number(s.Blocks, "block"))
	omitted := s.Omitted
	for i, site := range s.Sites {
		if i == mostSites {
			omitted += len(s.Sites) - i
			break
		}
		fmt.Fprintf(b, "  %s in %s%s: %s\n", estimate(site.Bytes, site.Error), number(site.Blocks, "block"), owner(site.Labels), calls(site.Stack, mostCalls))
	}
	if omitted > 0 {
		fmt.Fprintf(b, "  and less at %s\n", number(int64(omitted), "more site"))
	}
}

func writeEvents(b *strings.Builder, c *blackbox.Contents, most int) {
	first := firstEvent(c, most)
	if first == len(c.Events) {
		return
	}
	last := c.Events[len(c.Events)-1].Time
	fmt.Fprintf(b, "\nthe last %d of %s; the last one was %s:\n", len(c.Events)-first, number(int64(len(c.Events)), "event"), date(last))
	for i, e := range c.Events[first:] {
		if i+first == c.Gapless && i > 0 {
			b.WriteString("  before this some are missing, after it none\n")
		}
		fmt.Fprintf(b, "  %10s %-17s %s aligned to %s at %#x", e.Time.Sub(last).Round(time.Microsecond), e.Kind, counter.FormatBytes(int64(e.Size)), counter.FormatBytes(int64(e.Align)), e.Addr)
		if e.Child != "" {
			fmt.Fprintf(b, " of %q", e.Child)
		}
		if e.Err != "" {
			fmt.Fprintf(b, ": %s", line(e.Err))
		}
		b.WriteString("\n")
	}
}

// firstEvent returns which event is the first of so many, or of all if it is less than 0.
func firstEvent(c *blackbox.Contents, most int) int {
	if most < 0 {
		return 0
	}
	return max(0, len(c.Events)-most)
}

func line(s string) string { return text.Line(s, text.MaxText) }

func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000 UTC") }

func estimate(bytes, standardError int64) string {
	if standardError == 0 {
		return counter.FormatBytes(bytes)
	}
	return counter.FormatBytes(bytes) + " ± " + counter.FormatBytes(standardError)
}

func number(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// owner returns the labels of a site.
func owner(labels []blackbox.Label) string {
	var s string
	for _, l := range labels {
		s += fmt.Sprintf(", %s=%q", line(l.Key), l.Value)
	}
	return s
}

// calls returns so many calls of a stack, or all if that is less than 0, as in index.(*Index).grow (index.go:42), index.New (index.go:17).
func calls(stack []blackbox.Frame, most int) string {
	if len(stack) == 0 {
		return "unknown"
	}
	var list []string
	for i, f := range stack {
		if i == most {
			list = append(list, fmt.Sprintf("and %s", number(int64(len(stack)-i), "more call")))
			break
		}
		place := line(path.Base(strings.ReplaceAll(f.File, `\`, "/")))
		if f.Line > 0 { // or else it is a program or a library
			place += fmt.Sprintf(":%d", f.Line)
		}
		list = append(list, fmt.Sprintf("%s (%s)", line(shortName(f.Function)), place))
	}
	return strings.Join(list, ", ")
}

// shortName returns a function without the path of its package.
func shortName(function string) string { return function[strings.LastIndexByte(function, '/')+1:] }
