package replay_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/replay"
)

// TestShrinkErrors: what does not fail cannot be shrunk, and a Shrink that is cancelled has what it found.
func TestShrinkErrors(t *testing.T) {
	events := planted()
	if _, err := replay.Shrink(context.Background(), events, func([]recording.Event) error { return nil }); err == nil {
		t.Error("what does not fail was shrunk")
	}
	ctx, cancel := context.WithCancel(context.Background())
	calls := 0
	small, err := replay.Shrink(ctx, events, func(events []recording.Event) error {
		if calls++; calls == 2 {
			cancel()
		}
		return errors.New("always")
	})
	if !errors.Is(err, context.Canceled) || len(small) == 0 || len(small) >= len(events) || calls != 2 {
		t.Errorf("%v; %d events after %d calls", err, len(small), calls)
	}
	refused := &replay.Failure{Reason: replay.Refused, Err: errors.New("always")} // of no event
	if small, err := replay.Shrink(context.Background(), events, func([]recording.Event) error { return refused }); err != nil || len(small) > 0 {
		t.Errorf("%v; %d events are left", err, len(small))
	}
	if _, err := replay.Run(context.Background(), nil, new(blockalloc.Heap), replay.Options{}); err == nil {
		t.Error("no Program was run")
	}
	if _, err := replay.Run(context.Background(), replay.New(nil), new(blockalloc.Heap), replay.Options{Goroutines: -1}); err == nil {
		t.Error("it was run by -1 goroutines")
	}
}

// TestShrinkSizes: blocks become as small as they can be.
func TestShrinkSizes(t *testing.T) {
	small, err := replay.Shrink(context.Background(), planted(), func(events []recording.Event) error {
		_, err := replay.Run(context.Background(), replay.New(events), blockalloc.NewLimit(new(blockalloc.Heap), 2000), replay.Options{})
		return err
	})
	var sum uintptr
	for _, e := range small {
		sum += e.Size
	}
	if err != nil || len(small) > 10 || sum != 2001 {
		t.Errorf("%v; %d bytes are live at the end, want 2001: %+v", err, sum, small)
	}
}

// TestShrinkMany: where many blocks are live when memory is refused, it is asked for in few that are no larger than the largest. Where
// many blocks are needed, that takes few replays for each.
func TestShrinkMany(t *testing.T) {
	var l list
	l.add(alloctrace.Allocated, 0x10000000, 30_000)
	for i := range uintptr(3000) {
		l.add(alloctrace.Allocated, 0x1000*(i+1), 100+i%50)
		if i%3 == 0 {
			l.add(alloctrace.Freeing, 0x1000*(i+1), 100+i%50)
		}
	}
	for name, c := range map[string]struct {
		wrap        func(blockalloc.Allocator) blockalloc.Allocator
		events, per int // at most
	}{
		"bytes":  {func(a blockalloc.Allocator) blockalloc.Allocator { return blockalloc.NewLimit(a, 200_000) }, 10, 30},
		"blocks": {func(a blockalloc.Allocator) blockalloc.Allocator { return &fewBlocks{Allocator: a, most: 100} }, 101, 5},
	} {
		replays := 0
		small, err := replay.Shrink(context.Background(), l, func(events []recording.Event) error {
			replays++
			_, err := replay.Run(context.Background(), replay.New(events), c.wrap(new(blockalloc.Heap)), replay.Options{})
			return err
		})
		if err != nil || len(small) > c.events || replays > c.per*c.events {
			t.Errorf("%s: %v; %d events are left after %d replays", name, err, len(small), replays)
		}
		for _, e := range small {
			if e.Size > 30_000 {
				t.Errorf("%s: %+v is larger than the largest was", name, e)
			}
		}
	}
}

