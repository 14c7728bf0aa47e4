package ring

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/shard"
)

// numbered is an event from which its number can be read, in each of its fields.
func numbered(n uint64) alloctrace.Event {
	n = uint64(uintptr(n))
	return alloctrace.Event{Kind: alloctrace.Kind(1 + n%7), Addr: uintptr(n), Size: uintptr(n * 3 & (1<<(64-sizeShift) - 1)), Align: 1 << (n % 30)}
}

func numberOf(t *testing.T, e alloctrace.Event) uint64 {
	t.Helper()
	if n := uint64(e.Addr); e == numbered(n) {
		return n
	}
	t.Errorf("%+v is of no one event", e)
	return 0
}

// one has all that r observes go into one shard, whichever processor delivers it.
func one(r *Ring) *Ring {
	r.shards = nil
	return r
}

// put writes an event as shard i does in its epoch of this number.
func put(r *Ring, i int, epoch uint32, at uint64, e alloctrace.Event) {
	if r.shards[i].Load() == nil {
		r.shards[i].Store(r.newShard(i, false))
	}
	if later := epoch - uint32(r.epoch.Load()); int32(later) > 0 {
		r.epoch.Store(uint64(epoch))
	}
	s := r.shards[i].Load()
	n := uint64(s.head.Add(1))
	for word, v := range []uint64{
		^uint64(e.Addr),
		packed(e),
		at,
		uint64(epoch)<<epochShift | n&epochNumber,
	} {
		s.place(n)[word].Store(v)
	}
}

// handmade returns a Ring with so many shards, for put.
func handmade(n, shards int, clock Clock) *Ring {
	r := New(n, clock)
	r.shards = make([]atomic.Pointer[ringShard], shards)
	return r
}

func numbersOf(t *testing.T, records []Record) (numbers []uint64) {
	t.Helper()
	for _, rec := range records {
		numbers = append(numbers, numberOf(t, rec.Event))
	}
	return numbers
}

func TestRingKeepsTheLast(t *testing.T) {
	r := one(New(5, nil))
	for n := range uint64(20) {
		var want []uint64
		for i := n - min(n, 8) + 1; i <= n; i++ { // 5 is rounded up
			want = append(want, i)
		}
		records := r.Records()
		for _, rec := range records {
			if !rec.Time.IsZero() {
				t.Errorf("without a clock a record has the time %v", rec.Time)
			}
		}
		if got := numbersOf(t, records); !slices.Equal(got, want) || r.Observed() != n {
			t.Errorf("after %d events: %d, observed %d; want %d", n, got, r.Observed(), want)
		}
		r.Observe(t.Context(), numbered(n+1), nil)
	}
}

func TestNewRefuses(t *testing.T) {
	defer func() {
		if text, _ := recover().(string); !strings.HasPrefix(text, "ring: New(0): use ") {
			t.Errorf("a Ring of no event panics with %q", text)
		}
	}()
	New(0, nil)
}

// TestRingHasNoGaps: whichever processors the goroutines are on that take turns to
// deliver events, the last ones are there, in order, and all since the first.
func TestRingHasNoGaps(t *testing.T) {
	const size, goroutines, events = 8, 2, 5000
	r := New(size, nil)
	r.short.Store(-events) // however short the epochs are
	var next atomic.Int64
	var wg sync.WaitGroup
	for g := range int64(goroutines) {
		wg.Go(func() {
			for n := g; n < events && !t.Failed(); n += goroutines {
				for spins := 0; next.Load() != n && !t.Failed(); spins++ {
					if spins%1000 == 0 { // else they stay on processors of their own
						runtime.Gosched()
					}
				}
				r.Observe(context.Background(), numbered(uint64(n+1)), nil)
				if n%10 == g {
					got := numbersOf(t, r.Records())
					for i, number := range got {
						if number != uint64(int(n+1)-(len(got)-1-i)) {
							t.Errorf("after %d events: %d", n+1, got)
							return
						}
					}
					if len(got) < int(min(n+1, size)) {
						t.Errorf("after %d events there are %d", n+1, got)
					}
				}
				next.Store(n + 1)
			}
		})
	}
	wg.Wait()
}

