package ring

import (
	"context"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/internal/shard"
)

var requireAll = os.Getenv("ALLOCTRACE_REQUIRE_ALL") == "1"

// backwards is a clock that runs backwards.
type backwards struct{ now atomic.Int64 }

func (b *backwards) Now() int64 { return b.now.Add(-1) }

// TestOrderOfGoroutines has more goroutines than processors deliver events, yield, and be stopped by
// the garbage collector, so that they change processors: whoever reads sees the events of each
// in the order in which they happened, and Records without gaps.
func TestOrderOfGoroutines(t *testing.T) {
	steps := uint64(30_000)
	if requireAll {
		steps = 500_000
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(4, runtime.NumCPU())))
	for name, c := range map[string]struct {
		clock      Clock
		goroutines uint64
		short      int32 // short epochs to begin with
		pause      uint64
	}{
		"few":                   {nil, 3, shortEpochs, 7},
		"few, in turns":         {nil, 3, -1 << 30, 7},
		"many":                  {nil, 20, 0, 50},
		"by a clock":            {PreciseClock(), 6, shortEpochs, 20},
		"by one that is stuck":  {new(stuck), 6, shortEpochs, 20},
		"by one that goes back": {new(backwards), 6, shortEpochs, 20},
	} {
		t.Run(name, func(t *testing.T) {
			r := New(1<<14, c.clock)
			r.short.Store(c.short)
			last := make([]uint64, c.goroutines)
			var disorder int
			d := NewDrainer(r, alloctrace.HookFunc(func(_ context.Context, e alloctrace.Event, _ error) {
				g, n := uint64(e.Addr)>>24, uint64(e.Addr)&(1<<24-1)
				if n <= last[g] {
					disorder++
				}
				last[g] = n
			}), 50*time.Microsecond)
			var stop atomic.Bool
			var writers, others sync.WaitGroup
			others.Go(func() {
				for !stop.Load() {
					runtime.GC()
					runtime.Gosched()
				}
			})
			others.Go(func() {
				for !stop.Load() {
					seen := make([]uint64, c.goroutines)
					for _, rec := range r.Records() {
						g, n := uint64(rec.Addr)>>24, uint64(rec.Addr)&(1<<24-1)
						if n <= seen[g] {
							t.Errorf("Records has event %d of a goroutine after %d", n, seen[g])
							return
						}
						seen[g] = n
					}
					runtime.Gosched()
				}
			})
			for g := range c.goroutines {
				writers.Go(func() {
					for n := range steps / c.goroutines {
						r.Observe(context.Background(), alloctrace.Event{Kind: alloctrace.Allocated, Addr: uintptr(g<<24 | n + 1), Size: 64, Align: 64}, nil)
						if n%c.pause == g%c.pause {
							runtime.Gosched()
						}
					}
				})
			}
			writers.Wait()
			stop.Store(true)
			others.Wait()
			d.Close()
			if disorder > 0 {
				t.Errorf("%d of %d events were delivered after later ones of their goroutine", disorder, d.Delivered())
			}
			if sum := d.Delivered() + d.Dropped(); sum != steps/c.goroutines*c.goroutines {
				t.Errorf("delivered %d and dropped %d of %d events", d.Delivered(), d.Dropped(), steps)
			}
		})
	}
}

type stuck struct{}

func (*stuck) Now() int64 { return 1 }

// TestOrderOfNewShard has a goroutine come to a shard that is made for it, and back, while others read:
// whoever sees what it wrote last sees what it wrote before.
func TestOrderOfNewShard(t *testing.T) {
	for round := range 40_000 {
		r := handmade(8, 2, nil)
		shards := []*ringShard{r.newShard(0, false), r.newShard(1, false)}
		write := func(i int, number uint64) {
			s := shards[i]
			r.shards[i].Store(s)
			s.write(shard.Proc{}, s.head.Add(1), r.begin(i, s), number, packed(numbered(number)), 0)
		}
		write(1, 1)
		var writing atomic.Bool
		var writer sync.WaitGroup
		writer.Go(func() {
			writing.Store(true)
			for range round % 64 { // so that it is now earlier and now later than the reader
				writing.Load()
			}
			write(0, 2) // which is read before shard 1
			write(1, 3)
		})
		for !writing.Load() {
			runtime.Gosched()
		}
		for got := 0; got < 3; runtime.Gosched() {
			numbers := numbersOf(t, r.Records())
			for i, n := range numbers {
				if n != uint64(i+1) {
					t.Fatalf("round %d: the records are %d", round, numbers)
				}
			}
			got = len(numbers)
		}
		writer.Wait()
	}
}
