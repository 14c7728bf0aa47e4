package hooks

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/shard"
)

// numbered is an event from which its number can be told, in each of its fields.
func numbered(n uint64) alloctrace.Event {
	n = uint64(uintptr(n))
	return alloctrace.Event{Kind: alloctrace.Kind(1 + n%7), Addr: uintptr(n), Size: uintptr(n * 3 & (1<<48 - 1)), Align: 1 << (n % 30)}
}

func numberOf(t *testing.T, e alloctrace.Event) uint64 {
	t.Helper()
	if n := uint64(e.Addr); e == numbered(n) {
		return n
	}
	t.Errorf("%+v is of no one event", e)
	return 0
}

func TestRingKeepsTheLast(t *testing.T) {
	r := NewRing(5, nil)
	for n := range uint64(20) {
		var want []uint64
		for i := n - min(n, 8) + 1; i <= n; i++ { // 5 is rounded up
			want = append(want, i)
		}
		var got []uint64
		for _, rec := range r.Records() {
			if !rec.Time.IsZero() {
				t.Errorf("without a clock a record has the time %v", rec.Time)
			}
			got = append(got, numberOf(t, rec.Event))
		}
		if !slices.Equal(got, want) || r.Told() != n {
			t.Errorf("after %d events: %d, told %d; want %d", n, got, r.Told(), want)
		}
		r.Observe(t.Context(), numbered(n+1))
	}
}

// TestRingErrors: an error is that of its event; of too many, the first are forgotten.
func TestRingErrors(t *testing.T) {
	r := NewRing(256, Precise)
	before := time.Now()
	var errs []error
	for i := range 100 {
		errs = append(errs, fmt.Errorf("error %d", i))
		r.Observe(t.Context(), alloctrace.Event{Kind: alloctrace.AllocateFailed, Size: uintptr(i), Align: 3, Err: errs[i]})
		r.Observe(t.Context(), numbered(7))
	}
	records := r.Records()
	if len(records) != 200 {
		t.Fatalf("%d records, want 200", len(records))
	}
	for i, err := range errs {
		want := alloctrace.Event{Kind: alloctrace.AllocateFailed, Size: uintptr(i), Align: 3, Err: err}
		if i < 100-64 {
			want = alloctrace.Event{Err: ErrForgotten}
		}
		if got := records[2*i]; got.Event != want || records[2*i+1].Err != nil {
			t.Errorf("record %d: %+v, want %+v", 2*i, got.Event, want)
		}
		if got := records[2*i].Time; got.Before(before.Truncate(time.Microsecond)) || got.After(time.Now()) {
			t.Errorf("record %d is of %v, want a time since %v", 2*i, got, before)
		}
	}
}

// TestRingClock: events of different shards come in the order of the clock.
func TestRingClock(t *testing.T) {
	clock := new(stepClock)
	r := NewRing(16, clock)
	spread(r)
	for n := range uint64(16) {
		into := &Ring{clock: clock, home: ringShard{records: r.shards()[n%3].records}}
		into.home.head.Store(r.shards()[n%3].head.Add(1) - 1)
		into.Observe(t.Context(), numbered(n+1))
	}
	var got []uint64
	for _, rec := range r.Records() {
		got = append(got, numberOf(t, rec.Event))
	}
	if !slices.IsSorted(got) || len(got) != 16 {
		t.Errorf("events %d, want 1 to 16", got)
	}
}

type stepClock struct{ now atomic.Int64 }

func (c *stepClock) Now() int64 { return c.now.Add(1) }

// spread has r spread over shards.
func spread(r *Ring) {
	for i := range uint32(2 * shard.Patience) {
		r.meet(&r.home, i%2)
	}
}

