package flight_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/ring"
	"github.com/alloctrace/alloctrace/internal/spantest"
	"github.com/alloctrace/alloctrace/tracer/flight"
)

// texts keeps the records that are written.
type texts struct {
	mu   sync.Mutex
	list []string
}

func (w *texts) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, string(p))
	return len(p), nil
}

// why returns the second line of each record.
func (w *texts) why() (list []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, text := range w.list {
		list = append(list, strings.Split(text, "\n")[1])
	}
	return list
}

// TestStorm: 10,000 failures on 8 goroutines make one record, whose last event is the first failure. The
// others are counted, and a minute later there is another one, which says so.
func TestStorm(t *testing.T) {
	const goroutines, failures = 8, 10_000
	synctest.Test(t, func(t *testing.T) {
		var out texts
		all := new(spantest.Recorder)
		r := flight.New(flight.Options{Writer: &out, TracerProvider: all, Clock: ring.PreciseClock()})
		mem := alloctrace.Wrap(blockalloc.NewLimit(new(blockalloc.Heap), 1<<20), alloctrace.WithHooks(r))
		r.Watch(mem)
		storm := func() {
			var running sync.WaitGroup
			for range goroutines {
				running.Go(func() {
					for range failures / goroutines {
						b := allocate(t, mem, 64)
						if _, err := mem.Allocate(blockalloc.BlockLayout(2 << 20)); !errors.Is(err, blockalloc.ErrLimit) {
							t.Error(err)
						}
						free(t, mem, b)
					}
				})
			}
			running.Wait()
			synctest.Wait()
		}
		storm()
		if got := out.why(); len(got) != 1 || !strings.HasPrefix(got[0], "why: allocate of 2 MiB failed: ") {
			t.Fatalf("records %q", got)
		}
		if s := r.Stats(); s.Records != 1 || s.Suppressed != failures-1 {
			t.Errorf("%+v, want one record of %d failures", s, failures)
		}
		if lines := strings.Split(strings.TrimSpace(out.list[0]), "\n"); !strings.Contains(lines[len(lines)-1], "+0.000ms allocate failed ") {
			t.Errorf("the last event is %q", lines[len(lines)-1])
		}

		time.Sleep(time.Minute - time.Second) // not yet
		storm()
		if got := out.why(); len(got) != 1 {
			t.Fatalf("records %q", got)
		}
		time.Sleep(2 * time.Second)
		_, _ = mem.Allocate(blockalloc.BlockLayout(4 << 20))
		synctest.Wait()
		if got := out.why(); len(got) != 2 || !strings.HasPrefix(got[1], "why: allocate of 4 MiB failed: ") {
			t.Fatalf("records %q", got)
		}
		var suppressed int64
		for _, root := range all.Named("allocator flight record") {
			suppressed += root.Attributes["allocator.flight.suppressed"].AsInt64()
		}
		if suppressed != 2*failures-1 || !strings.Contains(out.list[1], " triggers since the record before made none\n") {
			t.Errorf("%d suppressed; the second record is\n%s", suppressed, out.list[1])
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		_, _ = mem.Allocate(blockalloc.BlockLayout(2 << 20))
		if s := r.Stats(); s.Records != 2 || s.Suppressed != 19999 {
			t.Errorf("after Close: %+v", s)
		}
	})
}

// TestLiveBytes: a record is made when what is live reaches the bound from below, and not while it stays there.
func TestLiveBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out texts
		r := flight.New(flight.Options{Writer: &out, LiveBytes: 1 << 20, Clock: ring.PreciseClock()})
		defer r.Close()
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(r))
		time.Sleep(time.Second) // nobody is watched yet
		r.Watch(mem)
		b := allocate(t, mem, 1<<20-64)
		time.Sleep(time.Second)
		if got := out.why(); len(got) != 0 {
			t.Fatalf("records %q", got)
		}
		c := allocate(t, mem, 64)
		time.Sleep(2 * time.Minute)
		if got := out.why(); len(got) != 1 || got[0] != "why: 1 MiB are live, which reaches 1 MiB" {
			t.Fatalf("records %q", got)
		}
		free(t, mem, c)
		time.Sleep(time.Second)
		free(t, mem, b)
		defer free(t, mem, allocate(t, mem, 2<<20))
		time.Sleep(time.Second)
		if got := out.why(); len(got) != 2 || got[1] != "why: 2 MiB are live, which reaches 1 MiB" {
			t.Fatalf("records %q", got)
		}
	})
}

