package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// A report is what the program has to say in the end. On the Go heap nothing is observed, and the counters are 0.
type report struct {
	Options  string                   `json:"options"`
	Seconds  float64                  `json:"seconds"`
	Direct   bool                     `json:"direct"` // O_DIRECT was used
	Reads    int64                    `json:"reads"`
	Writes   int64                    `json:"writes"`
	Cache    stats                    `json:"cache"`
	Busy     counter.Stats            `json:"busy"` // after the last operation
	End      counter.Stats            `json:"end"`  // after the cache was closed
	Purposes map[string]counter.Stats `json:"purposes"`
	Leaks    heapprofile.Report       `json:"leaks"`
	Trace    traceReport              `json:"trace"`
}

// A traceReport says where the trace is.
type traceReport struct {
	ID       string `json:"id,omitempty"`
	File     string `json:"file,omitempty"`
	Endpoint string `json:"endpoint,omitempty"`
	Warning  string `json:"warning,omitempty"`
}

func (r *report) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// hitRate is of all uses of pages that did not go to the memtable.
func (r *report) hitRate() float64 {
	if uses := r.Cache.Hits + r.Cache.Misses; uses > 0 {
		return float64(r.Cache.Hits) / float64(uses)
	}
	return 0
}

func (r *report) writeText(w io.Writer) error {
	var b strings.Builder
	through := "with O_DIRECT"
	if !r.Direct {
		through = "through the kernel's page cache"
	}
	fmt.Fprintf(&b, "%s, %s\n", r.Options, through)
	fmt.Fprintf(&b, "%d reads and %d writes in %.1f s, every page as it must be\n", r.Reads, r.Writes, r.Seconds)
	c := r.Cache
	fmt.Fprintf(&b, "%.1f %% hits; %d misses, %d evictions, %d written back; %d writes waited in the memtable\n",
		100*r.hitRate(), c.Misses, c.Evictions, c.WriteBacks, c.Buffered)
	if len(r.Purposes) > 0 {
		fmt.Fprintf(&b, "\n%-10s%14s%14s%14s%14s%14s\n", "purpose", "allocations", "frees", "peak", "live at end", "live blocks")
		for _, purpose := range slices.Sorted(maps.Keys(r.Purposes)) {
			s := r.Purposes[purpose]
			writeRow(&b, purpose, s, counter.FormatBytes(s.PeakBytes))
		}
		writeRow(&b, "all", r.End, "") // of parts whose peaks did not coincide
	}
	for _, site := range r.Leaks.Sites {
		fmt.Fprintf(&b, "\nleak: %d block of %d B of %q is still pinned. It was brought into memory by\n", site.Blocks, site.Bytes, site.Owner)
		for _, f := range site.Stack {
			fmt.Fprintf(&b, "\t%s (%s:%d)\n", f.Function, filepath.Base(f.File), f.Line)
		}
	}
	if r.Trace.ID != "" {
		fmt.Fprintf(&b, "\n%v\n", r.Trace)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeRow(w io.Writer, name string, s counter.Stats, peak string) {
	fmt.Fprintf(w, "%-10s%14d%14d%14s%14s%14d\n", name, s.Allocations, s.Frees, peak, counter.FormatBytes(s.LiveBytes), s.LiveBlocks)
}

// String says in one line where the trace is.
func (t traceReport) String() string {
	switch {
	case t.Warning != "":
		return "trace: warning: " + t.Warning
	case t.Endpoint != "":
		return fmt.Sprintf("trace: %s of service %s, in the Jaeger at %s", t.ID, service, t.Endpoint)
	case t.File != "":
		return fmt.Sprintf("trace: %s opens in Jaeger's user interface: Search, Upload", t.File)
	}
	return "trace: -trace FILE writes one, and OTEL_EXPORTER_OTLP_ENDPOINT sends it to a Jaeger"
}
