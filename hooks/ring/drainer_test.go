package ring

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks"
)

// TestDrainer: every event is delivered or counted as dropped, however slow the hook is.
func TestDrainer(t *testing.T) {
	const writers, steps = 4, 20_000
	for name, pause := range map[string]int{"fast": 0, "slow": 200} {
		t.Run(name, func(t *testing.T) {
			r := New(256, nil)
			delivered := uint64(0)
			d := NewDrainer(r, alloctrace.HookFunc(func(_ context.Context, e alloctrace.Event, _ error) {
				n := uint64(e.Addr)
				if e != numbered(n) {
					t.Errorf("delivered %+v, which is of no one event", e)
				}
				delivered++
				for range pause {
					slowly.Add(1)
				}
			}), 100*time.Microsecond)
			var wg sync.WaitGroup
			for w := range uint64(writers) {
				wg.Go(func() {
					for i := range uint64(steps) {
						r.Observe(context.Background(), numbered(w<<24|i), nil)
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
			if d.Delivered() != delivered || delivered+d.Dropped() != writers*steps || delivered == 0 {
				t.Errorf("delivered %d, which were %d, and dropped %d; want %d together", d.Delivered(), delivered, d.Dropped(), writers*steps)
			}
			before := delivered
			r.Observe(t.Context(), numbered(1), nil)
			d.Close()
			if d.Delivered() != before+1 {
				t.Error("a second Close does not deliver what came since")
			}
		})
	}
}

var slowly atomic.Int64

// TestDrainerDrops: of what the Ring has no room for, all is counted.
func TestDrainerDrops(t *testing.T) {
	r := one(New(8, nil))
	var got []uint64
	d := NewDrainer(r, alloctrace.HookFunc(func(_ context.Context, e alloctrace.Event, _ error) { got = append(got, uint64(e.Addr)) }), time.Hour)
	for n := range uint64(20) {
		r.Observe(t.Context(), numbered(n+1), nil)
	}
	d.Flush()
	if want := []uint64{13, 14, 15, 16, 17, 18, 19, 20}; !slices.Equal(got, want) || d.Dropped() != 12 || d.Delivered() != 8 {
		t.Errorf("delivered %d and dropped %d, want %d and 12", got, d.Dropped(), want)
	}
	r.others.Load().head.Add(1) // somebody begins and does not end
	r.Observe(t.Context(), numbered(22), nil)
	d.Flush()
	if len(got) != 8 {
		t.Errorf("delivered %d before what came earlier", got[8:])
	}
	d.Close()
	if got[len(got)-1] != 22 || d.Dropped() != 13 {
		t.Errorf("at the end delivered %d and dropped %d, want 22 and 13", got[8:], d.Dropped())
	}
}

// TestDrainerAllocates: a hook behind a Drainer may allocate through the Proxy that
// it observes.
func TestDrainerAllocates(t *testing.T) {
	r := New(64, nil)
	p := alloctest.New(t, alloctest.WithProxy(alloctrace.WithHooks(r)))
	allocate := func() {
		b, err := p.Allocate(blockalloc.Layout{Size: 64, Align: 8})
		if err != nil {
			t.Error(err)
		}
		if err := p.Free(b); err != nil {
			t.Error(err)
		}
	}
	d := NewDrainer(r, alloctrace.HookFunc(func(context.Context, alloctrace.Event, error) { allocate() }), time.Hour)
	allocate()
	d.Flush()
	if d.Delivered() != 2 || r.Observed() != 6 {
		t.Errorf("delivered %d of %d, want 2 of 6", d.Delivered(), r.Observed())
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// TestDrainerUsageDoesNotWait: a hook to which a Drainer delivers may ask for its usage.
func TestDrainerUsageDoesNotWait(t *testing.T) {
	r := New(8, nil)
	var drainer *Drainer
	var got hooks.Usage
	drainer = NewDrainer(r, alloctrace.HookFunc(func(context.Context, alloctrace.Event, error) { got = drainer.Usage() }), time.Hour)
	r.Observe(t.Context(), alloctrace.Event{Kind: alloctrace.Allocated, Addr: 64, Size: 64, Align: 64}, nil)
	if err := drainer.Close(); err != nil {
		t.Fatal(err)
	}
	if got.Events != 1 {
		t.Errorf("the usage is %+v, want that of one event", got)
	}
}
