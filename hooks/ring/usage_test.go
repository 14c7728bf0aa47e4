package ring

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// TestUsageBytes: Usage.Bytes is 80 % to 101 % of what the Go heap has grown by, and 4 KiB of noise.
func TestUsageBytes(t *testing.T) {
	const noise = 4096
	for _, size := range []int{1, 256, 10_000, 1 << 17} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			r, growth := measure.HeapGrowth(func() *Ring {
				r := New(size, nil)
				deliver(r, alloctrace.Allocated, 10_000)
				return r
			})
			if bytes := r.Usage().Bytes; bytes < growth*80/100-noise || bytes > growth*101/100+noise {
				t.Errorf("%d bytes, and the Go heap has grown by %d: %.1f %%", bytes, growth, 100*float64(bytes)/float64(growth))
			}
			runtime.KeepAlive(r)
		})
	}
}

// deliver has h observe so many events.
func deliver(h alloctrace.Hook, kind alloctrace.Kind, events int) {
	var err error
	if kind.Failed() {
		err = errors.New("not today")
	}
	for i := range events {
		h.Observe(context.Background(), alloctrace.Event{Kind: kind, Addr: uintptr(i+1) << 6, Size: 64, Align: 64}, err)
	}
}

// TestUsageCounts: what a Ring has observed, and what a Drainer has delivered and dropped.
func TestUsageCounts(t *testing.T) {
	want := func(h hooks.UsageSource, events, sampled, dropped int64) {
		t.Helper()
		if u := h.Usage(); u.Events != events || u.Sampled != sampled || u.Dropped != dropped || u.Time != 0 || u.TimeError != 0 || u.Bytes <= 0 {
			t.Errorf("the usage of a %T is %+v, want %d events, %d sampled, %d dropped", h, u, events, sampled, dropped)
		}
	}

	r := New(8, nil)
	want(r, 0, 0, 0)
	deliver(r, alloctrace.Allocated, 5)
	deliver(r, alloctrace.FreeFailed, 2)
	want(r, 7, 7, 0)

	calls := 0
	r = New(8, nil)
	drainer := NewDrainer(r, alloctrace.HookFunc(func(context.Context, alloctrace.Event, error) { calls++ }), time.Hour)
	want(drainer, 0, 0, 0)
	deliver(r, alloctrace.Allocated, 1000) // by whatever processors
	if err := drainer.Close(); err != nil {
		t.Fatal(err)
	}
	if calls == 1000 {
		t.Error("a Ring of 8 has kept 1000 events")
	}
	want(drainer, 1000, int64(calls), int64(1000-calls))
}

// BenchmarkUsage measures what it costs to ask a Ring for its usage.
func BenchmarkUsage(b *testing.B) {
	r := New(256, nil)
	deliver(r, alloctrace.Allocated, 1000)
	b.ReportAllocs()
	for b.Loop() {
		r.Usage()
	}
}
