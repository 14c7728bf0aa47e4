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
	c, err := parse(b.mem, b.mem)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestAgainstRing: the file has what the Ring has, whatever goroutines have written it: once its place is used again, one event of
// a processor less.
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
		var want []Event
		for _, r := range b.Ring().Records() {
			e := Event{Time: r.Time, Kind: r.Kind, Addr: uint64(r.Addr), Size: uint64(r.Size), Align: uint64(r.Align), Child: r.Child}
			if r.Err != nil {
				e.Err = r.Err.Error()
			}
			want = append(want, e)
		}
		got := c.Events[c.Gapless:]
		if len(got) > len(want) || len(c.Events) < len(want)-int(b.shards) || len(got) == 0 {
			t.Fatalf("%d events, %d of them without gaps; the Ring has %d", len(c.Events), len(got), len(want))
		}
		if last := want[len(want)-len(got):]; !slices.Equal(got, last) {
			t.Fatalf("the last %d events are\n%+v\nand those of the Ring\n%+v", len(got), got, last)
		}
	}
}

// TestHalfWritten: whichever words of a record are written when the process ends, the file has the events before it, and none that
// never was.
func TestHalfWritten(t *testing.T) {
	for before := range 12 {
		b := onHeapOf(t, minSize, Options{Period: time.Hour, Clock: ring.PreciseClock()})
		n := before % 4
		if before >= 4 {
			n = before/4*int(b.events) + before%4 - 2 // around the place where the next round begins
		}
		number := 0
		next := func() {
			number++
			observe(b, alloctrace.Event{Kind: alloctrace.Allocated, Addr: uintptr(number), Size: uintptr(number), Align: 1}, nil)
		}
		for range n {
			next()
		}
		was := slices.Clone(b.mem)
		next()
		for words := range 4 { // that the process has written of the next one
			half := slices.Clone(was)
			for at := b.eventsAt; at < b.size; at += recordSize {
				if record := b.mem[at:][:recordSize]; string(half[at:][:recordSize]) != string(record) {
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
			if least := min(n, int(b.events)-1); shard.Pinned && len(c.Events) < least {
				t.Errorf("after %d events and %d words: %d events, want %d", n, words, len(c.Events), least)
			}
		}
	}
}
