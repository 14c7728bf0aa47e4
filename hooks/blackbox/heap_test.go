package blackbox

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/hooks/ring"
	"github.com/alloctrace/alloctrace/internal/shard"
	"github.com/alloctrace/alloctrace/internal/shard/shardtest"
)

func onHeapOf(t testing.TB, size int64, o Options) *Box {
	t.Helper()
	l, err := newLayout(size, shard.NumProcs+1)
	if err != nil {
		t.Fatal(err)
	}
	words := make([]uint64, l.size/8)
	mem := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), l.size)
	copy(mem, l.header())
	b := newBox(storage{l, mem}, nil, o)
	t.Cleanup(func() { b.Close() })
	return b
}

// read reads a Box that nobody writes.
func (b *Box) read(t testing.TB) *Contents {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	c, err := parse(b.shared.mem, b.shared.mem)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestAgainstRing: the file has what the Ring has, whatever goroutines have written it, but for the first event of a processor once
// its places are used again. Of different goroutines, the order may differ by that.
func TestAgainstRing(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 5
	}
	for round := range rounds {
		b := onHeapOf(t, minSize, Options{Period: time.Millisecond, Clock: ring.PreciseClock()})
		var wg sync.WaitGroup
		for g := range 4 {
			part := b.Attach(&alloctrace.Attachment{Child: fmt.Sprint("child ", g%3)})
			wg.Go(func() {
				for n := range 100 << (round % 6) {
					e, err := numbered(g, n)
					observe(part, e, err)
					if n%100 == 0 {
						time.Sleep(time.Microsecond)
					}
				}
			})
		}
		wg.Wait()
		c := b.read(t)
		if len(c.Damage) != 0 {
			t.Errorf("the damage is %q", c.Damage)
		}
		want := make(map[uint64][]Event) // by goroutine, whose order is what both keep
		number := 0
		for _, r := range b.Ring().Records() {
			e := Event{Time: r.Time, Kind: r.Kind, Addr: uint64(r.Addr), Size: uint64(r.Size), Align: uint64(r.Align), Child: r.Child}
			if r.Err != nil {
				e.Err = r.Err.Error()
			}
			want[e.Addr>>24] = append(want[e.Addr>>24], e)
			number++
		}
		gapless := c.Events[c.Gapless:]
		if len(gapless) > number || len(c.Events) < number-int(b.shared.shards) || len(gapless) == 0 {
			t.Fatalf("%d events, %d of them without gaps; the Ring has %d", len(c.Events), len(gapless), number)
		}
		got := make(map[uint64][]Event)
		for _, e := range gapless {
			got[e.Addr>>24] = append(got[e.Addr>>24], e)
		}
		for g, events := range got {
			more := len(want[g]) - len(events)
			if more < 0 {
				t.Fatalf("%d events of goroutine %d, the Ring has %d", len(events), g, len(want[g]))
			}
			for i, e := range events {
				if w := want[g][more+i]; e != w {
					t.Fatalf("event %d of %d of goroutine %d is %+v, and that of the Ring %+v", i, len(events), g, e, w)
				}
			}
		}
	}
}

// TestHalfWritten: whichever words of a record are written when the process ends, the file has the events before it, and none that
// never was.
func TestHalfWritten(t *testing.T) {
	shardtest.Stay(t)
	for before := range 12 {
		b := onHeapOf(t, minSize, Options{Period: time.Hour, Clock: ring.PreciseClock()})
		n := before % 4
		if before >= 4 {
			n = before/4*int(b.shared.events) + before%4 - 2 // around the place where the next round begins
		}
		number := 0
		next := func() {
			number++
			observe(b, alloctrace.Event{Kind: alloctrace.Allocated, Addr: uintptr(number), Size: uintptr(number), Align: 1}, nil)
		}
		for range n {
			next()
		}
		was := slices.Clone(b.shared.mem)
		next()
		for words := range 4 { // that the process has written of the next one
			half := slices.Clone(was)
			for at := b.shared.eventsAt; at < b.shared.size; at += recordSize {
				if record := b.shared.mem[at:][:recordSize]; string(half[at:][:recordSize]) != string(record) {
					copy(half[at:], record[:8*words])
				}
			}
			c, err := parse(half, half)
			if err != nil || len(c.Damage) != 0 {
				t.Fatalf("%v; the damage is %q", err, c.Damage)
			}
			for i, e := range c.Events {
				if want := uint64(n - len(c.Events) + 1 + i); e.Addr != want || e.Size != want || e.Kind != alloctrace.Allocated {
					t.Errorf("after %d events and %d words: event %d is %+v, want number %d", n, words, i, e, want)
				}
			}
			if least := min(n, int(b.shared.events)-1); shard.Pinned && len(c.Events) < least {
				t.Errorf("after %d events and %d words: %d events, want %d", n, words, len(c.Events), least)
			}
		}
	}
}
