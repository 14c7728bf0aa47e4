package recording_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/exporters/recording"
)

// copyOf returns a recording of the same events, as a Writer writes it.
func copyOf(t *testing.T, h recording.Header, list []recording.Event) *bytes.Buffer {
	t.Helper()
	out := new(bytes.Buffer)
	w, err := recording.NewWriter(out, h)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if err := w.Write(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
	if err := w.Write(list[0]); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
	return out
}

// TestWriter: what a Writer writes is what a Reader returns, over several batches, with all that events can have.
func TestWriter(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var stacks []*recording.Stack
	for i := range 50 {
		s := new(recording.Stack)
		for j := range i {
			s.Frames = append(s.Frames, recording.Frame{Function: fmt.Sprintf("main.f%d", j*i%31), File: "/src/main.go", Line: j})
		}
		stacks = append(stacks, s)
	}
	var list []recording.Event
	var at time.Duration
	for i := range 150_000 {
		at += time.Duration(rng.IntN(1000))
		if i%1000 == 999 {
			list = append(list, recording.Event{At: at, Dropped: int64(i)})
			continue
		}
		e := recording.Event{At: at, Proxy: "mem", Stack: stacks[rng.IntN(50)], Requested: uintptr(rng.IntN(1 << 16))}
		e.Event = alloctrace.Event{
			Kind: alloctrace.Kind(1 + rng.IntN(7)), Addr: uintptr(rng.IntN(1 << 20)), Size: uintptr(rng.Uint32()) >> rng.IntN(31), Align: 1 << rng.IntN(20),
		}
		if e.Kind == alloctrace.Reallocating || e.Kind == alloctrace.Reallocated || e.Kind == alloctrace.ReallocateFailed {
			e.Reallocation = rng.Uint64() >> rng.IntN(64)
		}
		if i%3 == 0 {
			e.Stack, e.Child, e.Region = nil, fmt.Sprint("child", rng.IntN(10)), fmt.Sprint("region", rng.IntN(10))
		}
		list = append(list, e)
	}
	h := recording.Header{Program: "example.com/p", PID: 17, Began: time.Unix(1_700_000_000, 5).UTC(), Stacks: true}
	got, r, err := read(t, copyOf(t, h, list))
	if err != nil || !r.Ended() || r.Header() != h || len(got) != len(list) {
		t.Fatalf("%d events, want %d; %v, ended: %t, %+v", len(got), len(list), err, r.Ended(), r.Header())
	}
	for i := range list {
		if !same(got[i], list[i]) {
			t.Fatalf("event %d is\n%+v, want\n%+v", i, got[i], list[i])
		}
	}
}

// TestWriterCopies: the copy of a Recorder's recording is the same.
func TestWriterCopies(t *testing.T) {
	whole, list := small(t)
	_, of, err := read(t, bytes.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	got, r, err := read(t, copyOf(t, of.Header(), list))
	if err != nil || r.Header() != of.Header() || len(got) != len(list) {
		t.Fatalf("%d events, want %d; %v", len(got), len(list), err)
	}
	for i := range list {
		if !same(got[i], list[i]) {
			t.Errorf("event %d is\n%+v, want\n%+v", i, got[i], list[i])
		}
	}
}

// A refusing is a Writer that fails.
type refusing struct{ err error }

func (r refusing) Write([]byte) (int, error) { return 0, r.err }

// TestWriterErrors: what cannot be an event is refused and changes nothing. What cannot be written ends a Writer.
func TestWriterErrors(t *testing.T) {
	began := recording.Header{Began: time.Unix(1, 0).UTC()}
	var out bytes.Buffer
	if _, err := recording.NewWriter(nil, began); err == nil {
		t.Error("NewWriter(nil) succeeded")
	}
	if _, err := recording.NewWriter(&out, recording.Header{}); err == nil || !strings.Contains(err.Error(), "use a time from 1970 to 2262") {
		t.Errorf("without a time: %v", err)
	}
	w, err := recording.NewWriter(&out, began)
	if err != nil {
		t.Fatal(err)
	}
	good := recording.Event{Event: alloctrace.Event{Kind: alloctrace.Allocated, Addr: 64, Size: 8, Align: 8}, At: time.Second}
	if err := w.Write(good); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*recording.Event){
		"an event at 1ms follows one at 1s": func(e *recording.Event) { e.At = time.Millisecond },
		"has the kind 0":                    func(e *recording.Event) { e.Kind = 0 },
		"has the kind 8":                    func(e *recording.Event) { e.Kind = 8 },
		"has the alignment 0":               func(e *recording.Event) { e.Align = 0 },
		"has the alignment 24":              func(e *recording.Event) { e.Align = 24 },
		"-1 events were dropped":            func(e *recording.Event) { e.Dropped = -1 },
	} {
		e := good
		change(&e)
		if err := w.Write(e); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if list, _, err := read(t, &out); err != nil || len(list) != 1 || list[0] != good {
		t.Errorf("%+v, %v", list, err)
	}

	no := errors.New("no")
	if w, err = recording.NewWriter(refusing{no}, began); err != nil {
		t.Fatal(err)
	}
	for range 1 << 17 {
		if err = w.Write(good); err != nil {
			break
		}
	}
	if !errors.Is(err, no) || !errors.Is(w.Write(good), no) || !errors.Is(w.Close(), no) {
		t.Errorf("%v, then %v, then %v", err, w.Write(good), w.Close())
	}
}
