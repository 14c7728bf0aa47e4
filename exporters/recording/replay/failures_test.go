package replay_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/replay"
)

// A rogue is an allocator that does something wrong with the nth allocation of a size, or reallocation to it.
type rogue struct {
	blockalloc.Heap
	size  uintptr
	nth   int
	wrong string

	seen int
	last blockalloc.Block // that was allocated before
}

func (r *rogue) now(size uintptr, of string) bool {
	if size != r.size || of != r.wrong[:len(of)] {
		return false
	}
	r.seen++
	return r.seen == r.nth
}

func (r *rogue) Allocate(l blockalloc.Layout) (b blockalloc.Block, err error) {
	now := r.now(l.Size, "allocate")
	last := r.last
	switch {
	case now && r.wrong == "allocate: overlap" && last.Size() >= l.Size: // it holds last, which so stays memory
		return blockalloc.NewBlock(last.Pointer(), l.Size, l)
	case now && r.wrong == "allocate: panic":
		panic("at the disco")
	case now && r.wrong == "allocate: goexit":
		runtime.Goexit()
	case now && r.wrong == "allocate: misaligned":
		big, err := r.Heap.Allocate(blockalloc.Layout{Size: l.Size + l.Align, Align: l.Align})
		if err != nil {
			return big, err
		}
		return blockalloc.FromRaw(addOne(big), blockalloc.Layout{Size: l.Size, Align: 1})
	case now && r.wrong == "allocate: small":
		return r.Heap.Allocate(blockalloc.Layout{Size: l.Size - 1, Align: l.Align})
	case now && r.wrong == "allocate: neighbour" && !last.IsZero():
		last.Bytes()[last.Size()-1]++
	}
	b, err = r.Heap.Allocate(l)
	r.last = b
	return b, err
}

func (r *rogue) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	n, err := r.Heap.Reallocate(b, size)
	if err == nil && size > 0 && r.now(size, "reallocate") {
		clear(n.Bytes()[:min(9, size)][8:])
	}
	return n, err
}

func (r *rogue) Free(b blockalloc.Block) error {
	if r.now(b.Size(), "free") {
		return fmt.Errorf("no: %w", blockalloc.ErrNotOwned)
	}
	return r.Heap.Free(b)
}

// planted is a recording in which blocks of 96 bytes come now and then, every third of them after another.
func planted() list {
	var l list
	rng := rand.New(rand.NewPCG(3, 3))
	type block struct{ addr, size uintptr }
	var live []block
	next := uintptr(1 << 16)
	for i := range 2000 {
		switch n := rng.IntN(10); {
		case n < 4 && len(live) > 20:
			j := rng.IntN(len(live))
			l.add(alloctrace.Freeing, live[j].addr, live[j].size)
			live = slices.Delete(live, j, j+1)
		case n < 6 && len(live) > 0:
			j := rng.IntN(len(live))
			l.add(alloctrace.Reallocating, live[j].addr, live[j].size)
			live[j] = block{next, uintptr(16 + 8*rng.IntN(100))}
			if i%40 == 0 {
				live[j].size = 96
			}
			l.add(alloctrace.Reallocated, live[j].addr, live[j].size)
		default:
			b := block{next, uintptr(104 + 8*rng.IntN(100))}
			if i%13 == 0 {
				b.size = 96
			}
			l.add(alloctrace.Allocated, b.addr, b.size)
			live = append(live, b)
		}
		next += 1 << 12
	}
	return l
}

// nth returns the number of the nth event of a kind and size.
func nth(events []recording.Event, n int, size uintptr, kinds ...alloctrace.Kind) int64 {
	for i, e := range events {
		if e.Size == size && slices.Contains(kinds, e.Kind) {
			if n--; n == 0 {
				return int64(i + 1)
			}
		}
	}
	return -1
}