// TestRingHash: a record of parts of two others is not taken for either.
func TestRingHash(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	r := NewRing(1, nil)
	s := &r.home
	for range 20_000 {
		small := func() uint64 { return rnd.Uint64() >> rnd.IntN(64) }
		var both [2]record
		var numbers [2]uint64
		for i := range both {
			numbers[i] = 1 + small()
			addr, rest, at := small(), small(), small()
			both[i] = record{addr, rest, at, hash(numbers[i], addr, rest, at)}
		}
		if both[0] == both[1] {
			continue
		}
		mask := 1 + rnd.IntN(1<<len(record{})-2)
		for i := range s.records[0] {
			s.records[0][i] = both[mask>>i&1][i]
		}
		if s.records[0] == both[0] || s.records[0] == both[1] {
			continue // they have the rest in common
		}
		for _, n := range numbers {
			if rec, ok := r.read(s, n); ok {
				t.Fatalf("%x, of %x, is read as %+v", s.records[0], both, rec)
			}
		}
	}
}

// TestRingRareEvents: what does not fit into a record is kept whole beside it.
func TestRingRareEvents(t *testing.T) {
	r := NewRing(16, nil)
	want := []alloctrace.Event{
		{},
		{Kind: alloctrace.AllocateFailed, Size: ^uintptr(0), Align: 8},
		{Kind: alloctrace.AllocateFailed, Size: 999, Align: 999},
		{Kind: alloctrace.FreeFailed, Addr: ^uintptr(0), Size: 1, Align: 1, Err: blockalloc.ErrNotOwned},
		{Kind: alloctrace.Freeing, Addr: 1 << 31, Size: 1<<31 - 1, Align: 1 << 31},
	}
	for _, e := range want {
		r.Observe(t.Context(), e)
	}
	for i, rec := range r.Records() {
		if rec.Event != want[i] {
			t.Errorf("record %d is %+v, want %+v", i, rec.Event, want[i])
		}
	}
}

// TestRingTorn has goroutines write over each other's records while others read: what
// is read is of one event.
func TestRingTorn(t *testing.T) {
	steps := uint64(100_000)
	if testing.Short() {
		steps /= 10
	}
	for _, size := range []int{1, 8, 1024} {
		r := NewRing(size, nil)
		var writers, readers sync.WaitGroup
		var stop atomic.Bool
		for w := range uint64(4) {
			writers.Go(func() {
				for i := range steps {
					r.Observe(context.Background(), numbered(w<<24|i))
				}
			})
		}
		for range 2 {
			readers.Go(func() {
				for last := false; !last; {
					last = stop.Load()
					for _, rec := range r.Records() {
						if n := uint64(rec.Addr); rec.Event != numbered(n) {
							t.Errorf("%+v is of no one event", rec.Event)
							return
						}
					}
				}
			})
		}
		writers.Wait()
		stop.Store(true)
		readers.Wait()
		if r.Told() != 4*steps {
			t.Errorf("told %d events, want %d", r.Told(), 4*steps)
		}
	}
}

func TestRingSpreads(t *testing.T) {
	r := NewRing(4, nil)
	r.Observe(t.Context(), numbered(1))
	spread(r)
	if n := len(r.shards()); n != int(shard.Count)+1 {
		t.Fatalf("%d shards, want home and %d", n, shard.Count)
	}
	first := r.spread.Load()
	spread(r)
	if r.spread.Load() != first {
		t.Error("spread again")
	}
	r.Observe(t.Context(), numbered(2))
	if r.home.head.Load() != 1 || r.Told() != 2 || len(r.Records()) != 2 {
		t.Errorf("told %d, of which home %d, with %d records; want 2, 1 and 2", r.Told(), r.home.head.Load(), len(r.Records()))
	}
}

func TestRingDoesNotAllocate(t *testing.T) {
	clock := NewCoarseClock(time.Millisecond)
	defer clock.Close()
	r := NewRing(64, clock)
	err := errors.New("no")
	for _, e := range []alloctrace.Event{numbered(1), {Kind: alloctrace.FreeFailed, Err: err}} {
		if n := testing.AllocsPerRun(1000, func() { r.Observe(context.Background(), e) }); n != 0 {
			t.Errorf("%v: %v allocations an event, want none", e.Kind, n)
		}
	}
}

