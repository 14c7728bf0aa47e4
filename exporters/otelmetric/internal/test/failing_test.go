package test_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/otelmetric"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/tracer"
)

type failing struct{}

func (failing) Stats() counter.Stats { panic("no stats") }

func (failing) Usage() hooks.Usage { panic("no usage") }

// TestFailingSources: what cannot be read is left out and counted, and all else is there. A
// collection that ends in an error would not be sent.
func TestFailingSources(t *testing.T) {
	producer := new(otelmetric.Producer)
	reader, provider := newReader(producer)
	opts := []otelmetric.Option{otelmetric.WithMeterProvider(provider), otelmetric.WithProducer(producer)}
	good := new(counter.Counter)
	good.Allocate(7, 7)
	start(t, failing{}, append(opts, otelmetric.WithName("bad"))...)
	start(t, good, append(opts, otelmetric.WithName("good"))...)
	for name, hook := range map[string]hooks.UsageSource{"bad": failing{}, "good": used{Bytes: 7}} {
		reg, err := otelmetric.RegisterHook(hook, name, opts...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stop(t, reg) })
	}
	for _, failures := range []string{"1", "3"} { // by the callback, and then by the Producer and the callback
		var of [2][]string // the bad ones, and the good ones
		for _, l := range collect(t, reader) {
			if strings.Contains(l, "=bad}") {
				of[0] = append(of[0], l)
			} else {
				of[1] = append(of[1], l)
			}
		}
		hookFailures := map[string]string{"1": "1", "3": "2"}[failures]
		wantLines(t, "of the bad ones", of[0], []string{
			"allocator.instrumentation.read_failures {failure} Counter {allocator.instrumentation.hook=bad} " + hookFailures,
			"allocator.read_failures {failure} Counter {allocator.name=bad} " + failures,
		})
		for _, want := range []string{
			"allocator.allocation.size By ExponentialHistogram {allocator.name=good} count=1 sum=7 scale=0 8:1",
			"allocator.instrumentation.memory By UpDownCounter {allocator.instrumentation.hook=good} 7",
			"allocator.instrumentation.read_failures {failure} Counter {allocator.instrumentation.hook=good} 0",
			"allocator.memory.used By UpDownCounter {allocator.name=good} 7",
			"allocator.read_failures {failure} Counter {allocator.name=good} 0",
		} {
			if !slices.Contains(of[1], want) {
				t.Errorf("there is no %s in\n%s", want, strings.Join(of[1], "\n"))
			}
		}
	}
}

// TestClosed collects of allocators that are closed.
func TestClosed(t *testing.T) {
	reader, provider := newReader(new(otelmetric.Producer))
	pool := new(blockalloc.Pool)
	mem := alloctrace.Wrap(pool, alloctrace.WithName("a"))
	start(t, mem, otelmetric.WithMeterProvider(provider))
	free(t, mem, allocate(t, mem, 64))
	for _, closing := range []func() error{pool.Close, mem.Close} {
		if err := closing(); err != nil {
			t.Fatal(err)
		}
		lines := collect(t, reader)
		for _, want := range []string{
			"allocator.frees {free} Counter {allocator.backend=Pool,allocator.name=a} 1",
			"allocator.memory.reserved By UpDownCounter {allocator.backend=Pool,allocator.name=a} 0",
			"allocator.read_failures {failure} Counter {allocator.backend=Pool,allocator.name=a} 0",
		} {
			if !slices.Contains(lines, want) {
				t.Errorf("there is no %s in\n%s", want, strings.Join(lines, "\n"))
			}
		}
	}
}

// TestVocabulary: spans and metrics of the same failures have the same values of
// allocator.operation, and nothing but an error is called error.type.
func TestVocabulary(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	limit := blockalloc.NewLimit(new(blockalloc.Heap), 4096)
	mem := alloctrace.Wrap(limit, alloctrace.WithName("a"),
		alloctrace.WithHooks(tracer.Failures(tracer.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))))))
	reader, provider := newReader(new(otelmetric.Producer))
	start(t, mem, otelmetric.WithMeterProvider(provider), otelmetric.WithBackend(""))

	b := allocate(t, mem, 4096)
	if _, err := mem.Allocate(blockalloc.BlockLayout(4096)); !errors.Is(err, blockalloc.ErrLimit) {
		t.Fatal(err)
	}
	if _, err := mem.Reallocate(b, 8192); !errors.Is(err, blockalloc.ErrLimit) {
		t.Fatal(err)
	}
	free(t, mem, b)
	if err := mem.Free(b); err == nil {
		t.Fatal("a block was freed twice")
	}
	var got, want []string
	for _, l := range collect(t, reader) {
		if strings.Contains(l, "error.type") {
			t.Errorf("there is %s", l)
		}
		if strings.HasPrefix(l, "allocator.failures ") {
			got = append(got, l)
		}
	}
	for _, s := range spans.Ended() {
		set := attribute.NewSet(s.Attributes()...)
		op, ok := set.Value("allocator.operation")
		if !ok || s.Name() != op.AsString() {
			t.Errorf("the span %s has the operation %q", s.Name(), op.AsString())
		}
		if cause, _ := set.Value("error.type"); op.AsString() != "free" && cause.AsString() != "limit" {
			t.Errorf("the span %s has the error.type %q, want limit", s.Name(), cause.AsString())
		}
		want = append(want, "allocator.failures {failure} Counter {allocator.name=a,allocator.operation="+op.AsString()+"} 1")
	}
	slices.Sort(want)
	wantLines(t, "failures", got, want)
	if len(want) != 3 {
		t.Errorf("there are %d spans, want 3", len(want))
	}
}

// TestBelowFound: the bounds and the address space that are found are those of now.
func TestBelowFound(t *testing.T) {
	reader, provider := newReader(new(otelmetric.Producer))
	pool := new(blockalloc.Pool)
	limit := blockalloc.NewLimit(pool, 1<<20)
	mem := alloctrace.Wrap(blockalloc.NewLocked(limit), alloctrace.WithName("a"))
	start(t, mem, otelmetric.WithMeterProvider(provider))
	limit.SetMax(3 << 20)
	if lines := collect(t, reader); !slices.Contains(lines, "allocator.memory.limit By UpDownCounter {allocator.backend=Pool,allocator.name=a} 3145728") {
		t.Errorf("there is no limit in\n%s", strings.Join(lines, "\n"))
	}
}
