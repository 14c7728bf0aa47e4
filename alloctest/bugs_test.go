package alloctest

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/internal/bugs"
	"github.com/alloctrace/alloctrace/internal/process"
)

var update = flag.Bool("update", false, "write the golden files of testdata/bugs")

// texts returns all that was reported to the test.
func (r *recorder) texts() string {
	return strings.TrimSpace(strings.Join(append(r.errors, r.fatal), "\n"))
}

// reports plants a bug and returns what the test that it is in reports.
func reports(t *testing.T, bug bugs.Bug) string {
	t.Helper()
	switch bug.Found {
	case bugs.ByFailures:
		failing := tb{TB: t}
		CheckAllFailures(&failing, func(mem *alloctrace.Proxy) error { return bug.Plant(mem, nil) })
		return strings.Join(failing.errors, "\n")
	case bugs.ByPatterns:
		var r recorder
		CheckInitialized(&r, func(mem *alloctrace.Proxy) error { return bug.Plant(mem, nil) })
		return r.texts()
	case bugs.ByNesting:
		var outer, inner recorder
		mem := New(&outer)
		commit(t, &inner, bug)
		if stats := mem.Stats(); stats.LiveBlocks != 0 {
			t.Errorf("the subtest's leak is in the test's Proxy: %v", stats)
		}
		outer.end()
		if text := outer.texts(); text != "" {
			t.Errorf("the test has the subtest's leak: %s", text)
		}
		return inner.texts()
	}
	var r recorder
	var opts []Option
	if bug.Found == bugs.ByGuards {
		opts = append(opts, WithDebug(debug.Options{Guard: true}))
	}
	commit(t, &r, bug, opts...)
	return r.texts()
}

// commit plants the bug in a test that runs and ends.
func commit(t *testing.T, in *recorder, bug bugs.Bug, opts ...Option) {
	t.Helper()
	opts = append([]Option{WithAllocator(new(bugs.Memory)), WithDebug(debug.Options{})}, opts...)
	mem, other := New(in, opts...), New(in, opts...)
	_ = Debug(mem).Catch(func() { _ = bug.Plant(mem, other) })
	in.end()
}

var varying = regexp.MustCompile(`0x[0-9a-f]{4,}|\.go:[0-9]+|; \S+ old|is \S+ old`)

// byPage is a chunk of a Scoped, whose alignment is a page, or its size where pages are larger.
var byPage = regexp.MustCompile(`of 16384 B aligned to (4096|8192|16384)`)

// stable leaves out of a report what is not the same each time, and on each machine.
func stable(text string) string {
	text = byPage.ReplaceAllString(text, "of 16384 B aligned to a page")
	return varying.ReplaceAllStringFunc(text, func(s string) string {
		switch {
		case strings.HasPrefix(s, ".go"):
			return ".go:LINE"
		case strings.HasSuffix(s, " old"):
			return s[:strings.Index(s, " ")] + " AGE old"
		}
		return "ADDR"
	}) + "\n"
}

// golden compares text with a file, or writes it there.
func golden(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join("testdata", "bugs", strings.ReplaceAll(name, " ", "-")+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: write it with go test -update", err)
	}
	if want := strings.ReplaceAll(string(want), "\r\n", "\n"); text != want {
		t.Errorf("the report is\n%s\nwant\n%s", text, want)
	}
}

// TestBugs plants each bug ten times, or a hundred, and compares each whole report.
func TestBugs(t *testing.T) {
	setDebug(t, "")
	times := 100
	if testing.Short() {
		times = 10
	}
	for _, bug := range bugs.All {
		t.Run(strings.ReplaceAll(bug.Name, " ", "-"), func(t *testing.T) {
			if bug.Found == bugs.ByRaces {
				raceIsSeen(t, bug)
				return
			}
			if bug.Found == bugs.ByGuards && runtime.GOOS == "js" {
				return // there are no guard pages
			}
			for range times {
				golden(t, bug.Name, stable(reports(t, bug)))
				if t.Failed() {
					return
				}
			}
		})
	}
}

// TestBugsByGuards: with guard pages no bug is found less.
func TestBugsByGuards(t *testing.T) {
	setDebug(t, "guard")
	for _, bug := range bugs.All {
		if bug.Found != bugs.ByRecords || bug.Name == "free in use by another goroutine" {
			continue // that faults where nobody catches it
		}
		if strings.TrimSpace(reports(t, bug)) == "" {
			t.Errorf("%s is not found", bug.Name)
		}
	}
}

// raceIsSeen: the race detector sees two goroutines write one byte of a block of New's
// Proxy, each time, and nothing where they do so one after the other. It builds a program,
// which takes long, and which not every machine can.
func raceIsSeen(t *testing.T, bug bugs.Bug) {
	if testing.Short() {
		t.Skip("a program would be built with the race detector: set ALLOCTRACE_REQUIRE_ALL=1")
	}
	if !process.CanStart(t) {
		return
	}
	racy := filepath.Join(t.TempDir(), "racy")
	if out, err := exec.Command("go", "build", "-race", "-o", racy, "./testdata/racy").CombinedOutput(); err != nil {
		if os.Getenv("ALLOCTRACE_REQUIRE_ALL") != "" {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Skip("the race detector is run by the go command, with cgo and gcc: put both on PATH")
	}
	times := 10
	if os.Getenv("ALLOCTRACE_REQUIRE_ALL") != "" {
		times = 100
	}
	for range times {
		cmd := exec.Command(racy)
		cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Fatalf("%v\n%s", err, out)
		}
		golden(t, bug.Name, stableRace(string(out)))
		if t.Failed() {
			return
		}
	}
	if out, err := exec.Command(racy, "ordered").CombinedOutput(); err != nil {
		t.Errorf("without a race: %v\n%s", err, out)
	}
}

var (
	raceGoroutine = regexp.MustCompile(`[gG]oroutine [0-9]+( \([a-z]+\))?`)
	racePath      = regexp.MustCompile(`(?m)^(\s+).*/(\w+\.go:[0-9]+) \+0x[0-9a-f]+$`)
	raceInlined   = regexp.MustCompile(`(?m)^  (sync\.|\S*/bugs\.race\(\)).*\n.*\n`)
	raceRest      = regexp.MustCompile(`(?m)^==+\n|^Found [0-9]+ data race.*\n`)
)

// stableRace is stable for the race detector, which names goroutines by number and files
// by their paths, and has functions that were inlined or not, by the version of Go.
func stableRace(text string) string {
	text = raceGoroutine.ReplaceAllString(text, "goroutine N")
	text = racePath.ReplaceAllString(text, "$1$2")
	text = raceInlined.ReplaceAllString(text, "")
	return strings.TrimSuffix(stable(raceRest.ReplaceAllString(text, "")), "\n")
}
