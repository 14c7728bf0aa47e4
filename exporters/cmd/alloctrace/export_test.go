package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/exporters/recording"
)

// A model is what a storm has done, added up beside the recording.
type model struct {
	events    map[string]int64
	allocated map[string]int64 // bytes of each child
	live      map[string]int64
	blocks    int64 // that were allocated
	peak      int64
	held      map[int]int64 // live bytes by how deep the stack is
}

func (m *model) change(child string, depth int, by int64) {
	m.live[child] += by
	m.held[depth] += by
	total := int64(0)
	for _, n := range m.live {
		total += n
	}
	m.peak = max(m.peak, total)
}

func (m *model) add(kind, child string, depth int, b blockalloc.Block) {
	m.events[kind]++
	switch size := int64(b.Size()); kind {
	case "allocated", "reallocated":
		m.blocks++
		m.allocated[child] += size
		m.change(child, depth, size)
	case "reallocating", "freeing":
		m.change(child, depth, -size)
	case "reallocate failed", "free failed":
		m.change(child, depth, size)
	}
}

// newStorm returns a recording of so many events, at least, and what it should have. Its sites are stacks of 1 to 16 calls of deep.
func newStorm(t *testing.T, events int) (path string, m *model) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "storm.alloctrace")
	rec, err := recording.Create(path, recording.Options{Queue: 1 << 16, FlushEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	m = &model{events: make(map[string]int64), allocated: make(map[string]int64), live: make(map[string]int64), held: make(map[int]int64)}
	const limit = 4 << 20
	fail, failAt := false, 100
	inner := failing.If(new(blockalloc.Heap), func(failing.Call) bool { return fail })
	mem := alloctrace.Wrap(blockalloc.NewLimit(inner, limit), alloctrace.WithName("mem"), alloctrace.WithHooks(rec))
	type held struct {
		blockalloc.Block
		child string
		depth int
	}
	var blocks []held
	random := rand.New(rand.NewPCG(1, 2))
	children := map[string]blockalloc.Allocator{"": mem, "cache": mem.Child("cache"), `it's "odd"`: mem.Child(`it's "odd"`)}
	names := []string{"", "cache", `it's "odd"`}
	for done := 0; done < events; done++ {
		if done%10_000 == 9999 {
			if err := rec.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		child, depth := names[random.IntN(len(names))], 1+random.IntN(16)
		size := 1 + uintptr(random.IntN(4096))
		if len(blocks) > 0 && done >= failAt { // some thousand in all at most, all of which a trace has
			failAt = done + 500
			b := blocks[random.IntN(len(blocks))]
			fail = true
			if _, err := children[b.child].Reallocate(b.Block, size); err == nil || children[b.child].Free(b.Block) == nil {
				t.Fatal("what was made to fail succeeds")
			}
			fail = false
			done += 3
			for _, of := range []string{"reallocating", "reallocate failed", "freeing", "free failed"} {
				m.add(of, b.child, b.depth, b.Block)
			}
		}
		switch i := random.IntN(10); {
		case len(blocks) == 0 || i < 5 && len(blocks) < 1000:
			b, err := deep(depth, func() (blockalloc.Block, error) {
				return children[child].Allocate(blockalloc.Layout{Size: size, Align: 1})
			})
			if err != nil {
				t.Fatal(err)
			}
			m.add("allocated", child, depth, b)
			blocks = append(blocks, held{b, child, depth})
		case i < 6:
			old := &blocks[random.IntN(len(blocks))]
			b, err := deep(depth, func() (blockalloc.Block, error) { return children[old.child].Reallocate(old.Block, size) })
			if err != nil {
				t.Fatal(err)
			}
			done++
			m.add("reallocating", old.child, old.depth, old.Block)
			m.add("reallocated", old.child, depth, b)
			old.Block, old.depth = b, depth
		case i < 7 && done%32 == 0:
			if _, err := children[child].Allocate(blockalloc.Layout{Size: limit + 1, Align: 1}); err == nil {
				t.Fatal("the limit lets through what is too much")
			}
			m.events["allocate failed"]++
		default:
			n := random.IntN(len(blocks))
			b := blocks[n]
			blocks[n] = blocks[len(blocks)-1]
			blocks = blocks[:len(blocks)-1]
			m.add("freeing", b.child, b.depth, b.Block)
			if err := children[b.child].Free(b.Block); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	return path, m
}

//go:noinline
func deep(n int, do func() (blockalloc.Block, error)) (blockalloc.Block, error) {
	if n > 1 {
		return deep(n-1, do)
	}
	return do()
}

func total(of map[string]int64) (sum int64) {
	for _, n := range of {
		sum += n
	}
	return sum
}

// stormEvents is how many events are exported.
func stormEvents() int {
	if testing.Short() {
		return 20_000
	}
	return 1_000_000
}

// goTool runs go tool pprof.
func goTool(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"tool", "pprof"}, args...)...)
	cmd.Env = append(os.Environ(), "PPROF_TMPDIR="+t.TempDir())
	out, err := cmd.Output()
	if err != nil {
		if os.Getenv("ALLOCTRACE_REQUIRE_ALL") != "1" && errors.Is(err, exec.ErrNotFound) {
			t.Skip("profiles are read by go tool pprof: put the go command on PATH")
		}
		t.Fatalf("%v: %v", cmd, err)
	}
	return string(out)
}

// TestExportPprof: go tool pprof reads the profile, which has what was allocated and what is live.
func TestExportPprof(t *testing.T) {
	path := newRecording(t)
	r := &runner{t: t}
	file := filepath.Join(t.TempDir(), "a.pb.gz")
	for want, args := range map[string][]string{
		"102400B": {"-sample_index=inuse_space", "-tagfocus=allocator=cache"},
		"153600B": {"-sample_index=alloc_space", "-tagfocus=proxy=mem"},
		"200B":    {"-sample_index=alloc_objects"},
		"51200B":  {"-sample_index=alloc_space", "-focus=handle"},
		"102912B": {"-sample_index=inuse_space"}, // at the peak
	} {
		r.run(whole, slices.Concat([]string{"export", "pprof", "-o", file}, map[bool][]string{true: {"-peak"}}[want == "102912B"], []string{path})...)
		top := goTool(t, slices.Concat([]string{"-top", "-unit=B"}, args, []string{file})...)
		if !regexp.MustCompile(`(?m)^ *` + want + `.* ` + regexp.QuoteMeta("github.com/alloctrace/alloctrace/exporters/cmd/alloctrace.hold") + `$`).MatchString(top) {
			t.Errorf("of %q there is no %s in\n%s", args, want, top)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := profile.ParseData(b)
	if err != nil || p.CheckValid() != nil || p.DurationNanos != 99500e6 || p.Period != 1 {
		t.Errorf("%v, %v", err, p)
	}
}

// TestExportChrome: the trace has counters of each child, and what failed as an instant.
func TestExportChrome(t *testing.T) {
	var trace struct {
		TraceEvents []struct {
			Name string
			Ph   string
			TS   *float64
			PID  *int
			TID  *int
			S    string
			Args map[string]any
		}
	}
	r := &runner{t: t}
	if err := json.Unmarshal([]byte(r.run(whole, "export", "chrome", "-steps", "200", newRecording(t))), &trace); err != nil {
		t.Fatal(err)
	}
	most, last, failures := make(map[string]float64), make(map[string]float64), 0
	for _, e := range trace.TraceEvents {
		if e.TS == nil || e.PID == nil || e.TID == nil {
			t.Fatalf("%+v", e)
		}
		switch e.Ph {
		case "C":
			bytes := e.Args["bytes"].(float64)
			most[e.Name], last[e.Name] = max(most[e.Name], bytes), bytes
		case "i":
			failures++
			if e.Name != "allocate failed" || *e.TS != 50e6 || e.S != "p" || e.Args["size"] != 2097152. || e.Args["of"] != `"mem"` {
				t.Errorf("%+v", e)
			}
		case "M":
			if e.Name != "process_name" {
				t.Errorf("%+v", e)
			}
		default:
			t.Errorf("%+v", e)
		}
	}
	if failures != 1 || len(most) != 3 || most["live bytes"] != 102912 || last["live bytes"] != 102400 || most[`live bytes of "mem", child "cache"`] != 102400 || last[`live bytes of "mem", child "cache"`] != 102400 || most[`live bytes of "mem"`] != 512 || last[`live bytes of "mem"`] != 0 {
		t.Errorf("%d failures, %v, %v", failures, most, last)
	}
}

// TestExportCSV: rows of events and of blocks are what happened.
func TestExportCSV(t *testing.T) {
	path := newRecording(t)
	r := &runner{t: t}
	rows := func(args ...string) [][]string {
		t.Helper()
		list, err := csv.NewReader(strings.NewReader(r.run(whole, append(args, path)...))).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		return list[1:]
	}
	kinds := make(map[string]int)
	for _, row := range rows("export", "csv") {
		kinds[row[1]]++
		if row[1] == "allocate failed" && (row[0] != "50000000000" || row[2] != "0x0" || row[3] != "2097152" || row[6] != "mem") {
			t.Errorf("%q", row)
		}
	}
	if kinds["allocated"] != 200 || kinds["freeing"] != 100 || kinds["allocate failed"] != 1 || len(kinds) != 3 {
		t.Errorf("%v", kinds)
	}
	states, bytes := make(map[string]int), 0
	for _, row := range rows("export", "csv", "-blocks") {
		states[row[2]]++
		size, err := strconv.Atoi(row[4])
		bytes += size
		if err != nil || row[7] == "cache" != (row[8] == "") || row[4] != row[5] || !strings.Contains(row[9], "alloctrace.hold (") {
			t.Errorf("%q, %v", row, err)
		}
	}
	if states["live"] != 100 || states["released"] != 100 || bytes != 150<<10 {
		t.Errorf("%v, %d bytes", states, bytes)
	}
	if list := rows("timeline", "-csv", "-by", "site", "-steps", "10"); len(list) != 20 || list[9][6] != "102400" || list[0][3] != "cache" || !strings.Contains(list[0][5], "alloctrace.hold (") {
		t.Errorf("%q", list)
	}
}

// A heapWatcher remembers the largest heap that there was while something was written to it.
type heapWatcher struct {
	writes  int
	written int64
	most    uint64
}

func (w *heapWatcher) Write(b []byte) (int, error) {
	w.written += int64(len(b))
	if w.writes++; w.writes%64 == 1 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		w.most = max(w.most, stats.HeapAlloc)
	}
	return len(b), nil
}

// TestExportMemory: the memory that an export takes is that of what is live, of sites and of a group of rows, and not of all events.
func TestExportMemory(t *testing.T) {
	path, _ := newStorm(t, stormEvents())
	for _, args := range [][]string{{"perfetto"}, {"chrome"}, {"csv"}, {"csv", "-blocks"}, {"parquet"}, {"parquet", "-blocks"}} {
		var before, w heapWatcher
		var errOut bytes.Buffer
		_, _ = before.Write(nil)
		if got := run(slices.Concat([]string{"export"}, args, []string{path}), &w, &errOut); got != whole {
			t.Fatalf("%q exits with %d: %s", args, got, &errOut)
		}
		const most = 96 << 20
		if grown := int64(w.most) - int64(before.most); grown > most {
			t.Errorf("%q: %d bytes for %d written", args, grown, w.written)
		} else {
			t.Logf("%q: %d bytes for %d written", args, grown, w.written)
		}
	}
}
