package measure

import (
	"fmt"
	"strings"
	"testing"
)

// TestRun counts the turns of each subject, which come one after the other, every other round in reverse.
func TestRun(t *testing.T) {
	var order strings.Builder
	count := func(name string) func(int) {
		return func(n int) { fmt.Fprintf(&order, "%s%d ", name, n) }
	}
	got := Run(3, []Subject{{"x", 7, count("x")}, {"y", 2, count("y")}})
	if want := "x7 y2 y2 x7 x7 y2 "; order.String() != want {
		t.Errorf("ran %s, want %s", order.String(), want)
	}
	if len(got.times["x"]) != 3 || len(got.times["y"]) != 3 {
		t.Errorf("times %v, want three of each subject", got.times)
	}
}

// TestTurn: where none is given, a turn is found, and the first operations are left out.
func TestTurn(t *testing.T) {
	runs := 0
	turns := []Subject{{"idle", 0, func(int) { runs++ }}}
	Run(2, turns)
	if turns[0].Turn < 1 || turns[0].Turn > 2048 {
		t.Errorf("a turn has %d operations, want 1 to 2048", turns[0].Turn)
	}
	if runs < 4 {
		t.Errorf("%d runs, want one to warm up, one at least to find the turn, and two rounds", runs)
	}
}

// TestRatios: what is shown is the median of the rounds' ratios, not the ratio of medians.
func TestRatios(t *testing.T) {
	got := &Times{3, map[string][]float64{
		"atomic": {2, 4, 20},
		"once":   {2, 4, 30},
		"thrice": {6, 10, 90},
	}}
	if r := got.Ratio("thrice", "once"); r != 3 {
		t.Errorf("Ratio = %v, want 3 of 3, 2.5 and 3", r)
	}
	if a := got.Over("thrice", "once", "atomic"); a != 2 {
		t.Errorf("Over = %v, want 2 of 2, 1.5 and 3", a)
	}
	if m := got.Median("thrice"); m != 10 {
		t.Errorf("Median = %v, want 10", m)
	}
}

// An errorCounter is a testing.TB that takes errors.
type errorCounter struct {
	testing.TB
	errors int
}

func (c *errorCounter) Errorf(string, ...any) { c.errors++ }

func TestRow(t *testing.T) {
	var out strings.Builder
	tb := &errorCounter{TB: t}
	Row(&out, tb, "pair", 4.214, "A", 4.5)
	Row(&out, tb, "read", 123, "ns", NoBound)
	if tb.errors != 0 {
		t.Errorf("%d errors for what is within its bound", tb.errors)
	}
	Row(&out, tb, "pair", 4.6, "A", 4.5)
	if tb.errors != 1 {
		t.Errorf("%d errors for one that is over", tb.errors)
	}
	const want = `pair                                 4.21 A           4.5 ok
read                               123.00 ns            - ok
pair                                 4.60 A           4.5 over
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}
