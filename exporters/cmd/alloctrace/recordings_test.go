package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/internal/fields"
	"github.com/alloctrace/alloctrace/tracer"
)

func hold(t *testing.T, a blockalloc.Allocator, size uintptr) blockalloc.Block {
	b, err := a.Allocate(blockalloc.Layout{Size: size, Align: 1})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func handle(t *testing.T, a blockalloc.Allocator) blockalloc.Block { return hold(t, a, 512) }

// newRecording returns the path of a recording, in which time passes only between events: the child cache has a KiB more each second,
// and each second a request has 512 bytes for a half of it. In second 50 an allocation fails.
func newRecording(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "a.alloctrace")
	synctest.Test(t, func(t *testing.T) {
		rec, err := recording.Create(path, recording.Options{FlushEvery: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		mem := alloctrace.Wrap(blockalloc.NewLimit(new(blockalloc.Heap), 1<<20), alloctrace.WithName("mem"), alloctrace.WithHooks(rec))
		ctx, region := tracer.Start(context.Background(), "GET /", mem)
		defer region.End()
		for i := range 100 {
			hold(t, mem.Child("cache"), 1024)
			b := handle(t, mem.WithContext(ctx))
			if i == 50 {
				if _, err := mem.Allocate(blockalloc.BlockLayout(2 << 20)); err == nil {
					t.Fatal("the limit lets through what is too much")
				}
			}
			time.Sleep(time.Second / 2)
			if err := mem.Free(b); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second / 2)
		}
		if err := rec.Close(); err != nil {
			t.Fatal(err)
		}
	})
	return path
}

// A runner runs the program.
type runner struct {
	t           *testing.T
	out, errOut bytes.Buffer
}

func (r *runner) run(want int, args ...string) string {
	r.t.Helper()
	r.out.Reset()
	r.errOut.Reset()
	if got := run(args, &r.out, &r.errOut); got != want {
		r.t.Errorf("%q exits with %d, want %d: %s", args, got, want, &r.errOut)
	}
	if quiet := r.errOut.Len() == 0; quiet != (want == whole) {
		r.t.Errorf("%q exits with %d and says %q", args, want, &r.errOut)
	}
	return r.out.String()
}

// TestRecordings: each command prints what a recording has.
func TestRecordings(t *testing.T) {
	path := newRecording(t)
	r := &runner{t: t}
	for command, want := range map[string][]string{
		"info": {
			" bytes an event\nprocess ", "recording began 2000-01-01 00:00:00.000 UTC, and has 0s to 1m39.5s of it\nclosed\nstacks of who allocated, 2 sites\n",
			"\n301 events: 200 allocations, 0 reallocations, 100 frees; failures: 1 to allocate, 0 to reallocate, 0 to free\n",
			"\nlive at the end: 100 KiB in 100 blocks; at the peak, at 1m39s: 100.5 KiB in 101 blocks\n",
			"\n  \"mem\": live 0 B in 0 blocks, peak 512 B in 1 block at 0s, allocated 50 KiB in 100 blocks\n",
		},
		"top": {"live at the end: 100 KiB in 100 blocks, by 1 site\n  100.0 %, 100 KiB in 100 blocks of \"mem\", child \"cache\": alloctrace.hold (recordings_test.go:"},
		"top -by allocated -n 1": {"allocated: 150 KiB in 200 blocks, by 2 sites\n  66.7 %, 100 KiB in 100 blocks of \"mem\", child \"cache\": ",
			"\n  and 50 KiB in 100 blocks by 1 more site\n"},
		"top -by peak -calls 1":              {"live at the peak, at 1m39s: 100.5 KiB in 101 blocks, by 2 sites\n", "\n  0.5 %, 512 B in 1 block of \"mem\": alloctrace.hold (recordings_test.go:", ", and "},
		"top -by allocated -region GET./":    {"allocated: 0 B in 0 blocks, by 0 sites\n"},
		"top -by allocated -stack handle$":   {"allocated: 50 KiB in 100 blocks, by 1 site\n  100.0 %, 50 KiB in 100 blocks of \"mem\": alloctrace.hold"},
		"top -by allocated -child cache":     {"allocated: 100 KiB in 100 blocks, by 1 site\n"},
		"top -by allocated -child=":          {"allocated: 50 KiB in 100 blocks, by 1 site\n"},
		"top -by allocated -proxy other":     {"allocated: 0 B in 0 blocks, by 0 sites\n"},
		"leaks":                              {"live at the end, at 1m39.5s: 100 KiB in 100 blocks, by 1 site\n  grows: 100 KiB in 100 blocks of \"mem\", child \"cache\": ", "\n    live were 25 KiB at 24.875s, 50 KiB at 49.75s, 75 KiB at 1m14.63s, 100 KiB at 1m39.5s\n    the oldest has lived for 1m39.5s, the newest for 500ms; none of 100 blocks was released\n"},
		"timeline -steps 4":                  {"the most live bytes of each 24.875s: peak 100.5 KiB, 100 KiB at the end\n        0s    25.5 KiB  ###############\n   24.875s    50.5 KiB  ##############################\n"},
		"timeline -by child -steps 4":        {"\n      peak         end\n   100 KiB     100 KiB  ▂▄▆█  \"mem\", child \"cache\"\n     512 B         0 B  ▁▁▁▁  \"mem\"\n"},
		"timeline -by region -steps 4 -n 1":  {"▂▄▆█  no region\nand 1 more, whose peaks are 512 B at most\n"},
		"timeline -by site -steps 4":         {"▁▁▁▁  \"mem\": alloctrace.hold (recordings_test.go:"},
		"diff -from 10s -to 19.5s":           {"live at 10s: 11.5 KiB in 12 blocks\nlive at 19.5s: 20 KiB in 20 blocks\nchanged by +8.5 KiB in +8 blocks, at 2 sites\n  +9 KiB in +9 blocks, from 11 KiB to 20 KiB of \"mem\", child \"cache\": ", "\n  -512 B in -1 block, from 512 B to 0 B of \"mem\": "},
		"diff -from 2000-01-01T00:00:10Z":    {"live at 10s: 11.5 KiB in 12 blocks\nlive at 1m39.5s: 100 KiB in 100 blocks\n"},
		"diff -n 0":                          {"changed by +98.5 KiB in +98 blocks, at 2 sites\n  and +98.5 KiB in +98 blocks at 2 more sites\n"},
		"query -at 10s":                      {"found: 11.5 KiB in 12 blocks; of them live at the end: 11 KiB in 11 blocks\n  1 KiB at 0x", "\n  512 B at 0x", " of \"mem\", region \"GET /\", acquired at 10s, released after 500ms: alloctrace.hold"},
		"query -grew 10s:19.5s":              {"found: 10 KiB in 10 blocks; "},
		"query -grew 90s:":                   {"found: 10 KiB in 10 blocks; "},
		"query -grew :2000-01-01T00:00:02Z":  {"found: 3.5 KiB in 4 blocks; "},
		"query -longer 95s -sort time -n 1":  {"found: 5 KiB in 5 blocks; of them live at the end: 5 KiB in 5 blocks\n  1 KiB at 0x", ", acquired at 0s, lives for 1m39.5s: ", "\n  and 4 more blocks\n"},
		"query -shorter 1s -sort life":       {"found: 50 KiB in 100 blocks; of them live at the end: 0 B in 0 blocks\n"},
		"query -size 513: -child cache":      {"found: 100 KiB in 100 blocks; "},
		"query -size :0.5K":                  {"found: 50 KiB in 100 blocks; "},
		"flame -by allocated":                {"alloctrace.hold 102400\n", "alloctrace.handle;github.com/alloctrace/alloctrace/exporters/cmd/alloctrace.hold 51200\n"},
		"export csv -child cache":            {"time_ns,event,address,size,requested,alignment,proxy,child,region,stack,dropped,reallocation\n0,allocated,0x"},
		"export -peak pprof -alone":          {"\x1f\x8b"},
		"info -alone":                        {"301 events"},
		"timeline -csv -steps 2 -child none": {"begin_ns,end_ns,proxy,child,region,stack,bytes\n0,49750000001,,,,,0\n"},
	} {
		args := strings.Fields(command)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "GET./", "GET /x")
		}
		got := r.run(whole, append(args, path)...)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: there is no %q in\n%.3000s", command, w, got)
			}
		}
	}
	if got := r.run(whole, "diff", path, path); !strings.Contains(got, "\nchanged by 0 B in 0 blocks, at 0 sites\n") || !strings.Contains(got, "lines are those of the second") {
		t.Errorf("diff of a recording with itself:\n%s", got)
	}
	if got := r.run(whole, "diff", "-at", "20s", path, path); !strings.Contains(got, ": 21.5 KiB in 22 blocks\n") {
		t.Errorf("diff of a moment:\n%s", got)
	}
}

