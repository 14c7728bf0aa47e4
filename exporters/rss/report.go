package rss

import (
	"fmt"
	"strings"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/text"
)

// A Report says where the resident memory of the process is. Sizes are bytes. GoHeap, GoOther,
// Tracked, Files and Unattributed add up to RSS. Names are valid UTF-8 of at most 1 KiB: each
// byte that is not valid becomes U+FFFD, and a longer name is cut and ends in "…".
type Report struct {
	RSS          int64       `json:"rss"`
	GoHeap       int64       `json:"go_heap"`      // the garbage-collected heap and goroutines' stacks
	GoOther      int64       `json:"go_other"`     // the runtime's own: partly an estimate
	Tracked      int64       `json:"tracked"`      // of the allocators, each page once
	Files        int64       `json:"files"`        // the program and other files
	Unattributed int64       `json:"unattributed"` // the rest
	Allocators   []Allocator `json:"allocators"`   // as they were passed to Read
	Rest         []Mapping   `json:"rest"`         // where Unattributed is, the largest first
}

// An Allocator is a source that was passed to [Read]. If two sources share one allocator, each
// has all of its memory.
type Allocator struct {
	Name     string `json:"name"`
	Live     int64  `json:"live"`     // bytes of live blocks, as granted
	Slack    int64  `json:"slack"`    // bytes of Live that were granted beyond what was asked for, estimated by the slack of all allocations
	Reserved int64  `json:"reserved"` // bytes of address space
	Resident int64  `json:"resident"` // bytes of Reserved that are in memory, live or not; those on the Go heap are in GoHeap and not in Tracked
	Assumed  bool   `json:"assumed"`  // it has no Mapper: Reserved is Live, and Resident is Live or Unattributed if that is less
}

// A Mapping is one in which there is unattributed memory.
type Mapping struct {
	Addr     uintptr `json:"addr"`
	Size     uintptr `json:"size"`
	Resident int64   `json:"resident"` // unattributed bytes; the estimate for Go was subtracted from the smallest mappings, and that for Assumed allocators from the largest
	Name     string  `json:"name"`     // the kernel's name: "[heap]" is C's heap; "" if it has none
}

// Go returns the bytes of the Go heap and of the rest of the Go runtime.
func (r Report) Go() int64 { return r.GoHeap + r.GoOther }

// A Part is one of the five parts of RSS.
type Part struct {
	Name  string // that of the field in JSON
	Bytes int64
}

// Parts returns the five parts that add up to RSS.
func (r Report) Parts() []Part {
	return []Part{{"go_heap", r.GoHeap}, {"go_other", r.GoOther}, {"tracked", r.Tracked}, {"files", r.Files}, {"unattributed", r.Unattributed}}
}

// shown is how many mappings String shows.
const shown = 3

// String returns a table. Control characters of names are escaped as in Go.
func (r Report) String() string {
	size := counter.FormatBytes
	var b strings.Builder
	fmt.Fprintf(&b, "RSS %s = Go %s + tracked %s + files %s + unattributed %s\n",
		size(r.RSS), size(r.Go()), size(r.Tracked), size(r.Files), size(r.Unattributed))
	fmt.Fprintf(&b, "\n%-28s%12s%12s%12s%12s\n", "", "live", "slack", "reserved", "resident")
	for _, a := range r.Allocators {
		resident := size(a.Resident)
		if a.Assumed {
			resident = "≤ " + resident
		}
		fmt.Fprintf(&b, "%-28s%12s%12s%12s%12s\n", text.Line(a.Name, text.MaxName), size(a.Live), size(a.Slack), size(a.Reserved), resident)
	}
	for _, row := range []struct {
		name  string
		bytes int64
	}{
		{"Go heap", r.GoHeap},
		{"Go runtime beside its heap", r.GoOther},
		{"files", r.Files},
		{"unattributed", r.Unattributed},
	} {
		fmt.Fprintf(&b, "%-28s%48s\n", row.name, size(row.bytes))
	}
	for _, m := range r.Rest[:min(len(r.Rest), shown)] {
		fmt.Fprintf(&b, "  %-26s%36s%12s\n", fmt.Sprintf("%#x %s", m.Addr, text.Line(m.Name, text.MaxName)), size(int64(m.Size)), size(m.Resident))
	}
	return b.String()
}