// TestFailures: what an allocator does wrong is found, at its event, and shrunk to few events that still fail.
func TestFailures(t *testing.T) {
	events := planted()
	allocation := nth(events, 3, 96, alloctrace.Allocated)
	for _, c := range []struct {
		wrong  string
		o      replay.Options
		reason replay.Reason
		event  int64 // 0: a later one
		most   int   // events of the smallest
	}{
		{"allocate: overlap", replay.Options{}, replay.Changed, 0, 10},
		{"allocate: overlap", replay.Options{Edges: true}, replay.Changed, 0, 10},
		{"allocate: overlap", replay.Options{Addresses: true}, replay.Overlaps, allocation, 10},
		{"allocate: neighbour", replay.Options{}, replay.Changed, 0, 10},
		{"allocate: misaligned", replay.Options{}, replay.Misaligned, allocation, 3},
		{"allocate: small", replay.Options{}, replay.TooSmall, allocation, 3},
		{"allocate: panic", replay.Options{}, replay.Panicked, allocation, 3},
		{"allocate: goexit", replay.Options{}, replay.Panicked, allocation, 3},
		{"reallocate: contents", replay.Options{}, replay.Changed, nth(events, 3, 96, alloctrace.Reallocated), 9},
		{"free: refused", replay.Options{}, replay.Refused, nth(events, 3, 96, alloctrace.Freeing), 6},
	} {
		t.Run(strings.ReplaceAll(c.wrong, ": ", "_"), func(t *testing.T) {
			fails := func(events []recording.Event) error {
				_, err := replay.Run(context.Background(), replay.New(events), &rogue{size: 96, nth: 3, wrong: c.wrong}, c.o)
				return err
			}
			err := fails(events)
			var f *replay.Failure
			if !errors.As(err, &f) || f.Reason != c.reason || c.event > 0 && f.Event.Number != c.event {
				t.Fatalf("%v, want %s at event %d", err, c.reason, c.event)
			}
			e := events[f.Event.Number-1]
			e.Reallocation = 0
			if f.Event.Event != e || !strings.Contains(err.Error(), fmt.Sprintf("event %d (%s %d B aligned to 8 after %v, p.f%d (p.go:7))", f.Event.Number, e.Kind, e.Size, e.At, f.Event.Number)) {
				t.Errorf("%v\nwant it to name %+v", err, e)
			}
			if strings.HasPrefix(c.wrong, "free") && !errors.Is(err, blockalloc.ErrNotOwned) {
				t.Errorf("%v does not wrap the allocator's error", err)
			}
			if strings.HasSuffix(c.wrong, "overlap") && (f.Other == nil || f.Other.Number != allocation && (f.Acquired == nil || f.Acquired.Number != allocation) && f.Event.Number != allocation) {
				t.Errorf("%v\nwant it to name event %d", err, allocation)
			}
			small, err := replay.Shrink(context.Background(), events, fails)
			if err != nil || len(small) > c.most {
				t.Fatalf("%v; %d events are left, want %d at most: %+v", err, len(small), c.most, small)
			}
			if err := fails(small); !errors.As(err, &f) || f.Reason != c.reason {
				t.Errorf("the smallest fails with %v", err)
			}
		})
	}
}

// TestKeepGoing: failures are counted, the first is returned, and what depends on it is skipped.
func TestKeepGoing(t *testing.T) {
	events := planted()
	p := replay.New(events)
	injected := failing.If(new(blockalloc.Heap), func(c failing.Call) bool { return c.Op == failing.OpAllocate && c.Layout.Size == 96 })
	r, err := replay.Run(context.Background(), p, injected, replay.Options{KeepGoing: true})
	var f *replay.Failure
	if !errors.As(err, &f) || f.Event.Number != nth(events, 1, 96, alloctrace.Allocated) || f.Reason != replay.Refused || !errors.Is(err, failing.ErrInjected) || f != r.First {
		t.Errorf("%v", err)
	}
	var allocations int64
	for _, e := range events {
		if e.Kind == alloctrace.Allocated && e.Size == 96 {
			allocations++
		}
	}
	if r.Failed != allocations || r.Skipped.Unavailable == 0 || r.Operations+r.Skipped.Unavailable != p.Recorded().Operations {
		t.Errorf("%d failures, want %d; %+v", r.Failed, allocations, r)
	}
	text, data := r.String(), new(bytes.Buffer)
	if err := json.NewEncoder(data).Encode(r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"failures: ", "skipped: ", " operations in ", "peak: "} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
	var got struct {
		First struct {
			Event struct {
				Number int64
				Stack  []recording.Frame
			}
			Op, Reason, Error string
		} `json:"first_failure"`
	}
	if err := json.Unmarshal(data.Bytes(), &got); err != nil || got.First.Event.Number != f.Event.Number || got.First.Op != "allocate" || got.First.Reason != "refused" || len(got.First.Event.Stack) != 1 || got.First.Error != f.Err.Error() {
		t.Errorf("%v: %+v\n%s", err, got, data)
	}
	// A block that cannot be freed is freed at the end, if it can be then.
	var calls int
	inner := alloctrace.Wrap(new(blockalloc.Heap))
	refusing := failing.If(inner, func(c failing.Call) bool {
		if c.Op == failing.OpFree {
			calls++
		}
		return c.Op == failing.OpFree && calls < 100
	})
	r, err = replay.Run(context.Background(), p, refusing, replay.Options{KeepGoing: true, Addresses: true})
	if !errors.As(err, &f) || f.Op != "free" || r.Failed != 99 || inner.Stats().LiveBlocks != 0 {
		t.Errorf("%v; %d failures, %+v", err, r.Failed, inner.Stats())
	}
	// Without it, the replay ends there.
	injected = failing.If(new(blockalloc.Heap), func(c failing.Call) bool { return c.Op == failing.OpAllocate && c.Layout.Size == 96 })
	r, err = replay.Run(context.Background(), p, injected, replay.Options{})
	if !errors.As(err, &f) || r.Failed != 1 || r.Operations >= f.Event.Number+1 {
		t.Errorf("%v; %+v", err, r)
	}
}
