package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/rss"
)

// A report is what the program has to say in the end.
type report struct {
	Folder  string        `json:"folder"`
	Seconds float64       `json:"seconds"`
	Index   size          `json:"index"`
	Answers []answer      `json:"answers"`
	Built   counter.Stats `json:"index_built"` // when all was indexed and nothing freed
	End     counter.Stats `json:"end"`
	Leaks   []leak        `json:"leaks"`
	Log     string        `json:"log"`
	Profile string        `json:"profile"` // of when all was indexed and nothing freed
	Trace   traceReport   `json:"trace"`
	RSS     *rss.Report   `json:"rss,omitempty"` // the resident memory, when all was indexed and nothing freed
}

// A traceReport says where the trace is: in a file, and in a Jaeger if there is one.
type traceReport struct {
	ID       string `json:"id"`
	File     string `json:"file,omitempty"`     // "" if it is not all there
	Endpoint string `json:"endpoint,omitempty"` // "" likewise
	Warning  string `json:"warning,omitempty"`  // why it is not all there
}

func (r *report) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func (r *report) writeText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d files, %d lines, %s; %d words occur %d times; %.1f s\n",
		r.Folder, r.Index.Files, r.Index.Lines, counter.FormatBytes(r.Index.Bytes), r.Index.Words, r.Index.Occurrences, r.Seconds)
	if r.Index.Skipped > 0 {
		fmt.Fprintf(&b, "left out as no text, or not readable: %d files\n", r.Index.Skipped)
	}
	for _, a := range r.Answers {
		fmt.Fprintf(&b, "\n%s: %d times\n", a.Word, a.Occurrences)
		for _, c := range a.First {
			fmt.Fprintf(&b, "  %s:%d: %.100s\n", c.File, c.Line, strings.TrimSpace(c.Text))
		}
	}
	writeCounters(&b, r.Built, r.End)
	writeClasses(&b, r.Built.Classes, r.End.Classes)
	if r.RSS != nil {
		fmt.Fprintf(&b, "\nindex built: %v", r.RSS)
	}
	fmt.Fprintln(&b)
	for _, l := range r.Leaks {
		fmt.Fprintf(&b, "leak:  %d block of %s, allocated in region %q, was never freed\n", l.Blocks, counter.FormatBytes(l.Bytes), l.Region)
	}
	fmt.Fprintf(&b, "log:   %s has one event in %d of each kind, and every failure\n", r.Log, sampled)
	fmt.Fprintf(&b, "heap:  go tool pprof -tagroot=memory -http=: %s shows who allocated what, on Go's heap and outside\n", r.Profile)
	fmt.Fprintln(&b, "trace:", r.Trace)
	_, err := io.WriteString(w, b.String())
	return err
}

// String says in one line how to look at the trace.
func (t traceReport) String() string {
	switch {
	case t.File == "":
		return t.ID + " is not complete, see the warning"
	case t.Endpoint == "":
		return fmt.Sprintf("%s opens in Jaeger's user interface: Search, Upload", t.File)
	}
	host := "localhost"
	if u, err := url.Parse(t.Endpoint); err == nil && u.Hostname() != "" {
		host = u.Hostname()
	}
	ui := url.URL{Scheme: "http", Host: net.JoinHostPort(host, "16686"), Path: "/trace/" + t.ID} // Jaeger's default port
	return fmt.Sprintf("%s, or search for service %q in Jaeger's user interface", ui.String(), service)
}

func writeCounters(w io.Writer, built, end counter.Stats) {
	fmt.Fprintf(w, "\n%-18s%26s%26s\n", "counters", "index built", "at the end")
	for _, row := range []struct {
		name       string
		built, end int64
	}{
		{"allocations", built.Allocations, end.Allocations},
		{"reallocations", built.Reallocations, end.Reallocations},
		{"frees", built.Frees, end.Frees},
		{"failures", built.Failures(), end.Failures()},
		{"live blocks", built.LiveBlocks, end.LiveBlocks},
	} {
		fmt.Fprintf(w, "%-18s%13d%26d\n", row.name, row.built, row.end)
	}
	for _, row := range []struct {
		name       string
		built, end int64
	}{
		{"live bytes", built.LiveBytes, end.LiveBytes},
		{"peak bytes", built.PeakBytes, end.PeakBytes},
		{"requested bytes", built.RequestedBytes, end.RequestedBytes},
		{"granted bytes", built.AllocatedBytes, end.AllocatedBytes},
		{"freed bytes", built.FreedBytes, end.FreedBytes},
	} {
		fmt.Fprintf(w, "%-18s%13d%13s%13d%13s\n", row.name,
			row.built, counter.FormatBytes(row.built), row.end, counter.FormatBytes(row.end))
	}
}

func writeClasses(w io.Writer, built, end counter.Classes) {
	fmt.Fprintf(w, "\n%-18s%13s%13s%13s%13s\n", "blocks of up to", "live, built", "allocated", "freed", "live, end")
	for i, c := range end {
		if c.Allocated > 0 {
			fmt.Fprintf(w, "%-18s%13d%13d%13d%13d\n", counter.FormatBytes(1<<i), built[i].Live(), c.Allocated, c.Freed, c.Live())
		}
	}
}
