package heapprofile

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/pprof"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// wantBytes fails the test unless Usage.Bytes is 80 % to 101 % of what the Go heap has grown by,
// and 4 KiB of noise.
func wantBytes(t *testing.T, make func() *Profile) {
	t.Helper()
	const noise = 4096
	h, growth := measure.HeapGrowth(make)
	if bytes := h.Usage().Bytes; bytes < growth*80/100-noise || bytes > growth*101/100+noise {
		t.Errorf("%d bytes, and the Go heap has grown by %d: %.1f %%", bytes, growth, 100*float64(bytes)/float64(growth))
	}
	runtime.KeepAlive(h)
}

// hookOfStacks is a hook that observes by way of stacks that differ.
type hookOfStacks struct{ alloctrace.Hook }

// by delivers to the hook by so many calls that way is distinguished from others.
func (h hookOfStacks) by(way int, ctx context.Context, k alloctrace.Kind, addr uintptr) {
	switch {
	case way == 0:
		h.Observe(ctx, alloctrace.Event{Kind: k, Addr: addr, Size: 64, Align: 64}, nil)
	case way%2 == 0:
		h.by(way/2, ctx, k, addr)
	default:
		h.by(way/2, ctx, k, addr)
	}
}

// TestUsageBytes holds Usage.Bytes against what the Go heap has grown by: for
// several numbers of live blocks, of stacks and of labels, after blocks have come and gone, and
// after all have gone.
func TestUsageBytes(t *testing.T) {
	type load struct{ blocks, stacks, labels, passing, freed int }
	loads := []load{
		{0, 1, 0, 0, 0}, {200, 10, 0, 0, 0}, {10_000, 1000, 100, 0, 0}, {40_000, 10, 0, 0, 0},
		{100_000, 20_000, 0, 0, 0}, {100_000, 10, 30_000, 0, 0}, {100_000, 10, 0, 200_000, 0}, {100_000, 10, 0, 0, 100_000},
	}
	if testing.Short() {
		for i, l := range loads[2:] {
			loads[2+i] = load{l.blocks / 4, max(10, l.stacks/4), l.labels / 4, l.passing / 4, l.freed / 4}
		}
	}
	run := func(h alloctrace.Hook, l load) {
		rnd := rand.New(rand.NewPCG(1, 2))
		by, addrs := hookOfStacks{h}, make([]uintptr, l.blocks)
		for i := range addrs {
			ctx := context.Background()
			if l.labels > 0 {
				ctx = pprof.WithLabels(ctx, pprof.Labels("request", fmt.Sprint(i%l.labels), "job", "merge"))
			}
			addrs[i] = uintptr(i+1) << 6
			by.by(1+i%l.stacks, ctx, alloctrace.Allocated, addrs[i])
		}
		for n := range l.passing {
			i := rnd.IntN(len(addrs))
			by.by(1, context.Background(), alloctrace.Freeing, addrs[i])
			addrs[i] = uintptr(l.blocks+1+n) << 6
			by.by(1, context.Background(), alloctrace.Allocated, addrs[i])
		}
		for _, addr := range addrs[:l.freed] {
			by.by(1, context.Background(), alloctrace.Freeing, addr)
		}
	}
	for _, l := range loads {
		t.Run(fmt.Sprintf("%+v", l), func(t *testing.T) {
			wantBytes(t, func() *Profile {
				h := New(Options{Rate: 1})
				run(h, l)
				return h
			})
		})
	}
}

// TestUsageCounts: what was kept, and what was dropped.
func TestUsageCounts(t *testing.T) {
	deliver := func(h alloctrace.Hook, kind alloctrace.Kind, from, to int) {
		for i := from; i < to; i++ {
			var err error
			if kind.Failed() {
				err = errors.New("not today")
			}
			h.Observe(t.Context(), alloctrace.Event{Kind: kind, Addr: uintptr(i+1) << 6, Size: 64, Align: 64}, err)
		}
	}
	want := func(h hooks.UsageSource, events, sampled, dropped int64) {
		t.Helper()
		if u := h.Usage(); u.Events != events || u.Sampled != sampled || u.Dropped != dropped || u.Time != 0 || u.TimeError != 0 || u.Bytes <= 0 {
			t.Errorf("the usage of a %T is %+v, want %d events, %d sampled, %d dropped", h, u, events, sampled, dropped)
		}
	}

	profile := New(Options{Rate: 1})
	deliver(profile, alloctrace.Allocated, 0, 100)
	deliver(profile, alloctrace.Freeing, 0, 60)
	deliver(profile, alloctrace.FreeFailed, 0, 1)
	want(profile, 0, 100, 0)
	profile.maxBlocks = 41 // as many as there are
	deliver(profile, alloctrace.Allocated, 200, 207)
	want(profile, 0, 107, 7)
}

// BenchmarkUsage measures what it costs to ask for the usage.
func BenchmarkUsage(b *testing.B) {
	profile := New(Options{Rate: 1})
	meter := hooks.NewMeter(profile)
	for i := range uintptr(1000) {
		meter.Observe(context.Background(), alloctrace.Event{Kind: alloctrace.Allocated, Addr: (i + 1) << 6, Size: 64, Align: 64}, nil)
	}
	for name, h := range map[string]hooks.UsageSource{"Profile": profile, "Meter": meter} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.Usage()
			}
		})
	}
}