// TestShrinkReplays: of blocks that are all needed each is left out once, to see that it is, and made smaller once.
func TestShrinkReplays(t *testing.T) {
	needed := 2000
	if testing.Short() {
		needed = 500
	}
	var l list
	for i := range uintptr(needed) * 9 / 4 {
		l.add(alloctrace.Allocated, 0x1000*(i+1), 100+i%50)
		if i%3 == 0 {
			l.add(alloctrace.Freeing, 0x1000*(i+1), 100+i%50)
		}
	}
	for _, c := range []struct {
		least        uintptr // size of a block that counts
		blocks, most int     // replays
	}{{1, needed, needed + 100}, {100, needed, 2*needed + 200}, {140, needed / 20, 10*needed/20 + 200}} {
		replays := 0
		small, err := replay.Shrink(context.Background(), l, func(events []recording.Event) error {
			replays++
			counts, live := make([]bool, len(l)+1), 0 // of each block
			for i, e := range events {
				was := &counts[e.Addr>>12]
				is := e.Kind == alloctrace.Allocated && e.Size >= c.least
				switch {
				case is && !*was:
					live++
				case !is && *was:
					live--
				}
				if *was = is; live > c.blocks {
					return &replay.Failure{Reason: replay.Refused, Event: replay.Event{Number: int64(i + 1), Event: e}, Err: errors.New("too many blocks")}
				}
			}
			return nil
		})
		for _, e := range small {
			if e.Size != c.least {
				t.Errorf("a block of %d bytes is left, want %d", e.Size, c.least)
				break
			}
		}
		t.Logf("%d blocks of %d bytes: %d replays", len(small), c.least, replays)
		if err != nil || len(small) != c.blocks+1 || replays > c.most {
			t.Errorf("%v; %d events are left after %d replays, want %d after at most %d", err, len(small), replays, c.blocks+1, c.most)
		}
	}
}

// fewBlocks refuses to have more blocks.
type fewBlocks struct {
	blockalloc.Allocator
	live, most int
}

func (f *fewBlocks) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if f.live == f.most {
		return blockalloc.Block{}, errors.New("too many blocks")
	}
	f.live++
	return f.Allocator.Allocate(l)
}

func (f *fewBlocks) Free(b blockalloc.Block) error {
	f.live--
	return f.Allocator.Free(b)
}

// FuzzNew: whatever events say, they are replayed in which no block is used twice, and all are freed. Shrinking finds few that
// fail as all do.
func FuzzNew(f *testing.F) {
	for seed := range byte(20) {
		rng := rand.New(rand.NewPCG(uint64(seed), 1))
		b := make([]byte, 300)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var l list
		for ; len(b) >= 2; b = b[2:] {
			l.add(alloctrace.Kind(b[0]%8), 64*uintptr(b[0]>>3%8), 8*uintptr(b[1]%4))
			e := &l[len(l)-1]
			if e.Kind == 0 {
				*e = recording.Event{At: e.At, Dropped: int64(b[1])}
			}
		}
		if len(l) > 300 {
			return
		}
		p := replay.New(l)
		for _, o := range []replay.Options{{Addresses: true}, {Goroutines: 3}} {
			mem := alloctrace.Wrap(new(blockalloc.Heap))
			r, err := replay.Run(context.Background(), p, mem, o)
			if err != nil || r.Operations != p.Recorded().Operations || mem.Stats().LiveBlocks != 0 || r.Skipped.Unavailable != 0 || r.Skipped.Unknown < 0 {
				t.Fatalf("%v; %+v, %+v", err, r, mem.Stats())
			}
			if o.Goroutines == 0 && r.Peak.Blocks < r.Left.Blocks && r.Peak.Granted < r.Left.Granted {
				t.Fatalf("%+v", r)
			}
		}
		fails := func(events []recording.Event) error {
			_, err := replay.Run(context.Background(), replay.New(events), blockalloc.NewLimit(new(blockalloc.Heap), 40), replay.Options{})
			return err
		}
		if fails(l) == nil {
			return
		}
		small, err := replay.Shrink(context.Background(), l, fails)
		if err != nil || fails(small) == nil || len(small) > 50 {
			t.Fatalf("%v; %d events are left: %+v", err, len(small), small)
		}
	})
}