// TestRecordingsJSON: what is printed as JSON has the names of docs/fields.md, and the numbers of the text.
func TestRecordingsJSON(t *testing.T) {
	path := newRecording(t)
	r := &runner{t: t}
	var names []string
	shared := []struct{ what, as string }{ // by several commands
		{`^.*\.unknown\.`, "unknown."}, {`^.*\.stack\[\]\.`, "stack[]."}, {`^.*\.(blocks|bytes) number`, "amount.$1 number"},
		{`^timeline\.groups\[\]\.site\.`, "site."}, {`^(?:top|leaks)\.sites\[\]\.(proxy|child|stack|live|allocated|freed|longest_ns) `, "site.$1 "},
	}
	for _, command := range []string{"info", "top -by allocated", "leaks", "timeline -by site", "timeline -by child", "timeline -by region", "diff -from 1s", "query -n -1"} {
		args := append(strings.Fields(command), "-json", path)
		for _, name := range fields.Object(t, []byte(r.run(whole, args...))) {
			name = args[0] + "." + name
			for _, s := range shared {
				name = regexp.MustCompile(s.what).ReplaceAllString(name, s.as)
			}
			names = append(names, name)
		}
	}
	fields.Compare(t, "testdata/recordings.txt", append(names, // those that say something only sometimes
		"query.blocks[].older boolean", "query.blocks[].lost boolean", "unknown.damage array", "diff.unknown_before object"))

	var top struct {
		Allocated struct{ Blocks, Bytes int64 }
		Sites     []struct {
			Stack []recording.Frame
			Live  struct{ Bytes int64 }
		}
	}
	if err := json.Unmarshal([]byte(r.run(whole, "top", "-json", path)), &top); err != nil || top.Allocated.Bytes != 150<<10 || len(top.Sites) != 1 || top.Sites[0].Live.Bytes != 100<<10 || len(top.Sites[0].Stack) < 2 {
		t.Errorf("%v, %+v", err, top)
	}
	var stacks map[string]int64
	if err := json.Unmarshal([]byte(r.run(whole, "flame", "-json", path)), &stacks); err != nil || len(stacks) != 1 {
		t.Errorf("%v, %v", err, stacks)
	}
}

