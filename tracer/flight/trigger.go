package flight

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/tracer"
)

// A cause is why a record is made.
type cause struct {
	trigger string
	reason  string // empty for a failure, whose reason is its event
	at      int64  // nanoseconds since 1970
	span    trace.SpanContext

	// Of a failure:
	child, region string
	event         alloctrace.Event
	err           error
}

// failed has the Recorder's goroutine make a record, if none was made lately. It then keeps the event, and
// nothing after it, and returns true.
func (r *Recorder) failed(ctx context.Context, keep alloctrace.Hook, child string, e alloctrace.Event, err error) bool {
	if r.options.IgnoreFailures || r.freezes.Load() >= closed || !errors.Is(err, blockalloc.ErrOutOfMemory) {
		return false
	}
	if !r.armed.Load() {
		r.suppress()
		return false
	}
	r.freezes.Add(1)
	if !r.armed.CompareAndSwap(true, false) {
		r.freezes.Add(-1)
		r.suppress()
		return false
	}
	at := r.clock.Now()
	keep.Observe(ctx, e, err)
	r.causes <- cause{ // there is room: r was armed
		trigger: "failure", at: at, span: trace.SpanContextFromContext(ctx),
		child: child, region: tracer.FromContext(ctx).Name(), event: e, err: err,
	}
	return true
}

// An arm lets a trigger of the Recorder's goroutine make a record, and then again after Options.Rearm.
type arm struct {
	fired bool
	last  time.Time
}

// arm reports whether a trigger makes a record.
func (r *Recorder) arm(a *arm) bool {
	if now := time.Now(); !a.fired || now.Sub(a.last) >= r.options.Rearm {
		a.fired, a.last = true, now
		return true
	}
	r.suppress()
	return false
}

func (r *Recorder) suppress() {
	r.suppressed.Add(1)
	r.allSuppressed.Add(1)
}

// run is the Recorder's goroutine.
func (r *Recorder) run() {
	var looks, rearm <-chan time.Time
	if r.growth.most > 0 {
		ticker := time.NewTicker(r.growth.every)
		defer ticker.Stop()
		looks = ticker.C
	}
	for {
		select {
		case <-r.stop:
			r.armed.Store(false)
			select {
			case c := <-r.causes:
				_ = r.dump(c)
			default:
			}
			return
		case c := <-r.causes:
			_ = r.dump(c)
			rearm = time.After(r.options.Rearm)
		case <-rearm:
			r.armed.Store(true)
		case s := <-r.signals:
			_ = r.dump(cause{trigger: "signal", reason: "signal " + s.String(), at: r.clock.Now()})
		case <-looks:
			c := r.look()
			if c.trigger == "live_bytes" && r.arm(&r.onLive) || c.trigger == "growth" && r.arm(&r.onGrown) {
				_ = r.dump(c)
			}
		}
	}
}

// look looks at the watched Proxy. It returns a cause without a trigger if there is none.
func (r *Recorder) look() (c cause) {
	p := r.proxy.Load()
	if p == nil {
		return c
	}
	live := p.Stats().LiveBytes
	c.at = r.clock.Now()
	was := r.growth.last
	r.growth.last = live
	if most := r.options.LiveBytes; most > 0 && live >= most && was < most {
		c.trigger = "live_bytes"
		c.reason = fmt.Sprintf("%s are live, which reaches %s", counter.FormatBytes(live), counter.FormatBytes(most))
	}
	if grown := r.growth.add(live); r.options.Growth > 0 && grown >= r.options.Growth {
		r.growth.reset()
		if c.trigger == "" {
			c.trigger = "growth"
			c.reason = fmt.Sprintf("%s more are live than within %v before, which reaches %s",
				counter.FormatBytes(grown), r.options.GrowthInterval, counter.FormatBytes(r.options.Growth))
		}
	}
	return c
}

// growthParts is how many parts of Options.GrowthInterval are told apart, or fewer if the interval has not so
// many looks.
const growthParts = 64

// growth is the least that was live in each part of the last Options.GrowthInterval.
type growth struct {
	every   time.Duration // from look to look
	most    int           // parts, one more than an interval has; 0 if nobody looks
	least   []int64       // the latest last
	perPart int           // looks
	looks   int           // in the latest part
	last    int64
}

func (g *growth) init(o Options) {
	g.every = min(max(o.GrowthInterval/growthParts, 10*time.Millisecond), 100*time.Millisecond)
	looks := max(1, int(o.GrowthInterval/g.every))
	g.perPart = (looks + growthParts - 1) / growthParts
	g.most = looks/g.perPart + 1
	g.least = make([]int64, 0, g.most)
}

// add returns by how much live is more than the least in the interval.
func (g *growth) add(live int64) int64 {
	if len(g.least) == 0 || g.looks == g.perPart {
		if len(g.least) == g.most {
			g.least = g.least[:copy(g.least, g.least[1:])]
		}
		g.least, g.looks = append(g.least, live), 0
	}
	g.looks++
	latest := len(g.least) - 1
	g.least[latest] = min(g.least[latest], live)
	return live - slices.Min(g.least)
}

// reset forgets what was live before.
func (g *growth) reset() { g.least = g.least[:0] }
