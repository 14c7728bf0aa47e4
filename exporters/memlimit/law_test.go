package memlimit

import (
	"math"
	"testing"
	"time"
)

const mib = 1 << 20

func TestLaw(t *testing.T) {
	l := newLaw(1000*mib, 0, 40*time.Millisecond)
	if want := (law{1000 * mib, 100 * mib, 10 * mib, 20 * mib}); l != want {
		t.Fatalf("newLaw = %+v, want %+v", l, want)
	}
	for _, c := range []struct {
		name                 string
		limit, offHeap, want int64 // MiB
	}{
		{"at rest", 1000, 0, 1000},
		{"grown by less than a band", 1000, 9, 1000},
		{"grown by a band", 1000, 10, 990},
		{"grown much, lowered at once", 1000, 700, 300},
		{"more than the floor leaves", 1000, 950, 100},
		{"more than the budget", 300, 5000, 100},
		{"a source that is below nothing", 1000, -50, 1000},
		{"shrunk by less than a band", 300, 691, 300},
		{"shrunk by a band", 300, 690, 310},
		{"shrunk much, raised slowly", 300, 0, 320},
		{"the last step", 985, 0, 1000},
		{"the budget was lowered", 3000, 0, 1000},
		{"the budget and so the floor was raised", 50, 5000, 100},
	} {
		if got := l.next(c.limit*mib, c.offHeap*mib); got != c.want*mib {
			t.Errorf("%s: from %d MiB with %d MiB off-heap to %d MiB, want %d", c.name, c.limit, c.offHeap, got/mib, c.want)
		}
	}
}

func TestFloor(t *testing.T) {
	for _, c := range []struct{ budget, option, want int64 }{
		{1000 * mib, 0, 100 * mib},
		{1000 * mib, 50 * mib, 100 * mib},
		{1000 * mib, 300 * mib, 300 * mib},
		{64 * mib, 0, 16 * mib},
		{8 * mib, 0, 8 * mib},
		{100 * mib, 300 * mib, 100 * mib},
		{1, 0, 1},
	} {
		if got := newLaw(c.budget, c.option, time.Second).floor; got != c.want {
			t.Errorf("budget %d, Options.Floor %d: floor %d, want %d", c.budget, c.option, got, c.want)
		}
	}
}

// FuzzLaw holds the law to what the package comment says of it, from any limit.
func FuzzLaw(f *testing.F) {
	f.Add(int64(256*mib), int64(0), 20, int64(256*mib), int64(180*mib), int64(180*mib+1))
	f.Add(int64(1), int64(0), 10, int64(0), int64(1), int64(-1))
	f.Add(int64(math.MaxInt64), int64(math.MaxInt64), 3000, int64(math.MinInt64), int64(math.MaxInt64), int64(math.MinInt64))
	f.Fuzz(func(t *testing.T, budget, floor int64, ms int, limit, off, more int64) {
		if budget < 1 || floor < 0 || ms < 10 || ms > 1e6 {
			return
		}
		if more < off {
			off, more = more, off
		}
		l := newLaw(budget, floor, time.Duration(ms)*time.Millisecond)
		if l.floor < 1 || l.floor > l.budget || l.band < 1 || l.rise < l.band {
			t.Fatalf("%+v", l)
		}
		n := l.next(limit, off)
		if n < l.floor || n > l.budget {
			t.Errorf("next = %d, outside [%d, %d]", n, l.floor, l.budget)
		}
		if n < l.next(limit, more) {
			t.Errorf("from %d with %d off-heap to %d, and with %d to more: %d", limit, off, n, more, l.next(limit, more))
		}
		if limit >= l.floor && limit <= l.budget {
			if n != limit && n > limit-l.band && n < limit+l.band {
				t.Errorf("a change from %d to %d, less than the band of %d", limit, n, l.band)
			}
			if n > limit && n-limit > l.rise {
				t.Errorf("a rise from %d to %d, more than %d", limit, n, l.rise)
			}
			if d := l.target(off); n != limit && (n-limit > 0) != (d-limit > 0) {
				t.Errorf("from %d to %d, away from the target %d", limit, n, d)
			}
		}
		ticks := 0
		for next := n; ; ticks++ { // at rest in 100 ticks, or as many as a band that is rounded down takes
			n, next = next, l.next(next, off)
			if next == n {
				break
			}
			if int64(ticks) > l.budget/l.band {
				t.Fatalf("no rest after %d ticks with %d off-heap: %+v, limit %d", ticks, off, l, n)
			}
		}
		if d := l.target(off) - n; d >= l.band || d <= -l.band {
			t.Errorf("at rest at %d, %d from the target; the band is %d", n, d, l.band)
		}
		calls := 0
		for i := range int64(10) { // off-heap memory that moves by less than a band
			next := l.next(n, max(0, off)-(i%2)*(l.band-1))
			if next != n {
				calls++
			}
			n = next
		}
		if calls > 1 {
			t.Errorf("%d calls within a band", calls)
		}
	})
}