// TestRingErrors: an error is that of its event; of too many, the first are forgotten.
func TestRingErrors(t *testing.T) {
	r := New(256, PreciseClock())
	before := time.Now()
	var errs []error
	for i := range 100 {
		errs = append(errs, fmt.Errorf("error %d", i))
		r.Observe(t.Context(), alloctrace.Event{Kind: alloctrace.AllocateFailed, Size: uintptr(i), Align: 3}, errs[i])
		r.Observe(t.Context(), numbered(7), nil)
	}
	records := r.Records()
	if len(records) != 200 {
		t.Fatalf("%d records, want 200", len(records))
	}
	for i, err := range errs {
		want := alloctrace.Event{Kind: alloctrace.AllocateFailed, Size: uintptr(i), Align: 3}
		if i < 100-64 {
			want, err = alloctrace.Event{}, ErrForgotten
		}
		if got := records[2*i]; got.Event != want || got.Err != err || records[2*i+1].Err != nil {
			t.Errorf("record %d: %+v, want %+v with the error %v", 2*i, got, want, err)
		}
		if got := records[2*i].Time; got.Before(before.Truncate(time.Microsecond)) || got.After(time.Now()) {
			t.Errorf("record %d is of %v, want a time since %v", 2*i, got, before)
		}
	}
}

// TestRingOrder: events of different shards come in the order of their epochs, also where the
// epochs' number begins anew, and those of one epoch in the order of the clock.
func TestRingOrder(t *testing.T) {
	for name, epoch := range map[string]uint32{"epochs": 1, "over the end": 1<<32 - 8} {
		r := handmade(64, 3, nil)
		number := uint64(0)
		for range 16 {
			for range 1 + number%3 {
				number++
				put(r, int(epoch%3), epoch, 0, numbered(number))
			}
			epoch++
		}
		got := numbersOf(t, r.Records())
		if !slices.IsSorted(got) || len(got) != int(number) || number < 20 {
			t.Errorf("%s: %d, want 1 to %d", name, got, number)
		}
		var delivered []uint64
		d := NewDrainer(r, alloctrace.HookFunc(func(_ context.Context, e alloctrace.Event, _ error) { delivered = append(delivered, numberOf(t, e)) }), time.Hour)
		d.Close()
		if !slices.Equal(delivered, got) {
			t.Errorf("%s: a Drainer delivers %d, want %d", name, delivered, got)
		}
	}
	r := handmade(64, 3, PreciseClock())
	for n := range uint64(20) {
		put(r, int(n%3), 7, 1000+n, numbered(n+1))
	}
	put(r, 2, 8, 500, numbered(21)) // by a epoch that is later, whatever the clock says
	records := r.Records()
	if got := numbersOf(t, records); len(got) != 21 || !slices.IsSorted(got) {
		t.Errorf("by the clock: %d, want 1 to 21", got)
	}
	if at := records[0].Time; at != time.Unix(0, 1000) {
		t.Errorf("the first is of %v, want %v", at, time.Unix(0, 1000))
	}
}

// TestRingLosses: what came before an event that was overwritten is left out, unless the
// order is not known.
func TestRingLosses(t *testing.T) {
	r := handmade(4, 3, nil)
	check := func(want ...uint64) {
		t.Helper()
		if got := numbersOf(t, r.Records()); !slices.Equal(got, want) {
			t.Errorf("%d, want %d", got, want)
		}
	}
	put(r, 0, 1, 0, numbered(1))
	put(r, 1, 2, 0, numbered(2))
	put(r, 1, 4, 0, numbered(7))
	for n := range uint64(4) {
		put(r, 2, 3, 0, numbered(3+n))
	}
	check(1, 2, 3, 4, 5, 6, 7)
	put(r, 2, 3, 0, numbered(10)) // overwrites 3
	check(4, 5, 6, 10, 7)
	put(r, 0, 3, 0, numbered(11)) // of the same epoch
	check(11, 4, 5, 6, 10, 7)
	for n := range uint64(4) {
		put(r, 1, 5, 0, numbered(20+n)) // overwrites 2 and 7
	}
	put(r, 0, 6, 0, numbered(30))
	check(20, 21, 22, 23, 30)
}