// TestGrowth: a record is made when so much more is live within the interval, and not when it takes longer.
func TestGrowth(t *testing.T) {
	for _, interval := range []time.Duration{50 * time.Millisecond, time.Second, 10 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			var out texts
			r := flight.New(flight.Options{Writer: &out, Growth: 1 << 20, GrowthInterval: interval, Rearm: time.Millisecond, Clock: ring.PreciseClock()})
			defer r.Close()
			mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(r))
			r.Watch(mem)
			for range 20 { // never more than 512 KiB in an interval and a bit
				allocate(t, mem, 256<<10)
				time.Sleep(interval * 3 / 4)
			}
			if got := out.why(); len(got) != 0 {
				t.Fatalf("%v: records %q", interval, got)
			}
			for range 5 {
				allocate(t, mem, 256<<10)
				time.Sleep(interval / 5)
			}
			if got := out.why(); len(got) != 1 || !strings.HasPrefix(got[0], "why: 1") || !strings.HasSuffix(got[0], "which reaches 1 MiB") {
				t.Fatalf("%v: records %q", interval, got)
			}
		})
	}
}

// TestWriterAllocates: what the Writer does with the Proxy deadlocks nobody and makes no other record.
func TestWriterAllocates(t *testing.T) {
	var mem *alloctrace.Proxy
	var out texts
	r := flight.New(flight.Options{Writer: writerFunc(func(p []byte) (int, error) {
		b := allocate(t, mem, 64)
		_, _ = mem.Allocate(blockalloc.BlockLayout(2 << 20))
		free(t, mem.Child("writer"), allocate(t, mem.Child("writer"), 64))
		free(t, mem, b)
		return out.Write(p)
	}), TracerProvider: new(spantest.Recorder)})
	mem = alloctrace.Wrap(blockalloc.NewLimit(new(blockalloc.Heap), 1<<20), alloctrace.WithHooks(r))
	r.Watch(mem)
	_, _ = mem.Allocate(blockalloc.BlockLayout(2 << 20))
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if got := out.why(); len(got) != 1 {
		t.Errorf("records %q", got)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestWriterFails: the error is returned where somebody waits for it, else counted, and the first one is Close's.
func TestWriterFails(t *testing.T) {
	full := errors.New("disk full")
	r := flight.New(flight.Options{Writer: writerFunc(func([]byte) (int, error) { return 0, full }), TracerProvider: new(spantest.Recorder)})
	mem := alloctrace.Wrap(blockalloc.Null{}, alloctrace.WithHooks(r))
	if err := r.Dump(t.Context()); !errors.Is(err, full) {
		t.Error(err)
	}
	if err := r.WriteText(writerFunc(func([]byte) (int, error) { return 0, io.ErrShortWrite })); !errors.Is(err, io.ErrShortWrite) {
		t.Error(err)
	}
	_, _ = mem.Allocate(blockalloc.BlockLayout(64))
	if err := r.Close(); !errors.Is(err, full) {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if s := r.Stats(); s.Records != 2 || s.WriteErrors != 2 {
		t.Errorf("%+v", s)
	}
}

// TestAfterClose: what was kept can still be read, and nothing is kept any more.
func TestAfterClose(t *testing.T) {
	r := flight.New(flight.Options{TracerProvider: new(spantest.Recorder)})
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(r))
	b := allocate(t, mem, 4096)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	free(t, mem, b)
	var out bytes.Buffer
	if err := r.WriteText(&out); err != nil {
		t.Error(err)
	}
	if got := out.String(); !strings.Contains(got, " allocated ") || strings.Contains(got, "freeing") {
		t.Errorf("%s", got)
	}
	if u := r.Usage(); u.Events != 1 || u.Sampled != 1 || u.Dropped != 0 || u.Bytes < 4096*32 {
		t.Errorf("%+v", u)
	}
}

// TestConcurrent: records are made while goroutines allocate, free and fail, and children come and go.
func TestConcurrent(t *testing.T) {
	var out texts
	r := flight.New(flight.Options{Events: 256, Writer: &out, TracerProvider: new(spantest.Recorder), Rearm: time.Microsecond, LiveBytes: 4096, Growth: 4096})
	mem := alloctrace.Wrap(blockalloc.NewLimit(new(blockalloc.Heap), 1<<20), alloctrace.WithHooks(r))
	r.Watch(mem)
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			for i := range 1000 {
				child := mem.Child("child")
				b := allocate(t, child, uintptr(1+i))
				_, _ = child.Allocate(blockalloc.BlockLayout(2 << 20))
				free(t, child, b)
				if err := child.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		if u := r.Usage(); u.Bytes < 256*32 {
			t.Errorf("%+v", u)
		}
		if err := errors.Join(r.Dump(t.Context()), r.WriteText(io.Discard)); err != nil {
			t.Error(err)
		}
	}
	running.Wait()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if s := r.Stats(); s.Records < 21 || s.Records != int64(len(out.list)) {
		t.Errorf("%+v, %d texts", s, len(out.list))
	}
	var last bytes.Buffer
	if err := r.WriteText(&last); err != nil || !strings.Contains(last.String(), "live: 0 B in 0 blocks") {
		t.Errorf("%v\n%s", err, &last)
	}
}
