package tracer_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/internal/spantest"
	"github.com/alloctrace/alloctrace/tracer"
)

// recorder keeps spans.
type recorder struct{ spantest.Recorder }

// named returns the spans of a name, and checks that each has ended once.
func (r *recorder) named(t *testing.T, name string) []*spantest.Span {
	t.Helper()
	list := r.Named(name)
	for _, s := range list {
		if s.Ends != 1 {
			t.Errorf("span %q has ended %d times", name, s.Ends)
		}
	}
	return list
}

// TestLifetime: a block's span is a root from allocate to free, linked to the spans of both, and
// says whose the block was, where it was allocated, and who has freed it.
func TestLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var spans recorder
		with := tracer.WithTracerProvider(&spans)
		l := tracer.NewLifetimes(tracer.LifetimeOptions{
			Rate: 1, TracerProvider: &spans,
			Attributes: func(ctx context.Context) []attribute.KeyValue {
				return []attribute.KeyValue{attribute.String("of", tracer.FromContext(ctx).Name())}
			},
		})
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithName("mem"), alloctrace.WithHooks(l))
		one, first := tracer.Start(t.Context(), "first", mem, with)
		two, second := tracer.Start(t.Context(), "second", mem, with)
		cache := mem.Child("cache")
		start := time.Now()
		b := allocate(t, cache.WithContext(one), 4096)
		first.SetAttributes(attribute.String("http.route", "/pages"))
		first.SetAttributes(attribute.Int("more", 7))
		time.Sleep(3 * time.Second)
		free(t, cache.WithContext(two), b)
		free(t, mem, allocate(t, mem, 64))
		first.End()
		second.End()
		l.Close()

		of := spans.named(t, "block cache")
		if len(of) != 1 || len(spans.named(t, "block")) != 1 {
			t.Fatalf("%d spans of the block, want 1, and 1 of another", len(of))
		}
		s := of[0]
		if s.Parent.IsValid() || !s.From.Equal(start) || s.To.Sub(s.From) != 3*time.Second || s.Status != codes.Unset {
			t.Errorf("a span from %v to %v below %v of status %v, want 3 s and a root", s.From, s.To, s.Parent, s.Status)
		}
		var linked []string
		for _, link := range s.Links {
			linked = append(linked, link.Attributes[0].Value.AsString()+" "+link.SpanContext.SpanID().String())
		}
		if want := []string{"allocate " + spans.Spans[0].Context.SpanID().String(), "free " + spans.Spans[1].Context.SpanID().String()}; !slices.Equal(linked, want) {
			t.Errorf("links %q, want %q", linked, want)
		}
		for name, want := range map[string]string{
			"allocator.block.size": "4096", "allocator.block.align": "8", "allocator.block.weight": "1",
			"allocator.name": "mem", "allocator.child": "cache", "allocator.region": "first", "allocator.freed_by": "second",
			"allocator.leaked": "false", "allocator.live": "false", "of": "first", "http.route": "/pages", "more": "7",
		} {
			if got := s.Attributes[attribute.Key(name)]; fmt.Sprint(got.AsInterface()) != want {
				t.Errorf("%s is %v, want %q", name, got.AsInterface(), want)
			}
		}
		if stack := s.Attributes["code.stacktrace"].AsString(); !strings.Contains(stack, "tracer_test.allocate\n\t") || !strings.Contains(stack, "_test.go:") {
			t.Errorf("the stack is %q", stack)
		}
		if got := l.Stats(); got != (tracer.LifetimeStats{Sampled: 2, Spans: 2}) {
			t.Errorf("%+v, want two spans of two blocks", got)
		}
	})
}

// TestLifetimeOfAFailedFree: a block that could not be freed lives on, and has one span.
func TestLifetimeOfAFailedFree(t *testing.T) {
	var spans recorder
	l := tracer.NewLifetimes(tracer.LifetimeOptions{Rate: 1, TracerProvider: &spans})
	inner := &refusing{Allocator: new(blockalloc.Heap)}
	mem := alloctrace.Wrap(inner, alloctrace.WithHooks(l))
	b := allocate(t, mem, 64)
	inner.refuses = true
	if err := mem.Free(b); err == nil {
		t.Fatal("the free does not fail")
	}
	if s := l.Stats(); s.Live != 1 || s.Spans != 0 {
		t.Errorf("after a failed free: %+v", s)
	}
	inner.refuses = false
	free(t, mem, b)
	if s := l.Stats(); s.Live != 0 || s.Spans != 1 || len(spans.named(t, "block")) != 1 {
		t.Errorf("after a free: %+v", s)
	}
	l.Close()
}

