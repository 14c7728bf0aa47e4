package tracer

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// LifetimeOptions configure [NewLifetimes]. The zero value samples as a service in production can
// afford. CheckpointEvery has leaks reported while it runs.
type LifetimeOptions struct {
	Rate      int // bytes allocated for each block that is sampled, as heapprofile.Options has it: 0 is 512 KiB, 1 every block
	MaxBlocks int // how many live blocks are remembered, likewise: 0 is 262,144, or no bound if Rate is 1

	// Skip are packages whose calls are left out of code.stacktrace and LiveBlock.Stack where they are the
	// innermost, such as those of an adapter, as heapprofile.Options has it.
	Skip []string

	// Budget bounds how many spans are started in a second. Nil is a budget of 100 of its own.
	Budget *Budget

	// TracerProvider is where spans go. Nil is otel.GetTracerProvider. Each span is a root: a sampler
	// that drops traces drops leaks, too. A provider of their own, which samples all, keeps them.
	TracerProvider trace.TracerProvider

	// Logs is called for each block that is reported as leaked, as by WithLogs: the event is
	// allocator.leak, and the context holds the span in which it was allocated. Nil is nobody.
	Logs func(ctx context.Context, r LogRecord)

	// Attributes returns more attributes for the span of a block, of the context in which it was
	// allocated. It is called for each block that is sampled, concurrently. Nil adds none.
	Attributes func(ctx context.Context) []attribute.KeyValue

	OldAge          time.Duration // from what age on blocks are looked at by checkpoints; 0 is a minute
	CheckpointEvery time.Duration // how often Checkpoint is called; 0 is never
	LongLived       []string      // names of children whose blocks outlive requests, such as those of a cache: they are never leaked

	// Leaked reports whether an old block is a leak. If it is nil, one is that was allocated in a region
	// that ended OldAge ago or earlier, as did all regions around it, which may use what an inner one has
	// made, and not through a child that is LongLived.
	Leaked func(b LiveBlock) bool
}

// A LiveBlock is what LifetimeOptions.Leaked decides about.
type LiveBlock struct {
	Size, Align  uintptr
	Age          time.Duration
	Proxy, Child string
	Region       string              // the name of the region that it was allocated in, "" if none
	RegionEnded  time.Duration       // how long ago it and all regions around it had ended; negative if one has not, or there is none
	Stack        []heapprofile.Frame // from the function that allocated it outwards; see LifetimeOptions.Skip
}

// Lifetimes is a Hook that makes a span of a block's life, from its allocation to its free: of
// some blocks, that are sampled by their bytes as [heapprofile.Profile] does. It must observe
// blocks from their allocation on, so that it belongs into the options of the Proxy:
//
//	lifetimes := tracer.NewLifetimes(tracer.LifetimeOptions{CheckpointEvery: time.Minute, LongLived: []string{"cache"}})
//	defer lifetimes.Close()
//	mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithHooks(lifetimes))
//
// Each span is the root of a trace of its own, named "block", or "block CHILD". It is linked to the
// span in which the block was allocated, and to that in which it was freed. It has the attributes
//
//	allocator.block.size    By      granted
//	allocator.block.align   By
//	allocator.block.weight  blocks  how many blocks of its size it stands for
//	allocator.name          string  the Proxy's name, if it has one
//	allocator.child         string  the child's name, if it was allocated through one
//	allocator.region        string  the name of the region it was allocated in, if any
//	allocator.freed_by      string  the name of the region it was freed in, if that is another one
//	allocator.leaked        bool    whether it is reported as leaked
//	allocator.live          bool    true where the block is still live, and has another span later
//	code.stacktrace         string  where it was allocated, without LifetimeOptions.Skip: a line a function, with file and line
//
// those of [Region.SetAttributes] and of LifetimeOptions.Attributes. A search for the tag
// allocator.leaked=true finds leaks: at [Lifetimes.Close] each block that is still live and not
// LongLived, and before, by [Lifetimes.Checkpoint], what LifetimeOptions.Leaked says. Their status is Error.
//
// A span is started when the life has ended, with the times of both, so that no span is open
// meanwhile and none is lost unseen: what has none is counted, see [LifetimeStats]. A block that is not
// sampled costs what it costs a Profile. One that is sampled costs some 500 nanoseconds and 200 bytes on
// the Go heap more, and its span some microseconds. Lifetimes may be used by several goroutines at
// once, and by several Proxies. A free waits while a span of its block is made: span processors, Logs
// and Leaked should not block, and must not free the block.
type Lifetimes struct {
	profile *heapprofile.Profile
	options LifetimeOptions
	config  config

	closed  atomic.Bool
	stop    chan struct{}
	stopped sync.WaitGroup

	spans, leaked, suppressed, unrecorded, checkpoints, ended atomic.Int64
}

var _ alloctrace.Attacher = (*Lifetimes)(nil)

// NewLifetimes returns Lifetimes. It panics if an option is negative, or Skip has what is no import path.
func NewLifetimes(o LifetimeOptions) *Lifetimes {
	if o.OldAge < 0 || o.CheckpointEvery < 0 {
		panic(fmt.Sprintf("tracer: NewLifetimes with OldAge %v and CheckpointEvery %v: use 0 for the defaults, or more", o.OldAge, o.CheckpointEvery))
	}
	l := &Lifetimes{options: o, stop: make(chan struct{})}
	l.options.OldAge = cmp.Or(o.OldAge, time.Minute)
	if l.options.Leaked == nil {
		l.options.Leaked = l.outlivedRegion
	}
	l.config = config{provider: o.TracerProvider, budget: o.Budget, logs: o.Logs}
	if o.Budget == nil {
		l.config.budget = NewBudget(100)
	}
	l.profile = heapprofile.New(heapprofile.Options{Rate: o.Rate, MaxBlocks: o.MaxBlocks, Skip: o.Skip, Watcher: (*watcher)(l)})
	openLifetimes.Add(1)
	if o.CheckpointEvery > 0 {
		l.stopped.Go(l.checkpointEvery)
	}
	return l
}

