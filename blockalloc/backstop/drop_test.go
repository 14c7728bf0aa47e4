package backstop_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/backstop"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// TestDrop: what is dropped is freed through the Proxy, counted and reported with who allocated it, and
// is no leak: not for alloctest, at the end of the test, and not for the heap profile.
func TestDrop(t *testing.T) {
	const n = 100
	mem := alloctest.New(t)
	var drops []backstop.Drop // written in one goroutine, and read when Collect has returned
	s := backstop.New(mem, backstop.Options{OnDrop: func(d backstop.Drop) { drops = append(drops, d) }})
	held := allocate(t, s, 5000)
	dropSome(t, s, n, 1000)
	granted := (mem.Stats().LiveBytes - int64(cap(*held))) / n
	collect(t)
	wantStats(t, s, backstop.Stats{LiveBlocks: 1, LiveBytes: int64(cap(*held)), DroppedBlocks: n, DroppedBytes: n * granted})
	alloctest.AssertLive(t, mem, int64(cap(*held)), 1)
	if blocks := alloctest.Profile(mem).Blocks(); len(blocks) != 1 || blocks[0].Size != uintptr(cap(*held)) {
		t.Errorf("the heap profile has %+v live, want the block that is held", blocks)
	}
	if len(drops) != n {
		t.Fatalf("%d drops are reported, want %d", len(drops), n)
	}
	for _, d := range drops {
		frames := d.Frames()
		if d.Size != uintptr(granted) || d.Age < 0 || d.Err != nil || len(frames) == 0 || !strings.HasPrefix(frames[0].Function, "github.com/alloctrace/alloctrace/blockalloc/backstop_test.dropSome.") {
			t.Fatalf("a drop is %+v, by %+v", d, frames)
		}
	}
	if err := s.Free(held); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestNoStacks: without stacks there are none, and the line says the rest.
func TestNoStacks(t *testing.T) {
	var line atomic.Value
	s := backstop.New(alloctest.New(t), backstop.Options{NoStacks: true, OnDrop: func(d backstop.Drop) {
		d.Age = 1_234_567
		line.Store(d.String())
	}})
	dropSome(t, s, 1, 4096)
	collect(t)
	if got, want := line.Load(), "4096 bytes dropped 1.235ms after their allocation"; got != want {
		t.Errorf("the line is %q, want %q", got, want)
	}
}

// TestDropString: a line has the calls, and the error without line breaks.
func TestDropString(t *testing.T) {
	var pcs [64]uintptr
	d := backstop.Drop{Size: 64, Age: 2, Stack: pcs[:runtime.Callers(1, pcs[:])], Err: errors.New("a\nb")}
	got := d.String()
	if !strings.HasPrefix(got, "64 bytes dropped 0s after their allocation by backstop_test.TestDropString (drop_test.go:") || !strings.HasSuffix(got, `) and not freed: a\nb`) {
		t.Errorf("the line is %q", got)
	}
}

// TestDroppedIsNoLeak: at the end of a test that has dropped all, and has not collected, nothing is leaked.
func TestDroppedIsNoLeak(t *testing.T) {
	mem := alloctest.New(t)
	s := backstop.New(mem, backstop.Options{})
	dropSome(t, s, 10, 64)
	alloctest.VerifyNone(t, mem)
	if got := s.Stats(); got.DroppedBlocks != 10 || got.LiveBlocks != 0 {
		t.Errorf("the stats are %+v", got)
	}
}

// TestHeldIsALeak: what is held is.
func TestHeldIsALeak(t *testing.T) {
	profile := heapprofile.New(heapprofile.Options{Rate: 1})
	mem := alloctrace.Wrap(alloctest.New(t), alloctrace.WithHooks(profile))
	s := backstop.New(mem, backstop.Options{})
	handle := allocate(t, s, 64)
	dropSome(t, s, 10, 64)
	var failure recorder
	alloctest.VerifyNone(&failure, mem)
	if !strings.HasPrefix(failure.text, "alloctest: Proxy has leaked 64 B in 1 block") {
		t.Errorf("the failure is %q", failure.text)
	}
	if r := profile.Report(); r.Blocks != 1 || !strings.HasSuffix(r.Sites[0].Stack[0].Function, ".allocate") {
		t.Errorf("live is %v, want the block that is held", r)
	}
	if err := s.Free(handle); err != nil {
		t.Error(err)
	}
}

type recorder struct{ text string }

func (*recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) { r.text += fmt.Sprintf(format, args...) }

// TestDropFails: if a dropped block cannot be freed, the report, Err and Close say so.
func TestDropFails(t *testing.T) {
	mem := alloctest.New(t)
	var refused []blockalloc.Block
	var fail atomic.Bool
	var reported []error
	s := backstop.New(failing.If(mem, func(c failing.Call) bool {
		if c.Op == failing.OpFree && fail.Load() {
			refused = append(refused, c.Block)
			return true
		}
		return false
	}), backstop.Options{OnDrop: func(d backstop.Drop) { reported = append(reported, d.Err) }})
	fail.Store(true)
	dropSome(t, s, 20, 64)
	collect(t)
	wantStats(t, s, backstop.Stats{FailedBlocks: 20, FailedBytes: 20 * 64})
	if len(reported) != 20 || !errors.Is(reported[0], failing.ErrInjected) {
		t.Errorf("reported are %v", reported)
	}
	err := s.Close()
	if !errors.Is(err, failing.ErrInjected) || strings.Count(err.Error(), "\n") != 16 || !strings.HasSuffix(err.Error(), "\nbackstop: 4 more errors") {
		t.Errorf("Close: %v", err)
	}
	alloctest.AssertLive(t, mem, 20*64, 20)
	fail.Store(false)
	for _, b := range refused {
		if err := mem.Free(b); err != nil {
			t.Error(err)
		}
	}
}

// TestOnDropEnds: a callback that panics or ends its goroutine keeps no other block from being freed and
// reported.
func TestOnDropEnds(t *testing.T) {
	mem := alloctest.New(t)
	var calls int
	s := backstop.New(mem, backstop.Options{OnDrop: func(backstop.Drop) {
		switch calls++; calls {
		case 1:
			panic("for the test")
		case 2:
			runtime.Goexit()
		}
	}})
	dropSome(t, s, 5, 64)
	collect(t)
	wantStats(t, s, backstop.Stats{DroppedBlocks: 5, DroppedBytes: 5 * 64})
	if calls != 5 {
		t.Errorf("OnDrop was called %d times, want 5", calls)
	}
	text := s.Err().Error()
	for _, want := range []string{"backstop: OnDrop panicked: for the test\n", "TestOnDropEnds.func1", "backstop: OnDrop has ended its goroutine: "} {
		if !strings.Contains(text, want) {
			t.Errorf("the error is %q, want %q in it", text, want)
		}
	}
}

// TestFreeWithinOnDrop: a callback may use the Backstop.
func TestFreeWithinOnDrop(t *testing.T) {
	var s *backstop.Backstop
	n := 0
	s = backstop.New(alloctest.New(t), backstop.Options{OnDrop: func(backstop.Drop) {
		handle, err := s.Allocate(layout(128))
		if err == nil {
			err = s.Free(handle)
		}
		if err != nil {
			t.Error(err)
		}
		n += int(s.Stats().DroppedBlocks)
	}})
	dropSome(t, s, 3, 64)
	collect(t)
	if n != 1+2+3 {
		t.Errorf("while drops were reported, %d were counted in all, want 6", n)
	}
}

// TestCollectEnds: Collect waits no longer than its context.
func TestCollectEnds(t *testing.T) {
	reported, goOn := make(chan struct{}), make(chan struct{})
	s := backstop.New(alloctest.New(t), backstop.Options{OnDrop: func(backstop.Drop) {
		close(reported)
		<-goOn
	}})
	dropSome(t, s, 1, 64)
	runtime.GC()
	<-reported
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("for the test")
	cancel(cause)
	err := backstop.Collect(ctx)
	close(goOn)
	if !errors.Is(err, cause) || !strings.HasSuffix(err.Error(), "1 dropped blocks are not reported yet") {
		t.Errorf("Collect: %v", err)
	}
	collect(t)
}

// stream is what a stream of gRPC does with buffers: a reader fills them, in the order of their arrival, and
// who takes them out frees them. If it is cancelled, nobody takes the rest out.
type stream struct{ arrived chan *[]byte }

// TestCancelledStream: what a cancelled stream has left is dropped, and all that was read is intact.
func TestCancelledStream(t *testing.T) {
	mem := alloctest.New(t)
	s := backstop.New(mem, backstop.Options{})
	const streams, messages = 50, 20
	var freed int64
	inGoroutine(func() {
		for i := range streams {
			ctx, cancel := context.WithCancel(t.Context())
			st := stream{make(chan *[]byte, messages)}
			for m := range messages {
				handle := allocate(t, s, 2048)
				write(*handle, uint64(m))
				st.arrived <- handle
			}
			for read := 0; ctx.Err() == nil; read++ {
				if read == i%messages {
					cancel()
					break
				}
				handle := <-st.arrived
				check(t, *handle, uint64(read))
				if err := s.Free(handle); err != nil {
					t.Error(err)
				}
				freed++
			}
			cancel()
		}
	})
	collect(t)
	got := s.Stats()
	if got.LiveBlocks != 0 || got.DroppedBlocks != streams*messages-freed || freed == 0 {
		t.Errorf("the stats are %+v, want %d dropped", got, streams*messages-freed)
	}
	if m := mem.Stats(); m.LiveBlocks != 0 || m.Frees != streams*messages {
		t.Errorf("the Proxy has %d blocks live, and counted %d frees, want none and %d", m.LiveBlocks, m.Frees, streams*messages)
	}
}

// TestSkip: a drop begins with who called the packages that Options.Skip has.
func TestSkip(t *testing.T) {
	for want, skip := range map[string][]string{"reflect.Value.call": nil, "github.com/alloctrace/alloctrace/blockalloc/backstop_test.TestSkip.func2": {"example.com/a", "reflect"}} {
		var first string
		s := backstop.New(alloctest.New(t), backstop.Options{Skip: skip, OnDrop: func(d backstop.Drop) { first = d.Frames()[0].Function }})
		inGoroutine(func() {
			reflect.ValueOf(s.Allocate).Call([]reflect.Value{reflect.ValueOf(layout(64))})
		})
		collect(t)
		if first != want {
			t.Errorf("without %q the first frame is of %s, want %s", skip, first, want)
		}
	}
	defer func() {
		if text, _ := recover().(string); !strings.HasPrefix(text, `backstop: New: Options.Skip has "a@v1": it has a version: use `) {
			t.Errorf("a Skip that is no import path panics with %q", text)
		}
	}()
	backstop.New(new(blockalloc.Heap), backstop.Options{Skip: []string{"a@v1"}})
}
