package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestChromeOpens: the viewer of chrome://tracing finds the counters and failures of the model in what was exported, and nothing to warn of.
func TestChromeOpens(t *testing.T) {
	if testing.Short() {
		t.Skip("Chromium takes long: set ALLOCTRACE_REQUIRE_ALL=1")
	}
	for _, name := range []string{"chromium", "node"} {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("ALLOCTRACE_REQUIRE_ALL") == "1" {
				t.Fatal(err)
			}
			t.Skip("traces are opened in Chromium: apt-get install chromium nodejs")
		}
	}
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	path, m := newStorm(t, stormEvents())
	r := &runner{t: t}
	file := filepath.Join(t.TempDir(), "trace.json")
	r.run(whole, "export", "chrome", "-by", "site", "-o", file, path)
	cmd := exec.CommandContext(t.Context(), "node", "testdata/chrome.cjs", file, filepath.Join(strings.TrimSpace(string(root)), "src/internal/trace/traceviewer/static"), t.TempDir())
	out := outputOf(t, cmd)
	var found struct {
		Warnings  []string
		Processes []struct {
			PID      int
			Name     string
			Counters map[string][]struct {
				Name   string
				Values []int64
			}
			Instants []struct{ Title string }
		}
	}
	if err := json.Unmarshal(out, &found); err != nil {
		t.Fatal(err)
	}
	if len(found.Warnings) > 0 || len(found.Processes) != 1 {
		t.Fatalf("warnings %q, %d processes", found.Warnings, len(found.Processes))
	}
	p := found.Processes[0]
	all := p.Counters["live bytes"]
	if len(all) != 1 || all[0].Name != "bytes" || slices.Max(all[0].Values) != m.peak || all[0].Values[len(all[0].Values)-1] != total(m.live) {
		t.Errorf("live bytes are %+v, want a peak of %d and %d in the end", all, m.peak, total(m.live))
	}
	live := int64(0)
	for name, series := range p.Counters {
		if name != "live bytes" {
			live += series[0].Values[len(series[0].Values)-1]
		}
	}
	failures := int64(0)
	for _, i := range p.Instants {
		if i.Title == "allocate failed" {
			failures++
		}
	}
	if p.PID != os.Getpid() || p.Name == "" || live != total(m.live) || failures != m.events["allocate failed"] || failures == 0 || len(p.Counters) < 1+3*16 {
		t.Errorf("process %d, %q: %d live in %d counters, %d failures, want %d and %d", p.PID, p.Name, live, len(p.Counters), failures, total(m.live), m.events["allocate failed"])
	}
}
