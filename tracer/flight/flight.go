// Package flight records what happened in the last second before something went wrong: before an
// allocation failed, a limit was reached, or somebody asked.
//
//	recorder := flight.New(flight.Options{Writer: os.Stderr})
//	defer recorder.Close()
//	mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithHooks(recorder))
//	recorder.Watch(mem)
//
// A record has the last events, with times, sizes and the children they are of, and what each child and,
// by a heap profile, each call holds. It is a text, and one trace. The trace has a
// root span "allocator flight record" over the time of the events, of status Error if an operation failed, with a
// link to the span in which it did. Below it are
//
//	child NAME          up to 16 spans, of the children with the largest changes, from their first event to their last
//	block               up to 64 spans, of the largest blocks that were allocated, until they were freed or the record ends
//	allocate, …         up to 16 spans of status Error, of the last operations that failed
//
// The root has the attributes of a [tracer.Region] for the time of the record, and
//
//	allocator.flight.trigger         string    failure, signal, live_bytes, growth or demand
//	allocator.flight.reason          string    the same for people
//	allocator.flight.region          string    the region in which it failed, if it was in one
//	allocator.flight.events          count     events in the record
//	allocator.flight.blocks_omitted  count     blocks that have no span, for there are more than 64
//	allocator.flight.suppressed      count     triggers that made none, since the record before was taken
//	allocator.flight.holders         string[]  what is live by the calls that allocated it, up to 10; with a Profile
//	allocator.memory.live            By        live when the record was taken; of a Proxy that is watched, as the next
//	allocator.memory.live_blocks     count     likewise
//
// That of a child has allocator.child, its name; that of a block allocator.size, allocator.align and allocator.live,
// which says whether it is live at the end; that of a failure what [tracer.Failures] documents.
package flight

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/hooks/ring"
)

// ScopeName is the instrumentation scope of this package's spans.
const ScopeName = "github.com/alloctrace/alloctrace/tracer/flight"

// Options say what a [Recorder] keeps, when it makes a record, and where that goes. The zero value
// keeps 4,096 events a processor and makes a trace of the first failure in a minute.
type Options struct {
	Events int           // that are kept of each processor, which take 32 bytes each; 4,096 if it is 0 or less
	Window time.Duration // how far a record goes back at most; a second if it is 0 or less

	// Clock gives events their times. If it is nil it is a ring.CoarseClock of a millisecond, which
	// costs little where many allocate; ring.PreciseClock orders what happens within a millisecond.
	Clock ring.Clock

	// Profile says which calls hold what. It must be a hook of the same Proxy. It may be nil.
	Profile *heapprofile.Profile

	// What makes a record beside WriteText and Dump. A signal always does. The others
	// do so once, and then again after Rearm: failures, LiveBytes and Growth each by itself, so that the
	// growth before a failure does not take the record of the failure.
	IgnoreFailures bool          // by default an error that wraps blockalloc.ErrOutOfMemory makes one, as that of a Limit does
	Signals        []os.Signal   // such as syscall.SIGUSR1
	LiveBytes      int64         // of the watched Proxy: reached from below; 0 for none
	Growth         int64         // of them, in bytes within GrowthInterval; 0 for none
	GrowthInterval time.Duration // a second if it is 0 or less
	Rearm          time.Duration // a minute if it is 0 or less

	Writer         io.Writer            // gets the text of each record in one Write; nil for none
	TracerProvider trace.TracerProvider // gets the trace; nil for the global one
}

// A Recorder is a hook that keeps the last events and makes records of them. It may be used by
// several goroutines at once, and by several proxies.
//
// An event costs what it costs a [ring.Ring], and a load. A failure costs an atomic operation more; that which makes
// a record also takes the span and the region from its context, stops the ring and wakes the Recorder's goroutine,
// which does the rest. Until that has copied the ring, some microseconds later, events are counted and not kept. A
// Recorder never allocates through the Proxy.
//
// A program that ends on a failure calls [Recorder.Close] first, which completes the record.
type Recorder struct {
	options Options
	clock   ring.Clock
	coarse  *ring.CoarseClock // nil if the clock is the caller's
	ring    *ring.Ring
	proxy   atomic.Pointer[alloctrace.Proxy] // see Watch

	// Memory ordering: a failure freezes the ring before it disarms failures, keeps its event and sends the
	// cause, in this order. So who receives it finds the event in the ring, and whatever fails after it
	// overwrites nothing. Nobody keeps events that begin after a freeze is seen.
	freezes    atomic.Int32 // failures whose events are to be copied; closed and more after Close
	armed      atomic.Bool  // for failures
	suppressed atomic.Int64 // triggers since the last record
	missed     atomic.Int64
	causes     chan cause // of room for the one that was armed

	stop    chan struct{}
	once    sync.Once
	ended   sync.WaitGroup
	signals chan os.Signal
	growth  growth
	onLive  arm
	onGrown arm

	records, allSuppressed, writeErrors atomic.Int64

	gaps       sync.Mutex  // guards the next two
	gapEnds    []time.Time // of times in which events were missed, within Options.Window
	gapsMissed int64       // of missed, at the last gap

	mu       sync.Mutex // held to write
	firstErr error      // of the Writer
}

