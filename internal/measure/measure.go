// Package measure times things against each other, so that a figure means
// something on a machine that is busy or changes its speed, and prints rows of
// name, value, unit, bound and verdict. It is for this project's benchmarks.
package measure

import (
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A Subject is timed by running n of its operations.
type Subject struct {
	Name string
	Turn int // operations a turn; 0 finds how many take some 50 µs
	Run  func(n int)
}

// Atomic is the subject that gives the unit A, one uncontended atomic addition.
// Like all that it is compared with, it is called: nothing that follows an atomic
// addition can begin before it has ended, so that the addition alone, inlined into
// an empty loop, would flatter no one but itself.
func Atomic() Subject {
	var word atomic.Int64
	return Subject{"atomic", 2000, func(n int) {
		for range n {
			AddOne(&word)
		}
	}}
}

// AddOne is the unit A.
//
//go:noinline
func AddOne(word *atomic.Int64) { word.Add(1) }

// Pairs is the subject that allocates and frees a block of 4 KiB. The allocators are alike and take turns: what one costs is
// up to twice as much where its words happen to lie badly, which the median then leaves out.
func Pairs(name string, turn int, allocators ...blockalloc.Allocator) Subject {
	page := blockalloc.BlockLayout(4 << 10)
	next := 0
	return Subject{name, turn, func(n int) {
		a := allocators[next%len(allocators)]
		next++
		for range n {
			b, _ := a.Allocate(page)
			_ = a.Free(b)
		}
	}}
}

// Times are nanoseconds an operation, by subject and round.
type Times struct {
	rounds int
	times  map[string][]float64
}

// Run times the subjects in turns of a fraction of a millisecond, so many rounds. Each
// round has them at another depth of the stack: a processor that looks at the last 12
// bits of addresses first is up to a third slower where those of the stack and of
// what a subject writes happen to be the same. Every other round has the subjects in reverse,
// for what one leaves to the next, as garbage.
func Run(rounds int, subjects []Subject) *Times {
	t := &Times{rounds, make(map[string][]float64)}
	for i, s := range subjects {
		if s.Turn == 0 {
			subjects[i].Turn = turn(s.Run)
		}
	}
	for round := range rounds {
		deeper(round%depths, func() {
			for i := range subjects {
				if round%2 == 1 {
					i = len(subjects) - 1 - i
				}
				s := subjects[i]
				start := time.Now()
				s.Run(s.Turn)
				t.times[s.Name] = append(t.times[s.Name], float64(time.Since(start))/float64(s.Turn))
			}
		})
	}
	return t
}

// depths is how many depths of 32 bytes fill the 4096 after which those 12 bits are the
// same again.
const depths = 128

// deeper calls f that much further up the stack, in no more than 22 frames: what looks
// at who called it must not find more than in a program.
func deeper(by int, f func()) { deeperBy512(by/16, func() { deeperBy32(by%16, f) }) }

//go:noinline
func deeperBy512(n int, f func()) {
	var frame [512 - 32]byte
	frame[n]++
	if n > 0 {
		deeperBy512(n-1, f)
	} else {
		f()
	}
	frame[n]++
}

//go:noinline
func deeperBy32(n int, f func()) {
	if n > 0 {
		deeperBy32(n-1, f)
		return
	}
	f()
}

// turn returns how many operations take some 50 µs, 2000 at most.
func turn(run func(n int)) int {
	run(2) // warms up
	n := 1
	for n < 2000 {
		start := time.Now()
		run(n)
		if time.Since(start) > 50*time.Microsecond {
			break
		}
		n *= 2
	}
	return n
}

func (t *Times) median(of func(round int) float64) float64 {
	values := make([]float64, t.rounds)
	for i := range values {
		values[i] = of(i)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// Median returns what x costs, in nanoseconds.
func (t *Times) Median(x string) float64 {
	return t.median(func(i int) float64 { return t.times[x][i] })
}

// Ratio returns how many times y's cost x costs: the median of the rounds' ratios.
func (t *Times) Ratio(x, y string) float64 {
	return t.median(func(i int) float64 { return t.times[x][i] / t.times[y][i] })
}

// Over returns how much more x costs than y, in what the subject unit costs.
func (t *Times) Over(x, y, unit string) float64 {
	return t.median(func(i int) float64 { return (t.times[x][i] - t.times[y][i]) / t.times[unit][i] })
}

// NoBound is the bound of a row that is there to be read.
const NoBound = -1

// Row prints a row, and fails the benchmark if value is over the bound.
func Row(w io.Writer, tb testing.TB, name string, value float64, unit string, bound float64) {
	limit, verdict := "-", "ok"
	if bound >= 0 {
		limit = fmt.Sprint(bound)
		if value > bound {
			verdict = "over"
			tb.Errorf("%s is %.2f %s, over its bound of %v", name, value, unit, bound)
		}
	}
	fmt.Fprintf(w, "%-32s %8.2f %-9s %5s %s\n", name, value, unit, limit, verdict)
}