func (l *Lifetimes) checkpointEvery() {
	tick := time.NewTicker(l.options.CheckpointEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.Checkpoint()
		case <-l.stop:
			return
		}
	}
}

// Profile returns the Profile that samples the blocks: another one need not be installed, for
// exporters/pprof for example.
func (l *Lifetimes) Profile() *heapprofile.Profile { return l.profile }

// Observe implements [alloctrace.Hook].
func (l *Lifetimes) Observe(ctx context.Context, e alloctrace.Event, err error) {
	l.profile.Observe(ctx, e, err)
}

// Attach implements [alloctrace.Attacher].
func (l *Lifetimes) Attach(to *alloctrace.Attachment) alloctrace.Hook { return l.profile.Attach(to) }

// LifetimeStats are what [Lifetimes] has done. At rest Sampled is the sum of Spans, Suppressed,
// Unrecorded, Live and Untracked.
type LifetimeStats struct {
	Sampled     int64 // blocks
	Live        int64 // of them live and without a span
	Spans       int64 // of them have ended with a span, those that Close reports included
	Suppressed  int64 // have ended without one, for want of the Budget
	Unrecorded  int64 // have ended with a span that nobody records: by the sampler of the TracerProvider, or without one
	Untracked   int64 // were sampled while MaxBlocks were remembered
	Leaked      int64 // blocks that were reported as leaked, by spans that are Unrecorded too
	Checkpoints int64 // spans of blocks that were live, and not at Close
}

// Stats returns what l has done.
func (l *Lifetimes) Stats() LifetimeStats {
	p := l.profile.Stats()
	s := LifetimeStats{
		Sampled: p.Sampled, Untracked: p.Untracked, Spans: l.spans.Load(), Suppressed: l.suppressed.Load(),
		Unrecorded: l.unrecorded.Load(), Leaked: l.leaked.Load(), Checkpoints: l.checkpoints.Load(),
	}
	s.Live = max(0, s.Sampled-s.Untracked-l.ended.Load())
	return s
}

// Checkpoint makes spans of blocks that are older than OldAge and still live: of each one that is
// a leak by LifetimeOptions.Leaked, once, and of each other one when it is OldAge old, twice as
// old, four times and so on. Of blocks that were allocated by the same calls one has its span
// first, in case the Budget does not suffice for all. What has none is looked at again by the next
// Checkpoint.
func (l *Lifetimes) Checkpoint() {
	if l.closed.Load() {
		return
	}
	now := time.Now()
	old := slices.DeleteFunc(l.profile.Watched(), func(b *heapprofile.Watched) bool { return now.Sub(b.Allocated) < l.options.OldAge })
	spent := false // but for what the budget reserves for leaks
	for _, b := range spread(old) {
		life, age := b.Value.(*lifetime), now.Sub(b.Allocated)
		life.mu.Lock()
		leaked := !life.ended && !life.leaked && l.options.Leaked(life.liveBlock(b, now))
		if life.ended || life.leaked || !leaked && (spent || age < life.shownAt) {
			life.mu.Unlock()
			continue
		}
		is := l.emit(b, now, leaked, true)
		if is != suppressedSpan {
			life.leaked, life.shownAt = leaked, 2*age
		}
		if is == recordedSpan {
			l.checkpoints.Add(1)
		}
		life.mu.Unlock()
		if is == suppressedSpan {
			if leaked {
				return // so as not to count all others as suppressed
			}
			spent = true
		}
	}
}

// Close ends l. Each block that is still live has a span, as far as the Budget goes, with
// allocator.leaked=true unless its child is LongLived. Of blocks that were allocated by the same
// calls one has its span first. It does not flush the TracerProvider. A second Close does nothing.
func (l *Lifetimes) Close() {
	if l.closed.Swap(true) {
		return
	}
	close(l.stop)
	l.stopped.Wait()
	l.profile.SetRate(0)
	openLifetimes.Add(-1)
	now := time.Now()
	for _, b := range spread(l.profile.Watched()) {
		l.end(b, now, true)
	}
}

// spread returns blocks in an order in which the first ones have different stacks, the oldest of each.
func spread(blocks []*heapprofile.Watched) []*heapprofile.Watched {
	slices.SortFunc(blocks, func(a, b *heapprofile.Watched) int { return a.Allocated.Compare(b.Allocated) })
	seen := make(map[heapprofile.StackID]int)
	turns := make(map[*heapprofile.Watched]int, len(blocks))
	for _, b := range blocks {
		turns[b] = seen[b.StackID()]
		seen[b.StackID()]++
	}
	slices.SortStableFunc(blocks, func(a, b *heapprofile.Watched) int { return cmp.Compare(turns[a], turns[b]) })
	return blocks
}

func (l *Lifetimes) longLived(child string) bool { return slices.Contains(l.options.LongLived, child) }

// outlivedRegion is Leaked unless it is set.
func (l *Lifetimes) outlivedRegion(b LiveBlock) bool {
	return b.RegionEnded >= l.options.OldAge && !l.longLived(b.Child)
}
