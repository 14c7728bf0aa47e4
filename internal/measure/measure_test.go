package measure

import (
	"strings"
	"testing"
)

// spin takes time in proportion to n.
func spin(times int) func(n int) {
	s := Atomic()
	return func(n int) { s.Run(n * times) }
}

func TestRatios(t *testing.T) {
	got := Run(101, []Subject{Atomic(), {"once", 0, spin(1)}, {"thrice", 0, spin(3)}})
	// Wide bounds, for the machine may be busy: this is about which is divided by which.
	if r := got.Ratio("thrice", "once"); r < 1.5 || r > 6 {
		t.Errorf("thrice the work takes %.2f times as long", r)
	}
	if a := got.Over("thrice", "once"); a < 1 || a > 4 {
		t.Errorf("two atomic additions more cost %.2f A", a)
	}
	if got.Median("thrice") <= got.Median("once") {
		t.Error("thrice the work is faster")
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