// closed is what Close adds to Recorder.freezes.
const closed = 1 << 30

var (
	_ alloctrace.Attacher = (*Recorder)(nil)
	_ hooks.UsageSource   = (*Recorder)(nil)
)

// New starts a Recorder, which runs a goroutine until Close: another one if it has no Clock. It is to be among the
// hooks of a Proxy, after those that other hooks' records depend on, such as Options.Profile.
func New(o Options) *Recorder {
	if o.Events <= 0 {
		o.Events = 4096
	}
	o.Window = orDefault(o.Window, time.Second)
	o.GrowthInterval = orDefault(o.GrowthInterval, time.Second)
	o.Rearm = orDefault(o.Rearm, time.Minute)
	r := &Recorder{options: o, clock: o.Clock, causes: make(chan cause, 1), stop: make(chan struct{})}
	if r.clock == nil {
		r.coarse = ring.NewCoarseClock(time.Millisecond)
		r.clock = r.coarse
	}
	r.ring = ring.New(o.Events, r.clock)
	r.armed.Store(true)
	if o.LiveBytes > 0 || o.Growth > 0 {
		r.growth.init(o)
	}
	if len(o.Signals) > 0 {
		r.signals = make(chan os.Signal, 1)
		signal.Notify(r.signals, o.Signals...)
	}
	r.ended.Go(r.run)
	return r
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}

// Watch names the Proxy whose live bytes Options.LiveBytes and Options.Growth are about, and of whose
// children a record says what they hold. It replaces the one before. The Recorder looks at it every 10 to 100 ms
// if one of these options is set, which costs a Stats each time.
func (r *Recorder) Watch(p *alloctrace.Proxy) {
	if p == nil {
		panic("flight: Watch(nil): pass the Proxy that has the Recorder among its hooks")
	}
	r.proxy.Store(p)
}

// Observe keeps e, and makes a record if it is the first failure.
func (r *Recorder) Observe(ctx context.Context, e alloctrace.Event, err error) {
	r.observe(ctx, r.ring, "", e, err)
}

// Attach implements [alloctrace.Attacher].
func (r *Recorder) Attach(to *alloctrace.Attachment) alloctrace.Hook {
	return &part{r, to.Attach(r.ring), to.Child}
}

// A part observes one Proxy or child.
type part struct {
	recorder *Recorder
	ring     alloctrace.Hook
	child    string
}

func (p *part) Observe(ctx context.Context, e alloctrace.Event, err error) {
	p.recorder.observe(ctx, p.ring, p.child, e, err)
}

func (r *Recorder) observe(ctx context.Context, keep alloctrace.Hook, child string, e alloctrace.Event, err error) {
	if err != nil && r.failed(ctx, keep, child, e, err) {
		return
	}
	switch n := r.freezes.Load(); {
	case n == 0:
		keep.Observe(ctx, e, err)
	case n < closed:
		r.missed.Add(1)
	}
}

// Stats are what a Recorder has done.
type Stats struct {
	Records     int64 // that were made
	Suppressed  int64 // triggers that made none, because another one had made one within Options.Rearm
	Missed      int64 // events that were not kept while a record was taken
	WriteErrors int64 // records that Options.Writer did not take
}

// Stats returns what r has done.
func (r *Recorder) Stats() Stats {
	return Stats{r.records.Load(), r.allSuppressed.Load(), r.missed.Load(), r.writeErrors.Load()}
}

// Usage returns what r has done and takes. What it does while it makes a record is not in it.
func (r *Recorder) Usage() hooks.Usage {
	u := r.ring.Usage()
	u.Dropped = r.missed.Load()
	u.Events += u.Dropped
	u.Bytes += int64(unsafe.Sizeof(*r)) + int64(r.growth.most)*int64(unsafe.Sizeof(int64(0)))
	return u
}

// Close completes the record of a failure that has happened, and ends r. What happens later is not kept. It returns the first
// error of Options.Writer. WriteText and Dump can still be called, for what was kept. A second Close does nothing.
func (r *Recorder) Close() (err error) {
	r.once.Do(func() {
		close(r.stop)
		r.ended.Wait()
		r.freezes.Add(closed)
		if r.signals != nil {
			signal.Stop(r.signals)
		}
		if r.coarse != nil {
			_ = r.coarse.Close()
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.firstErr != nil {
			err = fmt.Errorf("flight: Writer: %w", r.firstErr)
		}
	})
	return err
}