// refusing refuses frees.
type refusing struct {
	blockalloc.Allocator
	refuses bool
}

func (r *refusing) Free(b blockalloc.Block) error {
	if r.refuses {
		return failing.ErrInjected
	}
	return r.Allocator.Free(b)
}

// TestClose: what is live at Close is reported as leaked, once, one of each stack first; what is freed
// later has no other span.
func TestClose(t *testing.T) {
	var spans recorder
	var records []string
	l := tracer.NewLifetimes(tracer.LifetimeOptions{
		Rate: 1, TracerProvider: &spans, Budget: tracer.NewBudget(3),
		Logs: func(_ context.Context, r tracer.LogRecord) { records = append(records, r.Event) },
	})
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(l))
	var blocks []blockalloc.Block
	for range 5 {
		blocks = append(blocks, allocate(t, mem, 64))
	}
	blocks = append(blocks, other(t, mem))
	l.Close()
	l.Close()
	of := spans.named(t, "block")
	if s := l.Stats(); len(of) != 3 || s != (tracer.LifetimeStats{Sampled: 6, Spans: 3, Suppressed: 3, Leaked: 3}) {
		t.Fatalf("%d spans; %+v, want 3 of 6 blocks", len(of), s)
	}
	if sizes := of[0].Attributes["allocator.block.size"].AsInt64() + of[1].Attributes["allocator.block.size"].AsInt64(); sizes != 64+32 {
		t.Errorf("the first two blocks have %d bytes, want one of each stack", sizes)
	}
	for _, s := range of {
		if !s.Attributes["allocator.leaked"].AsBool() || s.Status != codes.Error || !strings.Contains(s.Description, "still live") {
			t.Errorf("%v, %v %q, want an error", s.Attributes, s.Status, s.Description)
		}
	}
	if !slices.Equal(records, []string{"allocator.leak", "allocator.leak", "allocator.leak"}) {
		t.Errorf("log records %q", records)
	}
	free(t, mem, blocks...)
	free(t, mem, allocate(t, mem, 64))
	if s := l.Stats(); s.Spans != 3 || s.Live != 0 || s.Sampled != 6 {
		t.Errorf("after Close: %+v", s)
	}
}

func other(t *testing.T, mem blockalloc.Allocator) blockalloc.Block {
	b, err := mem.Allocate(blockalloc.BlockLayout(32))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCloseWithACache: what a child that is long-lived has at Close is shown, and not as a leak.
func TestCloseWithACache(t *testing.T) {
	var spans recorder
	l := tracer.NewLifetimes(tracer.LifetimeOptions{Rate: 1, TracerProvider: &spans, LongLived: []string{"cache"}})
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(l))
	cache := mem.Child("cache")
	b := allocate(t, cache, 64)
	l.Close()
	of := spans.named(t, "block cache")
	if len(of) != 1 || of[0].Attributes["allocator.leaked"].AsBool() || !of[0].Attributes["allocator.live"].AsBool() || of[0].Status != codes.Unset || l.Stats().Leaked != 0 {
		t.Errorf("%d spans; %+v", len(of), l.Stats())
	}
	free(t, cache, b)
}

// TestCheckpoint: while a service runs, what outlives its region is a leak, and is reported once. What
// a cache has is not, and is shown as live at ages that double.
func TestCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var spans recorder
		l := tracer.NewLifetimes(tracer.LifetimeOptions{
			Rate: 1, TracerProvider: &spans, OldAge: time.Minute, CheckpointEvery: 30 * time.Second, LongLived: []string{"cache"},
		})
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(l))
		cache := mem.Child("cache")
		ctx, r := tracer.Start(t.Context(), "request", mem)
		kept, leak := allocate(t, cache.WithContext(ctx), 4096), allocate(t, mem.WithContext(ctx), 64)
		open, still := tracer.Start(t.Context(), "open", mem)
		inUse := allocate(t, mem.WithContext(open), 128)
		outside := allocate(t, mem, 256)
		r.End()
		r.SetAttributes(attribute.String("http.route", "/leak"))
		time.Sleep(59 * time.Second)
		if s := l.Stats(); s.Checkpoints != 0 || s.Live != 4 {
			t.Errorf("before they are old: %+v", s)
		}
		time.Sleep(9*time.Minute + 10*time.Second)
		shown := map[int64][]time.Duration{}
		for _, s := range append(spans.named(t, "block"), spans.named(t, "block cache")...) {
			size := s.Attributes["allocator.block.size"].AsInt64()
			shown[size] = append(shown[size], s.To.Sub(s.From))
			if leaked := s.Attributes["allocator.leaked"].AsBool(); leaked != (size == 64) || !s.Attributes["allocator.live"].AsBool() || leaked != (s.Status == codes.Error) {
				t.Errorf("a block of %d bytes: %v, %v", size, s.Attributes, s.Status)
			}
			if size == 64 && s.Attributes["http.route"].AsString() != "/leak" {
				t.Errorf("the leak has no route: %v", s.Attributes)
			}
		}
		doubling := []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute}
		if !slices.Equal(shown[4096], doubling) || !slices.Equal(shown[128], doubling) || !slices.Equal(shown[256], doubling) || len(shown[64]) != 1 {
			t.Errorf("blocks are shown at %v", shown)
		}
		still.End()
		free(t, mem, leak, inUse, outside)
		free(t, cache, kept)
		l.Close()
		if s := l.Stats(); s.Live != 0 || s.Leaked != 1 || s.Spans+s.Suppressed != 4 || s.Checkpoints != 13 {
			t.Errorf("at the end %+v", s)
		}
		if of := spans.named(t, "block"); of[len(of)-1].Attributes["allocator.leaked"].AsBool() {
			t.Error("a block that was freed is called a leak")
		}
	})
}

