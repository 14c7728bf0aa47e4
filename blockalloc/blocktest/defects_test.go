package blocktest_test

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
	"github.com/alloctrace/alloctrace/internal/process"
)

// flawed are the allocators here that can be had with a defect.
var flawed = map[string]func(defect string) blocktest.Config{
	"Heap":   brokenConfig,
	"Stack":  stackConfig,
	"Slots":  slotsConfig,
	"Relay":  relayConfig,
	"Frames": framesConfig,
}

// planted lists defects by allocator and by the clause that must find them. The defects
// that blockalloc itself once had are among them. Those of a Heap are named after the
// clause.
var planted = []struct {
	allocator, clause string
	defects           []string
}{
	{"Stack", "PastTheEnd", []string{"end is owned"}},
	{"Stack", "LastByte", []string{"last byte", "last byte of a growing block"}},
	{"Stack", "ShrinkAtTheEnd", []string{"overruns when shrinking"}},
	{"Stack", "Neighbours", []string{"shrinks too far"}},
	{"Stack", "Padding", []string{"padding is lost"}},
	{"Stack", "Model", []string{"ignores Zeroed", "grows into dirty memory", "shrinks too far"}},
	{"Stack", "Close", []string{"stays open", "refuses to close", "keeps its memory"}},
	{"Stack", "ParentFailures", []string{"constructor leaks", "forgets when close fails"}},

	{"Stack", "ZeroedLayout", []string{"ignores Zeroed"}},
	{"Stack", "ZeroedGrowth", []string{"ignores Zeroed", "grows into dirty memory"}},

	{"Slots", "Zeroed", []string{"not zeroed again"}},
	{"Slots", "ZeroedLayout", []string{"not zeroed again", "slack is not zeroed"}},
	{"Slots", "ZeroedGrowth", []string{"forgets Zeroed"}},
	{"Slots", "ZeroedRaw", []string{"forgets Zeroed", "slack is dirty"}},
	{"Slots", "ReallocateToZero", []string{"slot is lost"}},
	{"Slots", "FailedReallocate", []string{"loses the block", "counts failures"}},
	{"Slots", "DoubleFree", []string{"live below zero"}},
	{"Slots", "InteriorFree", []string{"interior"}},
	{"Slots", "RequestedSize", []string{"wants the granted size", "counts what was given"}},
	{"Slots", "Find", []string{"finds free slots", "finds no interior", "finds without the request", "finds past the end"}},
	{"Slots", "Exhaustion", []string{"loses the block", "slot is lost", "live below zero"}},
	{"Slots", "Close", []string{"closes with live blocks", "refuses and closes", "keeps its memory"}},
	{"Slots", "Model", []string{"forgets Zeroed", "one double free in 30", "interior", "slot is lost", "not zeroed again", "loses the block", "stays raw", "slack is dirty", "keeps its memory", "finds no interior"}},
	{"Slots", "Concurrent", []string{"not zeroed again", "slot twice"}},
	{"Slots", "ConcurrentDoubleFree", []string{"two frees"}},
	{"Slots", "ConcurrentHandOver", []string{"slot twice", "slot is lost beside others"}},
	{"Slots", "ConcurrentExhaustion", []string{"last slot twice"}},
	{"Slots", "ConcurrentClose", []string{"closes late"}},

	{"Relay", "Find", []string{"finds nothing"}},
	{"Relay", "ParentFailures", []string{"hides the error", "drops the error of Free", "returns nothing", "leaks the new block"}},
	{"Relay", "ParentEndings", []string{"stays locked", "leaks where the parent panics"}},

	{"Frames", "Model", []string{"pop forgets a block", "pop fails", "count stops", "freed twice", "frozen too many"}},
}

const defectVariable = "ALLOCTRACE_TEST_DEFECT"

// TestSuiteFindsDefects runs clauses, in processes of their own, over allocators
// that each have one defect, and expects the clause to say so.
func TestSuiteFindsDefects(t *testing.T) {
	if allocator, defect, ok := strings.Cut(os.Getenv(defectVariable), "/"); ok {
		blocktest.Run(t, flawed[allocator](defect))
		return
	}
	if !process.CanStart(t) {
		return
	}
	for clause := range brokenHeaps() {
		t.Run("Heap/"+clause, func(t *testing.T) {
			t.Parallel()
			expectFailure(t, clause, "Heap/"+clause)
		})
	}
	for _, p := range planted {
		for _, defect := range p.defects {
			t.Run(p.allocator+"/"+p.clause+"/"+defect, func(t *testing.T) {
				t.Parallel()
				expectFailure(t, p.clause, p.allocator+"/"+defect)
			})
		}
	}
}

