package tracer_test

import (
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/tracer"
)

// TestNotExactOfAnotherProxy: a Lifetimes of another Proxy makes no region exact whose blocks nobody sees.
func TestNotExactOfAnotherProxy(t *testing.T) {
	l := tracer.NewLifetimes(tracer.LifetimeOptions{Rate: 1})
	defer l.Close()
	_ = alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(l))
	unobserved := alloctrace.Wrap(new(blockalloc.Heap))
	_, r := tracer.Start(t.Context(), "r", unobserved)
	b := allocate(t, r.Allocator(), 4096)
	if e := r.Summary().Escaped; e.Exact {
		t.Errorf("4096 bytes are live, and escaped is %+v", e)
	}
	free(t, r.Allocator(), b)
}

// TestNotExactUntracked: nor is one exact with blocks that were untracked.
func TestNotExactUntracked(t *testing.T) {
	l := tracer.NewLifetimes(tracer.LifetimeOptions{Rate: 1, MaxBlocks: 1})
	defer l.Close()
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(l))
	_, r := tracer.Start(t.Context(), "r", mem)
	a, b := allocate(t, r.Allocator(), 64), allocate(t, r.Allocator(), 4096)
	if e := r.Summary().Escaped; e.Exact {
		t.Errorf("4160 bytes are live, and escaped is %+v", e)
	}
	free(t, r.Allocator(), a, b)
}

// TestNotExactQuiet: nor one with blocks that were allocated through a quiet view.
func TestNotExactQuiet(t *testing.T) {
	l := tracer.NewLifetimes(tracer.LifetimeOptions{Rate: 1})
	defer l.Close()
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(l))
	_, r := tracer.Start(t.Context(), "r", mem)
	q := r.Allocator().Quiet()
	b := allocate(t, q, 4096)
	if e := r.Summary().Escaped; e.Exact {
		t.Errorf("4096 bytes are live, and escaped is %+v", e)
	}
	free(t, q, b)
}

// TestUnrecordedLifetimes: spans that nobody records are none.
func TestUnrecordedLifetimes(t *testing.T) {
	l := tracer.NewLifetimes(tracer.LifetimeOptions{Rate: 1, TracerProvider: noop.NewTracerProvider()})
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(l))
	free(t, mem, allocate(t, mem, 64))
	leak := allocate(t, mem, 64)
	l.Close()
	free(t, mem, leak)
	if s := l.Stats(); s != (tracer.LifetimeStats{Sampled: 2, Unrecorded: 2, Leaked: 1}) {
		t.Errorf("no provider records, and %+v", s)
	}
}

// TestResultOfInnerRegion: what an inner region has made, and the region around still uses, is no leak.
func TestResultOfInnerRegion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var spans recorder
		l := tracer.NewLifetimes(tracer.LifetimeOptions{Rate: 1, TracerProvider: &spans, CheckpointEvery: 30 * time.Second})
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(l))
		ctx, job := tracer.Start(t.Context(), "job", mem)
		_, load := tracer.Start(ctx, "load-index", mem)
		index := allocate(t, load.Allocator(), 4096)
		load.End()
		time.Sleep(5 * time.Minute)
		if s := l.Stats(); s.Leaked != 0 {
			t.Errorf("the job still uses its index: %+v", s)
		}
		free(t, mem.WithContext(ctx), index)
		job.End()
		l.Close()
	})
}

// TestAttributesBeforeBlocks: a block has the attributes that its region was given before it was sampled.
func TestAttributesBeforeBlocks(t *testing.T) {
	for name, opts := range map[string][]tracer.Option{"SetAttributes": nil, "WithAttributes": {tracer.WithAttributes(attribute.String("http.route", "/x"))}} {
		var spans recorder
		l := tracer.NewLifetimes(tracer.LifetimeOptions{Rate: 1, TracerProvider: &spans})
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(l))
		_, r := tracer.Start(t.Context(), "r", mem, opts...)
		if opts == nil {
			r.SetAttributes(attribute.String("http.route", "/x"))
		}
		b := allocate(t, r.Allocator(), 64)
		r.End()
		l.Close()
		if s := spans.named(t, "block"); s[0].Attributes["http.route"].AsString() != "/x" {
			t.Errorf("%s: the leak has no route: %v", name, s[0].Attributes)
		}
		free(t, mem, b)
	}
}

// TestCheckpointsSuppressOnce: what a checkpoint will look at again is no span lost.
func TestCheckpointsSuppressOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var spans recorder
		budget := tracer.NewBudget(1)
		l := tracer.NewLifetimes(tracer.LifetimeOptions{Rate: 1, TracerProvider: &spans, Budget: budget, Leaked: func(tracer.LiveBlock) bool { return true }})
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(l))
		var all []blockalloc.Block
		for range 10 {
			all = append(all, allocate(t, mem, 64))
		}
		time.Sleep(time.Hour)
		for range 10 {
			l.Checkpoint()
			time.Sleep(time.Second)
		}
		if n := budget.Suppressed(); n > 9 {
			t.Errorf("all 10 leaks have a span, and %d are suppressed; %+v", n, l.Stats())
		}
		free(t, mem, all...)
		l.Close()
	})
}

// fickle hands out one address, hands it out again while a free of it is under way, and refuses that.
type fickle struct {
	blockalloc.Allocator
	inFree func()
	block  blockalloc.Block
}

func (f *fickle) Allocate(blockalloc.Layout) (blockalloc.Block, error) { return f.block, nil }
func (f *fickle) Free(blockalloc.Block) error {
	if f.inFree != nil {
		in := f.inFree
		f.inFree = nil
		in()
		return blockalloc.ErrNotOwned
	}
	return nil
}

// TestAddressUsedAgainDuringFree: no life is lost where an inner allocator hands out an address during a free that then fails.
func TestAddressUsedAgainDuringFree(t *testing.T) {
	var spans recorder
	f := &fickle{Allocator: new(blockalloc.Heap)}
	f.block = allocate(t, f.Allocator, 64)
	l := tracer.NewLifetimes(tracer.LifetimeOptions{Rate: 1, TracerProvider: &spans})
	mem := alloctrace.Wrap(f, alloctrace.WithHooks(l))
	b := allocate(t, mem, 64)
	f.inFree = func() { allocate(t, mem, 64) }
	_ = mem.Free(b)
	free(t, mem, b)
	l.Close()
	if s := l.Stats(); s.Live != 0 || s.Spans != 2 {
		t.Errorf("nothing is live, and %+v", s)
	}
}
