package flight

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// texts is a Writer that keeps each record. It lets nobody through until it is opened, unless that is nil.
type texts struct {
	list          []string // read after Close
	entered, open chan struct{}
}

func (w *texts) Write(p []byte) (int, error) {
	if w.open != nil {
		w.entered <- struct{}{}
		<-w.open
	}
	w.list = append(w.list, string(p))
	return len(p), nil
}

// small returns a Proxy that may have 256 KiB, and that r observes and watches.
func small(r *Recorder) *alloctrace.Proxy {
	var heap blockalloc.Heap
	p := alloctrace.Wrap(blockalloc.NewLimit(&heap, 256<<10), alloctrace.WithHooks(r))
	r.Watch(p)
	return p
}

func have(t *testing.T, p *alloctrace.Proxy, size uintptr) blockalloc.Block {
	t.Helper()
	b, err := p.Allocate(blockalloc.BlockLayout(size))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func give(t *testing.T, p *alloctrace.Proxy, b blockalloc.Block) {
	t.Helper()
	if err := p.Free(b); err != nil {
		t.Fatal(err)
	}
}

func wantRefused(t *testing.T, p *alloctrace.Proxy) {
	t.Helper()
	if _, err := p.Allocate(blockalloc.BlockLayout(1 << 20)); err == nil {
		t.Fatal("1 MiB of 256 KiB was had")
	}
}

// TestFrozenUntilItsRecord: what was before a failure stays until its own record is taken, also if the
// Recorder is busy with another one and somebody asks for a text meanwhile.
func TestFrozenUntilItsRecord(t *testing.T) {
	out := &texts{entered: make(chan struct{}, 9), open: make(chan struct{})}
	r := New(Options{Window: time.Hour, Writer: out, Events: 8})
	p := small(r)
	r.causes <- cause{trigger: "signal", reason: "signal", at: r.clock.Now()}
	<-out.entered
	b := have(t, p, 4096)
	wantRefused(t, p)
	if err := r.WriteText(new(strings.Builder)); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		give(t, p, have(t, p, 64))
	}
	close(out.open)
	r.Close()
	give(t, p, b)
	if len(out.list) != 2 || !regexp.MustCompile(`allocated +4 KiB`).MatchString(out.list[1]) {
		t.Errorf("what was before the failure is not in the last of %q", out.list)
	}
	if s := r.Stats(); s.Missed != 200 || s.Records != 2 {
		t.Errorf("%+v, want 200 events that were missed and 2 records", s)
	}
}

// TestTriggersByThemselves: a failure has a record soon after what led to it has one, and what is no want of memory takes none
// away.
func TestTriggersByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(texts)
		r := New(Options{Writer: out, LiveBytes: 128 << 10, Growth: 64 << 10})
		p := small(r)
		time.Sleep(time.Second)
		b := have(t, p, 64<<10)
		time.Sleep(5 * time.Second)
		c := have(t, p, 128<<10)
		time.Sleep(5 * time.Second)
		if _, err := p.Allocate(blockalloc.Layout{Size: 8, Align: 3}); err == nil {
			t.Error("an alignment of 3 was had")
		}
		time.Sleep(5 * time.Second)
		wantRefused(t, p)
		wantRefused(t, p)
		r.Close()
		give(t, p, b)
		give(t, p, c)
		if len(out.list) != 3 || !strings.Contains(out.list[2], blockalloc.ErrLimit.Error()) {
			t.Errorf("%d records, want growth, live bytes and the failure: %q", len(out.list), out.list)
		}
		if s := r.Stats(); s.Suppressed != 1 {
			t.Errorf("%+v, want the second failure suppressed", s)
		}
	})
}

// TestGap: a release after events were missed does not end a block from before.
func TestGap(t *testing.T) {
	r := New(Options{Window: time.Hour, Clock: new(ticks)})
	defer r.Close()
	h := r.Attach(&alloctrace.Attachment{})
	observe := func(k alloctrace.Kind) {
		h.Observe(context.Background(), alloctrace.Event{Kind: k, Addr: 64, Size: 64, Align: 64}, nil)
	}
	observe(alloctrace.Allocated)
	r.freezes.Add(1)
	observe(alloctrace.Freeing)
	observe(alloctrace.Allocated)
	r.take(cause{trigger: "failure", at: r.clock.Now()})
	observe(alloctrace.Freeing)
	if rec := r.take(r.demand(t.Context())); len(rec.events) != 2 || len(rec.blocks) != 1 || !rec.blocks[0].live {
		t.Errorf("the blocks are %+v of %d events, want one whose end is not known", rec.blocks, len(rec.events))
	}
}

// ticks is a Clock that goes on by a millisecond whenever somebody looks.
type ticks struct{ n int64 }

func (c *ticks) Now() int64 { c.n += int64(time.Millisecond); return c.n }