// TestEveryClauseHasADefect: no clause is there that was not seen to fail.
func TestEveryClauseHasADefect(t *testing.T) {
	seen := make(map[string]bool)
	for clause := range brokenHeaps() {
		seen[clause] = true
	}
	for _, p := range planted {
		seen[p.clause] = true
	}
	for _, clause := range blocktest.Clauses() {
		if !seen[clause] {
			t.Errorf("no defect is planted that clause %s must find", clause)
		}
		delete(seen, clause)
	}
	for clause := range seen {
		t.Errorf("a defect is planted for %s, which is no clause", clause)
	}
}

// expectFailure runs one clause over an allocator with a defect, and returns what
// it prints.
func expectFailure(t *testing.T, clause, defect string, env ...string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestSuiteFindsDefects$/^"+clause+"$", "-test.timeout=1m")
	cmd.Env = append(append(os.Environ(), defectVariable+"="+defect), env...)
	out, err := cmd.CombinedOutput()
	if want := "--- FAIL: TestSuiteFindsDefects/" + clause + " "; err == nil || !strings.Contains(string(out), want) {
		t.Errorf("the suite passes (%v), want %q:\n%s", err, want, out)
	}
	return string(out)
}

var replayLine = regexp.MustCompile(`to play only this: ALLOCTRACE_OPERATIONS=([0-9a-f]+) `)

// TestFailuresAreShort: for random operations that fail, the suite prints a few lines,
// and its script fails in the same way by itself.
func TestFailuresAreShort(t *testing.T) {
	if !process.CanStart(t) {
		return
	}
	for _, c := range []struct{ clause, defect string }{
		{"Model", "Slots/loses the block"}, {"Model", "Stack/shrinks too far"}, {"ParentFailures", "Relay/leaks the new block"},
		{"Model", "Frames/pop forgets a block"}, {"Model", "Frames/pop fails"}, {"Model", "Frames/count stops"},
	} {
		t.Run(c.defect, func(t *testing.T) {
			t.Parallel()
			out := expectFailure(t, c.clause, c.defect)
			if n := strings.Count(out, "\n"); n > 24 {
				t.Errorf("%d lines, want 24 at most:\n%s", n, out)
			}
			script := replayLine.FindStringSubmatch(out)
			if script == nil {
				t.Fatalf("no script in\n%s", out)
			}
			again := expectFailure(t, c.clause, c.defect, "ALLOCTRACE_OPERATIONS="+script[1])
			steps := func(s string) string {
				_, s, _ = strings.Cut(s, "This is what comes of")
				s, _, _ = strings.Cut(s, "    random.go")
				return address.ReplaceAllString(strings.TrimSuffix(strings.TrimSpace(s), "FAIL"), "0x")
			}
			if first, second := strings.Fields(steps(out)), strings.Fields(steps(again)); !slices.Equal(first, second) {
				t.Errorf("the script gives\n%s\nwant\n%s", again, out)
			}
		})
	}
}

var update = flag.Bool("update", false, "write the golden files of testdata/steps")

// TestStepsAreReported: if a Step or the Check fails, it is named, with the seed, the
// operations before, and a script.
func TestStepsAreReported(t *testing.T) {
	if !process.CanStart(t) {
		return
	}
	for _, defect := range []string{"pop fails", "pop forgets a block", "count stops", "freed twice", "frozen too many"} {
		t.Run(defect, func(t *testing.T) {
			t.Parallel()
			_, got, _ := strings.Cut(expectFailure(t, "Model", "Frames/"+defect), "TestSuiteFindsDefects/Model/")
			got, _, _ = strings.Cut(got, "\nFAIL")
			got = volatile.ReplaceAllString(address.ReplaceAllString(got, "0x…"), "")
			golden := filepath.Join("testdata", "steps", strings.ReplaceAll(defect, " ", "-")+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got+"\n" != strings.ReplaceAll(string(want), "\r", "") {
				t.Errorf("the suite prints\n%s\nwant, as in %s\n%s", got, golden, want)
			}
		})
	}
}

// volatile is what changes from run to run, or with each line of the suite.
var volatile = regexp.MustCompile(` \(\d+\.\d+s\)|random\.go:\d+: `)

var address = regexp.MustCompile(`0x[0-9a-f]+`)