// TestCheckpointAgain: a leak for which there is no budget is reported by the next checkpoint.
func TestCheckpointAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var spans recorder
		l := tracer.NewLifetimes(tracer.LifetimeOptions{
			Rate: 1, TracerProvider: &spans, Budget: tracer.NewBudget(1), Leaked: func(b tracer.LiveBlock) bool { return b.Size == 64 },
		})
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(l))
		blocks := []blockalloc.Block{allocate(t, mem, 64), allocate(t, mem, 64)}
		time.Sleep(time.Hour)
		for i := range 3 {
			l.Checkpoint()
			if n := len(spans.named(t, "block")); n != min(i+1, 2) {
				t.Errorf("%d spans after %d checkpoints", n, i+1)
			}
			time.Sleep(time.Second)
		}
		free(t, mem, blocks...)
		l.Close()
	})
}

// TestEscaped: where every block is sampled a region knows exactly what of its own is live.
func TestEscaped(t *testing.T) {
	var spans recorder
	with := tracer.WithTracerProvider(&spans)
	mem := new(blockalloc.Heap)
	_, r := tracer.Start(t.Context(), "blind", mem, with)
	if e := r.Summary().Escaped; e != (tracer.Escaped{}) {
		t.Errorf("without Lifetimes: %+v", e)
	}
	r.End()
	l := tracer.NewLifetimes(tracer.LifetimeOptions{Rate: 1, TracerProvider: &spans})
	p := alloctrace.Wrap(mem, alloctrace.WithHooks(l))
	ctx, outer := tracer.Start(t.Context(), "outer", p, with)
	ctx, r = tracer.Start(ctx, "request", p, with)
	foreign := allocate(t, p, 512)
	a, b := allocate(t, p.WithContext(ctx), 64), allocate(t, p.Child("x").WithContext(ctx), 128)
	free(t, p.WithContext(ctx), a, foreign)
	want := tracer.Escaped{Known: true, Exact: true, Blocks: 1, Bytes: 128}
	if e := r.Summary().Escaped; e != want || outer.Summary().Escaped != want {
		t.Errorf("%+v and around %+v, want %+v", e, outer.Summary().Escaped, want)
	}
	r.End()
	for _, s := range spans.named(t, "request") {
		if got, ok := s.Attributes["allocator.escaped.bytes"]; got.AsInt64() != 128 || !ok || s.Attributes["allocator.escaped.blocks"].AsInt64() != 1 {
			t.Errorf("%v, want 128 bytes escaped", s.Attributes)
		}
	}
	free(t, p, b)
	outer.End()
	if e := outer.Summary().Escaped; e.Bytes != 0 || e.Blocks != 0 || !e.Known {
		t.Errorf("after all was freed: %+v", e)
	}
	l.Close()
}

