package flight_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/ring"
	"github.com/alloctrace/alloctrace/tracer"
	"github.com/alloctrace/alloctrace/tracer/flight"
)

var update = flag.Bool("update", false, "write the golden files of testdata anew")

// A clock stands where the test sets it.
type clock struct{ atomic.Int64 }

func (c *clock) Now() int64 { return c.Load() }

func newClock() *clock {
	c := new(clock)
	c.Store(time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) pass(d time.Duration) { c.Add(int64(d)) }

func allocate(t testing.TB, a blockalloc.Allocator, size uintptr) blockalloc.Block {
	t.Helper()
	b, err := a.Allocate(blockalloc.Layout{Size: size, Align: 64})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func free(t testing.TB, a blockalloc.Allocator, b blockalloc.Block) {
	t.Helper()
	if err := a.Free(b); err != nil {
		t.Fatal(err)
	}
}

// aligned grants what is asked for, from the Go heap.
type aligned struct{ blockalloc.Heap }

// fill has a program with two children run into its limit in a region, with times between.
func fill(t *testing.T, o flight.Options, c *clock, provider trace.TracerProvider) (*flight.Recorder, *alloctrace.Proxy, context.Context) {
	t.Helper()
	o.Clock, o.TracerProvider = c, provider
	r := flight.New(o)
	mem := alloctrace.Wrap(blockalloc.NewLimit(new(aligned), 1<<20), alloctrace.WithName("search"), alloctrace.WithHooks(r))
	r.Watch(mem)
	pages, words := mem.Child("pages"), mem.Child("words")
	old := allocate(t, pages, 64<<10)
	c.pass(2 * time.Second) // it is in no window
	var kept []blockalloc.Block
	for range 4 {
		kept = append(kept, allocate(t, pages, 128<<10))
		w := allocate(t, words, 4096)
		c.pass(110 * time.Millisecond)
		free(t, words, w)
	}
	free(t, pages, old)
	free(t, pages, kept[0])
	allocate(t, mem, 512)
	b, err := mem.Reallocate(allocate(t, mem, 1024), 2048)
	if err != nil {
		t.Fatal(err)
	}
	if err := pages.Free(kept[0]); err == nil {
		t.Fatal("a second free has not failed")
	}
	if o.IgnoreFailures {
		c.pass(10 * time.Millisecond)
	}
	ctx, region := tracer.Start(t.Context(), "GET /search", mem, tracer.WithTracerProvider(provider))
	defer region.End()
	if _, err := pages.WithContext(ctx).Allocate(blockalloc.BlockLayout(1 << 20)); !errors.Is(err, blockalloc.ErrLimit) {
		t.Fatal(err)
	}
	_ = b
	return r, mem, ctx
}

func compare(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the text is\n%s%s has\n%s", got, file, want)
	}
}
var _ = []any{io.Discard, fmt.Sprint, maps.Equal[map[int]int, map[int]int], slices.Equal[[]int], strings.Cut, sync.OnceFunc, attribute.Int, codes.Error, ring.New}

func TestText(t *testing.T) {
	c := newClock()
	r, _, _ := fill(t, flight.Options{IgnoreFailures: true}, c, new(spans))
	defer r.Close()
	var out bytes.Buffer
	if err := r.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	compare(t, "testdata/demand.txt", out.Bytes())
}