// TestStatus: the status says whether all was read, and the standard error what was not.
func TestStatus(t *testing.T) {
	path := newRecording(t)
	r := &runner{t: t}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	cut, none := write("cut", b[:len(b)-1]), write("none", []byte("something else"))
	lossy := filepath.Join(dir, "lossy")
	writeLossy(t, lossy)
	for _, args := range [][]string{{"info"}, {"top"}, {"leaks"}, {"timeline"}, {"diff"}, {"diff", path}, {"query"}, {"flame"}, {"export", "pprof"}, {"export", "perfetto"}, {"export", "chrome"}, {"export", "csv"}, {"export", "parquet"}} {
		r.run(damaged, append(args, cut)...)
		if got := r.errOut.String(); !strings.HasPrefix(got, "alloctrace: "+args[0]+": ") || !strings.Contains(got, "damaged from byte ") || strings.Count(got, "\n") != 1 {
			t.Errorf("%q of a part: %q", args, got)
		}
		r.run(damaged, append(args, lossy)...)
		if got := r.errOut.String(); !strings.Contains(got, "dropped at ") || strings.Count(got, "\n") != 1 {
			t.Errorf("%q where events were dropped: %q", args, got)
		}
		r.run(failed, append(args, none)...)
		r.run(failed, append(args, filepath.Join(dir, "missing"))...)
	}
	for _, args := range [][]string{{"info"}, {"top"}, {"leaks"}, {"timeline"}, {"diff"}, {"query"}} {
		if got := r.run(damaged, append(args, lossy)...); !strings.Contains(got, "\nnot known:\n  ") || !strings.Contains(got, " counted as live, and may have been released where events are missing\n") {
			t.Errorf("%q says nothing of what is not known:\n%s", args, got)
		}
	}
	if got := r.run(damaged, "export", "csv", lossy); !strings.Contains(got, ",dropped,,,,,,,,,") {
		t.Errorf("the CSV has no gap:\n%s", got)
	}
	if got := r.run(damaged, "export", "chrome", lossy); !strings.Contains(got, `"name":"events dropped","ph":"i"`) {
		t.Errorf("the trace has no gap:\n%s", got)
	}
	if err := os.WriteFile(path+".old", []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.run(damaged, "info", path)
	r.run(whole, "info", "-alone", path)
	for _, args := range [][]string{
		{"info"}, {"info", path, path}, {"top", "-by", "size", path}, {"top", "-stack", "(", path}, {"timeline", "-by", "x", path}, {"timeline", "-steps", "0", path}, {"timeline", "-steps", "1000000000", path}, {"export", "-steps", "1000000000", "perfetto", path}, {"export", "-snapshots", "1000000000", "perfetto", path}, {"timeline", "-csv", "-json", path},
		{"diff", "-from", "x", path}, {"diff", "-to", "2h", path}, {"diff", "-at", "1s", path}, {"diff", "-from", "1s", path, path}, {"diff", path, path, path}, {"diff", "-at", "2h", path, path},
		{"query", "-at", "-1s", path}, {"query", "-grew", "5s", path}, {"query", "-grew", "5s:x", path}, {"query", "-size", "5", path}, {"query", "-size", "x:", path}, {"query", "-sort", "x", path}, {"query", "-longer", "-1s", path}, {"query", "-shorter", "0s", path}, {"query", "-shorter", "x", path}, {"query", "-size", "2:1", path}, {"query", "-grew", "2s:1s", path},
		{"export", path}, {"export", "x", path}, {"export", "-by", "region", "chrome", path}, {"export", "-steps", "0", "chrome", path}, {"export", "-snapshots", "0", "perfetto", path}, {"export", "-slices", "3", "chrome", path},
		{"export", "-peak", "csv", path}, {"export", "-blocks", "pprof", path}, {"export", "csv", "-o", filepath.Join(path, "below"), path},
	} {
		r.run(failed, args...)
	}
}

// A gate is a file that is written to once it is open.
type gate struct {
	io.Writer
	opened chan struct{}
}

func (g *gate) Write(b []byte) (int, error) {
	<-g.opened
	return g.Writer.Write(b)
}

// writeLossy writes a recording in which events were dropped.
func writeLossy(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := &gate{f, make(chan struct{}, 1)}
	out.opened <- struct{}{} // for the header
	rec, err := recording.New(out, recording.Options{Queue: 64, FlushEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	observe := func(i int) {
		rec.Observe(t.Context(), alloctrace.Event{Kind: alloctrace.Allocated, Addr: uintptr(64 * i), Size: 64, Align: 64}, nil)
	}
	for i := range 100_000 {
		if observe(1 + i); i == 10 {
			go rec.Flush() // which waits
		}
	}
	close(out.opened)
	observe(200_000)
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestProgress: how much was read is shown once for each percent, and removed in the end.
func TestProgress(t *testing.T) {
	var b bytes.Buffer
	show := progress(&b)
	for _, read := range []int64{0, 1, 10, 1000} {
		show(read, 1000)
	}
	show(0, 0)
	if got := b.String(); got != "\r  0 %\r  1 %\r      \r" {
		t.Errorf("%q", got)
	}
}

// TestParseBytes: bytes are numbers with units of 1024.
func TestParseBytes(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "4096": 4096, "4K": 4096, "4KiB": 4096, "1.5MiB": 3 << 19, "2G": 2 << 30, "1T": 1 << 40, "7B": 7, "": -1, "x": -1, "4KB": -1, "-1": -1, "1e30": -1, "4iB": -1, "K": -1, "NaN": -1} {
		got, err := parseBytes(s)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q is %d, want %d", s, got, want)
		}
	}
}

// TestNoTerminal: what is no text goes to a device that is no terminal.
func TestNoTerminal(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	var errOut bytes.Buffer
	if status := run([]string{"export", "parquet", newRecording(t)}, null, &errOut); status != whole {
		t.Errorf("status %d: %s", status, &errOut)
	}
}
