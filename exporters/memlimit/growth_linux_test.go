//go:build !race && !msan && !asan

// The detectors take memory of their own, by which nothing here could be measured.

package memlimit_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/memlimit/internal/growth"
	"github.com/alloctrace/alloctrace/internal/process"
)

const (
	budget = container * 9 / 10
	child  = "ALLOCTRACE_GROWTH" // the variable that has this test binary be the program
)

func TestMain(m *testing.M) {
	text := os.Getenv(child)
	if text == "" {
		os.Exit(m.Run())
	}
	var c growth.Config
	err := json.Unmarshal([]byte(text), &c)
	if err == nil {
		var r growth.Result
		if r, err = growth.Run(c); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(r)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// grow runs the program, in the cgroup if there is one. It takes 70 % of the budget
// off-heap, and has 12 % live in Go's heap, which GOGC=400 lets grow to 60 %.
func grow(t *testing.T, mode growth.Mode, budgetOption int64, cgroup string) (r growth.Result, err error) {
	t.Helper()
	hold := 50
	if requireAll {
		hold = 150
	}
	return run(t, growth.Config{Mode: mode, Budget: budgetOption, OffHeap: budget * 7 / 10, Live: budget * 12 / 100, Hold: hold}, 400, cgroup)
}

// run runs the program in a process of its own.
func run(t *testing.T, config growth.Config, gogc int, cgroup string) (r growth.Result, err error) {
	t.Helper()
	c, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	name, args := os.Args[0], []string(nil)
	if cgroup != "" {
		name, args = "/bin/sh", []string{"-c", `echo $$ > "$0"/cgroup.procs && exec "$1"`, cgroup, os.Args[0]}
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), child+"="+string(c), fmt.Sprint("GOGC=", gogc), "GOMEMLIMIT=off")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		return r, fmt.Errorf("%w: %s", err, stderr.String())
	}
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return r, nil
}

// survives fails t if the program with a Limiter was not well below the container's limit.
func survives(t *testing.T, r growth.Result, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("with a Limiter: peak RSS %s; %v", counter.FormatBytes(r.Peak), r.Limit)
	if r.Peak >= container {
		t.Errorf("with a Limiter %s were resident, the container has %s; the runtime gave up its limit at collection %d, never if 0",
			counter.FormatBytes(r.Peak), counter.FormatBytes(container), r.GaveUp)
	}
	limit := r.Limit.Budget - budget*7/10
	lowest := r.Limit.Budget
	for _, s := range r.Samples {
		lowest = min(lowest, s.Limit)
	}
	if band := r.Limit.Budget / 100; lowest < limit-mib || lowest > limit+band+mib { // blocks of 1 MiB
		t.Errorf("the lowest limit was %s, want %s", counter.FormatBytes(lowest), counter.FormatBytes(limit))
	}
	if r.Limit.AtFloor != 0 {
		t.Errorf("%d ticks at the floor, want none", r.Limit.AtFloor)
	}
	if r.Limit.Lowered > 72 { // 70 % in bands of 1 %, the call of New, and rounding
		t.Errorf("the limit was lowered %d times", r.Limit.Lowered)
	}
}

// TestGrowth runs a program under a simulated budget: with a Limiter it stays within its
// container, and without one, with GOMEMLIMIT at the budget, it does not.
func TestGrowth(t *testing.T) {
	r, err := grow(t, growth.Limiter, budget, "")
	survives(t, r, err)
	r, err = grow(t, growth.Static, budget, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("without: peak RSS %s", counter.FormatBytes(r.Peak))
	if r.Peak <= container {
		t.Errorf("without a Limiter %s were resident, which fits the container of %s: the program shows nothing", counter.FormatBytes(r.Peak), counter.FormatBytes(container))
	}
}

// TestOutOfMemory runs it in a real memory cgroup, which the Limiter finds by itself: with
// it the program survives, without it the kernel kills it.
func TestOutOfMemory(t *testing.T) {
	if !requireAll {
		t.Skip("it takes seconds: set ALLOCTRACE_REQUIRE_ALL=1")
	}
	cgroup := process.NewCgroup(t, container)
	r, err := grow(t, growth.Limiter, 0, cgroup)
	survives(t, r, err)
	if !strings.HasPrefix(r.Limit.From, cgroup+"/memory.") || r.Limit.Budget != budget {
		t.Errorf("the budget is %d from %s, want %d from %s", r.Limit.Budget, r.Limit.From, int64(budget), cgroup)
	}
	_, err = grow(t, growth.Static, budget, cgroup)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("without a Limiter: %v, want signal: killed", err)
	}
	t.Logf("without: %v", err)
}

// TestPacedGrowth has the program take 48 MiB beside 8 MiB of live heap: with a Pacer it has no more resident than with all of
// it on the heap, and far fewer collections than without. With a Budget the goal is below that.
func TestPacedGrowth(t *testing.T) {
	grow := func(mode growth.Mode, budget int64) growth.Result {
		t.Helper()
		r, err := run(t, growth.Config{Mode: mode, Budget: budget, OffHeap: 48 * mib, Live: 8 * mib, Hold: 200}, 100, "")
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: peak RSS %s, %d collections at the top; %v", mode, counter.FormatBytes(r.Peak), r.Cycles, r.Pace)
		return r
	}
	heap, unpaced, paced, bounded := grow(growth.OnHeap, 0), grow(growth.Unpaced, 0), grow(growth.Paced, 0), grow(growth.Paced, 90*mib)
	// A collector that waits for a processor lets more garbage be made, in either program: the least of some runs is without that.
	for range 4 {
		if paced.Peak <= heap.Peak*11/10 {
			break
		}
		heap.Peak, paced.Peak = min(heap.Peak, grow(growth.OnHeap, 0).Peak), min(paced.Peak, grow(growth.Paced, 0).Peak)
	}
	if paced.Peak > heap.Peak*11/10 {
		t.Errorf("%d bytes were resident, and %d with all of it on the heap", paced.Peak, heap.Peak)
	}
	if p := bounded.Pace; p.Goal+p.OffHeap > 90*mib && p.Percent > p.Base {
		t.Errorf("heap goal and off-heap memory are %d bytes in the end, with a Budget of %d: %v", p.Goal+p.OffHeap, 90*mib, p)
	}
	if unpaced.Cycles < 2*paced.Cycles || paced.Cycles == 0 || bounded.Cycles < paced.Cycles {
		t.Errorf("%d collections at the top, %d without a Pacer, %d with a Budget", paced.Cycles, unpaced.Cycles, bounded.Cycles)
	}
}