// TestDrainer: every event is told or counted as dropped, however slow the hook is.
func TestDrainer(t *testing.T) {
	const writers, steps = 4, 20_000
	for name, pause := range map[string]int{"fast": 0, "slow": 200} {
		t.Run(name, func(t *testing.T) {
			r := NewRing(256, nil)
			told := uint64(0)
			d := Drain(r, alloctrace.HookFunc(func(_ context.Context, e alloctrace.Event) {
				n := uint64(e.Addr)
				if e != numbered(n) {
					t.Errorf("told %+v, which is of no one event", e)
				}
				told++
				for range pause {
					slowly.Add(1)
				}
			}), 100*time.Microsecond)
			var wg sync.WaitGroup
			for w := range uint64(writers) {
				wg.Go(func() {
					for i := range uint64(steps) {
						r.Observe(context.Background(), numbered(w<<24|i))
						if i%100 == 0 {
							time.Sleep(time.Microsecond)
						}
					}
				})
			}
			wg.Wait()
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if d.Told() != told || told+d.Dropped() != writers*steps || told == 0 {
				t.Errorf("told %d, which were %d, and dropped %d; want %d together", d.Told(), told, d.Dropped(), writers*steps)
			}
			before := told
			r.Observe(t.Context(), numbered(1))
			d.Close()
			if d.Told() != before+1 {
				t.Error("a second Close does not tell what came since")
			}
		})
	}
}

var slowly atomic.Int64

// TestDrainerDrops: of what the Ring has no room for, all is counted.
func TestDrainerDrops(t *testing.T) {
	r := NewRing(8, nil)
	var got []uint64
	d := Drain(r, alloctrace.HookFunc(func(_ context.Context, e alloctrace.Event) { got = append(got, uint64(e.Addr)) }), time.Hour)
	for n := range uint64(20) {
		r.Observe(t.Context(), numbered(n+1))
	}
	d.Flush()
	if want := []uint64{13, 14, 15, 16, 17, 18, 19, 20}; !slices.Equal(got, want) || d.Dropped() != 12 || d.Told() != 8 {
		t.Errorf("told %d and dropped %d, want %d and 12", got, d.Dropped(), want)
	}
	r.home.head.Add(1) // somebody begins and does not end
	r.Observe(t.Context(), numbered(22))
	d.Flush()
	if len(got) != 8 {
		t.Errorf("told %d before what came earlier", got[8:])
	}
	d.Close()
	if got[len(got)-1] != 22 || d.Dropped() != 13 {
		t.Errorf("at the end told %d and dropped %d, want 22 and 13", got[8:], d.Dropped())
	}
}

// TestDrainerAllocates: a hook behind a Drainer may allocate through the Proxy that
// it observes.
func TestDrainerAllocates(t *testing.T) {
	r := NewRing(64, nil)
	p := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(r))
	allocate := func() {
		b, err := p.Allocate(blockalloc.Layout{Size: 64, Align: 8})
		if err != nil {
			t.Error(err)
		}
		if err := p.Free(b); err != nil {
			t.Error(err)
		}
	}
	d := Drain(r, alloctrace.HookFunc(func(context.Context, alloctrace.Event) { allocate() }), time.Hour)
	allocate()
	d.Flush()
	if d.Told() != 2 || r.Told() != 6 {
		t.Errorf("told %d of %d, want 2 of 6", d.Told(), r.Told())
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestClocks(t *testing.T) {
	coarse := NewCoarseClock(100 * time.Microsecond)
	var last int64
	for range 20 {
		now := coarse.Now()
		if precise := Precise.Now(); now < last || now > precise+int64(time.Millisecond) {
			t.Errorf("the coarse clock shows %d, after %d; precisely it is %d", now, last, precise)
		}
		for last = now; coarse.Now() == last; time.Sleep(time.Microsecond) { // it moves on
		}
	}
	coarse.Close()
	if coarse.Close() != nil {
		t.Error("a second Close fails")
	}
	stopped := coarse.Now()
	time.Sleep(time.Millisecond)
	if coarse.Now() != stopped {
		t.Error("it runs on after Close")
	}
	for name, f := range map[string]func(){
		"NewCoarseClock": func() { NewCoarseClock(time.Nanosecond) },
		"NewRing":        func() { NewRing(0, nil) },
	} {
		func() {
			defer func() {
				if text, _ := recover().(string); len(text) < len(name) || text[:7+len(name)] != "hooks: "+name {
					t.Errorf("%s with a bad argument panics with %q", name, text)
				}
			}()
			f()
		}()
	}
}
