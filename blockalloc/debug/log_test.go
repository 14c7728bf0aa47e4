package debug_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
)

// logged returns the fields of a report in a line of slog's JSONHandler.
func logged(t *testing.T, r *debug.Report) map[string]any {
	t.Helper()
	var line bytes.Buffer
	slog.New(slog.NewJSONHandler(&line, nil)).Error("memory error", "report", r)
	var fields struct{ Report map[string]any }
	if err := json.Unmarshal(line.Bytes(), &fields); err != nil {
		t.Fatal(err)
	}
	return fields.Report
}

// TestLogValue: a line of slog has what the report says, by fields.
func TestLogValue(t *testing.T) {
	var reports []*debug.Report
	d := debug.New(new(blockalloc.Heap), debug.Options{OnReport: func(r *debug.Report) { reports = append(reports, r) }})
	b := mustAllocate(t, d, 100, 8)
	_ = d.Close() // which the block prevents
	beyond(b, 100, 1)[0]++
	_ = d.Free(b)
	mustFree(t, d, b)
	_ = d.Free(b)
	_ = d.Free(mustAllocate(t, new(blockalloc.Heap), 24, 4))
	mustClose(t, d)
	want := []map[string]any{
		{"kind": "leak", "error_type": "live", "op": "Close", "size": 100.0, "align": 8.0, "blocks": 1.0, "bytes": 100.0},
		{"kind": "overrun", "error_type": "overrun", "op": "Free", "size": 100.0, "align": 8.0, "offset": 100.0, "fault": false},
		{"kind": "double free", "error_type": "double_free", "op": "Free", "size": 100.0, "align": 8.0},
		{"kind": "foreign free", "error_type": "not_owned", "op": "Free", "size": 24.0, "align": 4.0},
	}
	stacks := []string{"allocated", "allocated now", "allocated freed now", "now"}
	if len(reports) != len(want) {
		t.Fatalf("%d reports, want %d: %v", len(reports), len(want), reports)
	}
	for i, w := range want {
		got := logged(t, reports[i])
		var names []string
		for _, name := range []string{"allocated", "freed", "now"} {
			if text, ok := got[name]; ok {
				names = append(names, name)
				if !strings.Contains(text.(string), "log_test.go:") && !strings.Contains(text.(string), "helpers_test.go:") {
					t.Errorf("report %d: %s is %q", i, name, text)
				}
			}
			delete(got, name)
		}
		if addr, _ := got["addr"].(float64); i < 3 && uintptr(addr) != b.Addr() || addr == 0 {
			t.Errorf("report %d: the address is %v", i, got["addr"])
		}
		delete(got, "addr")
		if strings.Join(names, " ") != stacks[i] {
			t.Errorf("report %d has the stacks %v, want %s", i, names, stacks[i])
		}
		for name, value := range w {
			if got[name] != value {
				t.Errorf("report %d: %s is %v, want %v", i, name, got[name], value)
			}
		}
		if len(got) != len(w) {
			t.Errorf("report %d: %v, want %v", i, got, w)
		}
	}
}