// TestEscapedEstimate: where blocks are sampled the estimate is within five standard errors of the truth,
// and the standard error is that of the sampling.
func TestEscapedEstimate(t *testing.T) {
	const rate, n, size = 16 << 10, 4000, 4096
	l := tracer.NewLifetimes(tracer.LifetimeOptions{Rate: rate})
	defer l.Close()
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(l))
	_, r := tracer.Start(t.Context(), "request", mem)
	var blocks []blockalloc.Block
	for range n {
		blocks = append(blocks, allocate(t, r.Allocator(), size))
	}
	e := r.Summary().Escaped
	p := 1 - math.Exp(-float64(size)/rate)
	wantError := size * math.Sqrt(n*(1-p)/p)
	if off := math.Abs(float64(e.Bytes - n*size)); !e.Known || e.Exact || off > 5*wantError || math.Abs(float64(e.BytesError)-wantError) > wantError/5 {
		t.Errorf("%+v, want %d bytes ± %.0f", e, n*size, wantError)
	}
	free(t, mem, blocks...)
	if e := r.Summary().Escaped; e.Bytes > 1 || e.Blocks != 0 || e.BytesError > 1 {
		t.Errorf("after all was freed: %+v", e)
	}
}

// TestLifetimesStorm: of blocks that goroutines allocate, hand on and free, each sampled one has one
// span, or is counted as suppressed, untracked or live.
func TestLifetimesStorm(t *testing.T) {
	const goroutines, each = 8, 2000
	var spans recorder
	l := tracer.NewLifetimes(tracer.LifetimeOptions{
		Rate: 256, MaxBlocks: 60, TracerProvider: &spans, Budget: tracer.NewBudget(500), OldAge: 1,
	})
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(l))
	handed := make(chan blockalloc.Block, 256)
	var all sync.WaitGroup
	for g := range goroutines {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(7, uint64(g)))
			ctx, r := tracer.Start(context.Background(), "request", mem)
			defer r.End()
			for i := range each {
				b, err := mem.AllocateContext(ctx, blockalloc.BlockLayout(16<<rnd.IntN(6)))
				if err != nil {
					t.Error(err)
					return
				}
				select {
				case handed <- b:
				default:
					if err := mem.WithContext(ctx).Free(b); err != nil {
						t.Error(err)
					}
				}
				if i%3 == 0 {
					if err := mem.Free(<-handed); err != nil {
						t.Error(err)
					}
				}
				if i%500 == 0 {
					l.Checkpoint()
				}
			}
		})
	}
	all.Wait()
	sum := func(s tracer.LifetimeStats) int64 { return s.Spans + s.Suppressed + s.Live + s.Untracked }
	if s := l.Stats(); sum(s) != s.Sampled || s.Live == 0 || s.Live > 60 || s.Untracked == 0 || s.Spans == 0 {
		t.Errorf("after the storm %+v, of which %d add up to what was sampled", s, sum(s))
	}
	l.Close()
	close(handed)
	for b := range handed {
		free(t, mem, b)
	}
	s := l.Stats()
	if sum(s) != s.Sampled || s.Live != 0 {
		t.Errorf("after Close %+v, of which %d add up to what was sampled", s, sum(s))
	}
	if n := int64(len(spans.named(t, "block"))); n != s.Spans+s.Checkpoints {
		t.Errorf("%d spans, want %d of lives and %d of checkpoints", n, s.Spans, s.Checkpoints)
	}
}

// TestMillionLifetimes: of a million blocks at the default rate, each that is
// sampled is counted, spans stay within the budget, and the Go heap does not grow.
func TestMillionLifetimes(t *testing.T) {
	var spans recorder
	l := tracer.NewLifetimes(tracer.LifetimeOptions{TracerProvider: &spans})
	mem := alloctrace.Wrap(measure.NewInner(), alloctrace.WithHooks(l))
	began := time.Now()
	_, grown := measure.HeapGrowth(func() *tracer.Lifetimes {
		for range 1_000_000 {
			b, err := mem.Allocate(blockalloc.BlockLayout(4096))
			if err == nil {
				err = mem.Free(b)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		return l
	})
	seconds := time.Since(began)/time.Second + 2
	s := l.Stats()
	// 4 GB at a sample each 512 KiB, give or take six standard deviations.
	if s.Sampled < 7200 || s.Sampled > 8400 || s.Live != 0 || s.Untracked != 0 || s.Spans+s.Suppressed != s.Sampled {
		t.Errorf("%+v: what has become of some blocks is not counted", s)
	}
	if n := int64(len(spans.named(t, "block"))); n != s.Spans || n == 0 || n > 100*int64(seconds) {
		t.Errorf("%d spans in less than %d s, want %d and at most 100 a second", n, seconds, s.Spans)
	}
	if perSpan := grown / max(1, s.Spans); perSpan > 16<<10 { // the recorder keeps them
		t.Errorf("the Go heap has grown by %d bytes, %d for each of %d spans", grown, perSpan, s.Spans)
	}
	l.Close()
	if after := l.Stats(); after != s {
		t.Errorf("Close made spans: %+v", after)
	}
}
