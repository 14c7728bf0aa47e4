package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/history"
	"github.com/alloctrace/alloctrace/exporters/recording/replay"
)

// replayable returns the path of a recording of 200 allocations and 100 frees, of blocks of up to 50 KiB.
func replayable(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.alloctrace")
	rec, err := recording.Create(path, recording.Options{})
	if err != nil {
		t.Fatal(err)
	}
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithName("mem"), alloctrace.WithHooks(rec))
	for i := range 200 {
		b, err := mem.Allocate(blockalloc.Layout{Size: uintptr(1+i) << 8, Align: 64})
		if err == nil && i%2 == 0 {
			err = mem.Free(b)
		}
		if err == nil && i == 150 {
			err = rec.Flush() // up to here it can be read if the rest is cut off
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// readRecording reads all events of a recording.
func readRecording(path string) (h recording.Header, events []recording.Event, err error) {
	r, err := history.Open(path, true)
	if err != nil {
		return h, nil, err
	}
	events, err = readEvents(r)
	return r.Header(), events, err
}

// TestReplayRotated: the file before is replayed, and shrunk, too. If it is damaged, what could be read is.
func TestReplayRotated(t *testing.T) {
	path := replayable(t)
	header, events, err := readRecording(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, part := range map[string][]recording.Event{path + ".old": events[:200], path: events[200:]} {
		if err := writeFile(name, nil, func(w io.Writer) error { return writeRecording(w, header, part) }); err != nil {
			t.Fatal(err)
		}
	}
	var out, errOut bytes.Buffer
	replayed := func(want int, args ...string) (r replay.Result) {
		t.Helper()
		out.Reset()
		errOut.Reset()
		if got := run(append([]string{"replay", "-json"}, append(args, path)...), &out, &errOut); got != want {
			t.Errorf("it exits with %d, want %d: %s", got, want, &errOut)
		}
		if err := json.Unmarshal(out.Bytes(), &r); err != nil {
			t.Error(err)
		}
		return r
	}
	if r := replayed(whole); r.Operations != 300 {
		t.Errorf("of both files: %+v", r)
	}
	if r := replayed(whole, "-alone"); r.Operations != 100 {
		t.Errorf("of the last file alone: %+v", r)
	}
	for _, to := range []string{path, path + ".old"} {
		errOut.Reset()
		if status := run([]string{"shrink", "-limit", "1", "-o", to, path}, &out, &errOut); status != failed || !strings.Contains(errOut.String(), "-o names the recording itself") {
			t.Errorf("shrink to %s exits with %d: %s", to, status, &errOut)
		}
	}
	if err := os.Truncate(path+".old", 100); err != nil {
		t.Fatal(err)
	}
	if r := replayed(notReplayed); r.Operations != 100 || !strings.Contains(errOut.String(), path+".old") {
		t.Errorf("where the first file is damaged: %+v, %s", r, &errOut)
	}
}

// TestReplay: a recording is replayed on each allocator. What fails is named, and shrunk to a recording that fails again.
func TestReplay(t *testing.T) {
	path := replayable(t)
	var out, errOut bytes.Buffer
	runs := func(want int, args ...string) {
		t.Helper()
		out.Reset()
		errOut.Reset()
		if got := run(args, &out, &errOut); got != want {
			t.Errorf("%q exits with %d, want %d: %s%s", args, got, want, &out, &errOut)
		}
	}
	for _, on := range []string{"pool", "slab", "heap", "system"} {
		runs(whole, "replay", "-on", on, path)
		for _, want := range []string{"300 of 300 operations in ", "left live by the recording: ", " in 100 blocks, 2.47 MiB of it asked for\n"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("on %s there is no %q in\n%s", on, want, &out)
			}
		}
	}
	var result replay.Result
	runs(whole, "replay", "-json", "-goroutines", "2", "-edges", "-addresses", path)
	if err := json.Unmarshal(out.Bytes(), &result); err != nil || result.Operations != 300 || result.Peak.Requested < 2<<20 || result.Backend == nil {
		t.Errorf("%v: %s", err, &out)
	}

	runs(notReplayed, "replay", "-on", "heap", "-limit", "65536", path)
	if got := errOut.String(); !strings.HasPrefix(got, "alloctrace: replay: replay: allocate at event ") || !strings.Contains(got, "alloctrace.replayable (replay_test.go:") || strings.Count(got, "\n") != 1 {
		t.Errorf("the error is %q", got)
	}
	runs(notReplayed, "replay", "-on", "heap", "-limit", "65536", "-keep-going", "-json", path)
	result = replay.Result{}
	var first struct {
		Failures     int64
		FirstFailure struct {
			Event struct{ Number int64 }
		} `json:"first_failure"`
	}
	if err := json.Unmarshal(out.Bytes(), &first); err != nil || first.Failures < 10 || first.FirstFailure.Event.Number == 0 {
		t.Errorf("%v: %s", err, &out)
	}

	small := filepath.Join(t.TempDir(), "small.alloctrace")
	runs(whole, "shrink", "-on", "heap", "-limit", "65536", "-o", small, path)
	if !strings.Contains(out.String(), " of 300 events are left: replay: allocate at event ") {
		t.Errorf("%s", &out)
	}
	_, events, err := readRecording(small)
	var sum uintptr
	for _, e := range events {
		sum += e.Size
	}
	if err != nil || sum != 1<<16+1 || events[0].Proxy != "mem" || events[0].Stack == nil {
		t.Errorf("%v; the smallest recording allocates %d B, want 64 KiB and a byte: %+v", err, sum, events)
	}
	runs(notReplayed, "replay", "-on", "heap", "-limit", "65536", small)
	runs(whole, "replay", "-on", "heap", "-limit", "65537", small)
	runs(notReplayed, "shrink", "-o", small, path)
	if !strings.Contains(errOut.String(), "does not fail") {
		t.Errorf("%s", &errOut)
	}

	all, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut.alloctrace")
	for n, status := range map[int]int{len(all) - 10: notReplayed, 10: failed} {
		if err := os.WriteFile(cut, all[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		runs(status, "replay", "-json", cut)
		if status == notReplayed && (!strings.Contains(out.String(), `cut.alloctrace: recording: damaged from byte `) || !strings.Contains(errOut.String(), "recording: damaged from byte ")) {
			t.Errorf("of a cut recording: %s%s", &out, &errOut)
		}
		if status == notReplayed {
			runs(damaged, "shrink", "-on", "heap", "-limit", "65536", "-o", small, cut)
			if !strings.Contains(errOut.String(), "what is damaged was left out: "+cut+": recording: damaged from byte ") {
				t.Errorf("of a cut recording: %s%s", &out, &errOut)
			}
		}
	}
	for _, args := range [][]string{
		{"replay"}, {"replay", path, path}, {"replay", "-on", "null", path}, {"replay", "-limit", "-1", path}, {"replay", "-goroutines", "-1", path},
		{"replay", filepath.Join(path, "below")}, {"shrink", path}, {"shrink", "-o", path, path}, {"shrink", "-o", small}, {"shrink", "-on", "null", "-o", small, path},
		{"shrink", "-on", "heap", "-limit", "65536", "-o", filepath.Join(path, "below"), path}, {"shrink", "-o", small, filepath.Join(path, "below")},
	} {
		if runs(failed, args...); errOut.Len() == 0 {
			t.Errorf("%q says nothing", fmt.Sprint(args))
		}
	}
}