// TestRingEpochs: who writes in another shard begins an epoch; after so many short epochs it is
// unordered, and long ones do not matter.
func TestRingEpochs(t *testing.T) {
	r := handmade(1, 2, nil)
	shards := []*ringShard{r.newShard(0, false), r.newShard(1, false)}
	begin := func(i, events int) uint64 {
		shards[i%2].head.Add(int64(events))
		return r.begin(i%2, shards[i%2])
	}
	for i := range 10 * shortEpochs {
		if epoch := begin(i, shortEpoch); epoch&epochNumber != uint64(i+1) || epoch>>epochShift != uint64(i%2) || epoch != r.epoch.Load() {
			t.Fatalf("long epoch %d is %x, and the Ring has %x", i, epoch, r.epoch.Load())
		}
	}
	for i := range shortEpochs {
		if epoch := begin(i, 1+i%(shortEpoch-1)); epoch>>epochShift != uint64(i%2) {
			t.Fatalf("short epoch %d is %x", i, epoch)
		}
	}
	if epoch := begin(1, 1); epoch>>epochShift != unordered || epoch != r.epoch.Load() {
		t.Errorf("after %d short epochs there is one more: %x", shortEpochs, epoch)
	}
	r.Observe(t.Context(), numbered(1), nil)
	if epoch := r.epoch.Load(); epoch>>epochShift != unordered {
		t.Errorf("somebody begins an ordered epoch again: %x", epoch)
	}
}

// TestRingOverflow: what does not fit into a record is kept whole beside it.
func TestRingOverflow(t *testing.T) {
	r := New(16, nil)
	want := []Record{
		{},
		{Event: alloctrace.Event{Kind: alloctrace.AllocateFailed, Size: ^uintptr(0), Align: 8}},
		{Event: alloctrace.Event{Kind: alloctrace.AllocateFailed, Size: 999, Align: 999}, Err: blockalloc.ErrBadLayout},
		{Event: alloctrace.Event{Kind: alloctrace.FreeFailed, Addr: ^uintptr(0), Size: 1, Align: 1}, Err: blockalloc.ErrNotOwned},
		{Event: alloctrace.Event{Kind: alloctrace.Freeing, Addr: 1 << 31, Size: 1<<31 - 1, Align: 1 << 31}},
	}
	for _, rec := range want {
		r.Observe(t.Context(), rec.Event, rec.Err)
	}
	if got := r.Records(); !slices.Equal(got, want) {
		t.Errorf("the records are %+v, want %+v", got, want)
	}
}

// TestRingTorn has goroutines write over each other's records while others read: what
// is read is of one event.
func TestRingTorn(t *testing.T) {
	steps := uint64(100_000)
	if testing.Short() {
		steps /= 10
	}
	for _, r := range []*Ring{New(1, nil), New(8, PreciseClock()), New(1024, nil), one(New(1, nil)), one(New(8, nil))} {
		var writers, readers sync.WaitGroup
		var stop atomic.Bool
		for w := range uint64(4) {
			writers.Go(func() {
				for i := range steps {
					r.Observe(context.Background(), numbered(w<<24|i), nil)
					for range i * i % 101 { // so that there are records to be read
						slowly.Load()
					}
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
		if r.Observed() != 4*steps {
			t.Errorf("observed %d events, want %d", r.Observed(), 4*steps)
		}
	}
}

// TestRingShards: a shard is made for those who deliver events, and no more.
func TestRingShards(t *testing.T) {
	procs := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(procs)
	r := New(4, nil)
	if n := len(r.all()); n != 0 {
		t.Errorf("%d shards before the first event", n)
	}
	for n := range uint64(10) {
		r.Observe(t.Context(), numbered(n+1), nil)
	}
	if n := len(r.all()); shard.Pinned && n != 1 || r.others.Load() != nil || r.Observed() != 10 {
		t.Errorf("%d shards, observed %d; want 1 and 10", n, r.Observed())
	}
	r.shards = r.shards[:0] // as if there were more processors now
	r.Observe(t.Context(), numbered(11), nil)
	if got := numbersOf(t, r.Records()); !slices.Equal(got, []uint64{11}) || r.others.Load() == nil {
		t.Errorf("%d, want 11", got)
	}
}

func TestRingDoesNotAllocate(t *testing.T) {
	clock := NewCoarseClock(time.Millisecond)
	defer clock.Close()
	r := New(64, clock)
	for _, rec := range []Record{{Event: numbered(1)}, {Event: alloctrace.Event{Kind: alloctrace.FreeFailed}, Err: errors.New("no")}} {
		if n := testing.AllocsPerRun(1000, func() { r.Observe(context.Background(), rec.Event, rec.Err) }); n != 0 {
			t.Errorf("%v: %v allocations an event, want none", rec.Kind, n)
		}
	}
}
