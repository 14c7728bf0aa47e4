package main

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/pprof/profile"

	"github.com/alloctrace/alloctrace/internal/jaegertest"
)

func wantTraceFile(t *testing.T, r report) {
	t.Helper()
	wantTrace(t, jaegertest.ReadFile(t, r.Trace.File), r)
}

// wantProfile checks that the profile has Go's heap, and outside it the whole index.
func wantProfile(t *testing.T, r report) {
	t.Helper()
	f, err := os.Open(r.Profile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := profile.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	var onHeap, outside int64
	for _, s := range p.Sample {
		inUse := s.Value[3]
		if s.HasLabel("memory", "offheap") {
			outside += inUse
		} else if s.HasLabel("memory", "heap") {
			onHeap += inUse
		}
	}
	if p.SampleType[3].Type != "inuse_space" || outside != r.Built.LiveBytes || onHeap == 0 {
		t.Errorf("the profile's %s is %d bytes on Go's heap and %d outside, want %d outside", p.SampleType[3].Type, onHeap, outside, r.Built.LiveBytes)
	}
}

// wantTrace checks that trace is that of the run that r reports: its regions and
// how they nest, and their numbers against the counters.
func wantTrace(t *testing.T, trace jaegertest.Trace, r report) {
	t.Helper()
	parents := map[string]string{"scan": "indexer", "index": "indexer", "query": "indexer", "free": "indexer"}
	byName := make(map[string]jaegertest.Span)
	for _, s := range trace {
		if _, twice := byName[s.Name]; twice {
			t.Errorf("two spans named %s", s.Name)
		}
		byName[s.Name] = s
		if strings.HasPrefix(s.Name, "part ") {
			parents[s.Name] = "index"
		}
		if s.TraceID != r.Trace.ID {
			t.Errorf("span %s is of trace %s, want %s", s.Name, s.TraceID, r.Trace.ID)
		}
		if s.Resource["service.name"] != service {
			t.Errorf("span %s is of service %v", s.Name, s.Resource["service.name"])
		}
		if s.StatusCode == 2 {
			t.Errorf("span %s has an error: %s", s.Name, s.StatusMessage)
		}
	}
	root, found := byName["indexer"]
	if !found || root.ParentID != "" {
		t.Fatalf("no root span named indexer in %+v", trace)
	}
	if byName["part 1"].Name == "" || len(trace) != 1+len(parents) {
		t.Errorf("%d spans, want those of indexer, its phases and its parts: %+v", len(trace), trace)
	}
	sums := make(map[string]int64) // by parent and attribute
	for name, parent := range parents {
		child, up := byName[name], byName[parent]
		if child.ParentID != up.SpanID || child.Start < up.Start || child.End > up.End {
			t.Errorf("span %s does not lie in %s: %+v in %+v", name, parent, child, up)
		}
		for key, value := range child.Attributes {
			if n, ok := value.(int64); ok {
				sums[parent+" "+key] += n
			}
		}
	}
	for key, want := range map[string]int64{
		"allocator.memory.allocated": r.End.AllocatedBytes,
		"allocator.memory.freed":     r.End.FreedBytes,
		"allocator.memory.net":       r.End.LiveBytes,
		"allocator.allocations":      r.End.Allocations,
		"allocator.reallocations":    r.End.Reallocations,
		"allocator.frees":            r.End.Frees,
		"allocator.failures":         0,
	} {
		if got := root.Attributes[key]; got != want {
			t.Errorf("the root's %s is %v, the counters say %d", key, got, want)
		}
		if got := sums["indexer "+key]; got != want {
			t.Errorf("%s is %d in all phases, the counters say %d", key, got, want)
		}
		if got := byName["index"].Attributes[key]; got != sums["index "+key] {
			t.Errorf("%s of index is %v, that of its parts %d", key, got, sums["index "+key])
		}
	}
	// A free is counted once it is done, by the region and by the proxy in turn. An
	// allocation of another part may come in between: then the peaks differ.
	got, ok := root.Attributes["allocator.memory.peak"].(int64)
	if byName["part 2"].Name == "" && got != r.End.PeakBytes {
		t.Errorf("the root's peak is %d, the counters say %d", got, r.End.PeakBytes)
	}
	if !ok || got < r.Built.LiveBytes || got > r.End.AllocatedBytes {
		t.Errorf("the root's peak is %d, out of %d live when all was built to %d allocated", got, r.Built.LiveBytes, r.End.AllocatedBytes)
	}
}

// wantNoLeak checks the figures of a run that gave everything back.
func wantNoLeak(t *testing.T, r report) {
	t.Helper()
	s := r.End
	if s.LiveBytes != 0 || s.LiveBlocks != 0 || s.FreedBytes != s.AllocatedBytes || s.Failures() != 0 || len(r.Leaks) != 0 {
		t.Errorf("at the end %v, leaks %v; want nothing live and no failure", s, r.Leaks)
	}
	if r.Built.LiveBytes <= 0 || r.Built.LiveBytes > s.PeakBytes || r.Built.Allocations > s.Allocations {
		t.Errorf("when the index was built %v, at the end %v", r.Built, s)
	}
}

// wantLog checks the log's lines: their number, which sampling makes exact, and
// what is in them.
func wantLog(t *testing.T, r report) {
	t.Helper()
	data, err := os.ReadFile(r.Log)
	if err != nil {
		t.Fatal(err)
	}
	lines := make(map[string]int64) // by message
	for line := range strings.Lines(string(data)) {
		var entry struct {
			Level, Allocator, Addr, Time, Message string
			Size, Align                           int64
			TraceID                               string `json:"trace_id"`
			SpanID                                string `json:"span_id"`
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		addr, err := hex.DecodeString(entry.Addr)
		if err != nil || len(addr) != 8 || entry.Size < 1 || entry.Align < 1 || entry.Level != "debug" ||
			entry.Allocator != "indexer" || entry.Time == "" || entry.TraceID != r.Trace.ID || len(entry.SpanID) != 16 {
			t.Errorf("odd line in the log: %s", line)
		}
		lines[entry.Message]++
	}
	for message, events := range map[string]int64{
		"allocated":    r.End.Allocations,
		"reallocating": r.End.Reallocations,
		"reallocated":  r.End.Reallocations,
		"freeing":      r.End.Frees,
	} {
		if want := (events + sampled - 1) / sampled; lines[message] != want {
			t.Errorf("%d lines %q, want %d of %d events", lines[message], message, want, events)
		}
		delete(lines, message)
	}
	if len(lines) > 0 {
		t.Errorf("other lines in the log: %v", lines)
	}
}
