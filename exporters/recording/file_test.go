package recording_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/exporters/recording"
)

// TestRotates: the file and the one before are bounded, readable each, and one after the other.
func TestRotates(t *testing.T) {
	const max = 12 << 20
	path := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(path, []byte("before"), 0o666); err != nil {
		t.Fatal(err)
	}
	rec, err := recording.Create(path, recording.Options{MaxBytes: max, Queue: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	var events []alloctrace.Event
	for i := range 500_000 { // random addresses do not compress
		e := alloctrace.Event{Kind: alloctrace.Allocated, Addr: uintptr(rng.Uint64()), Size: uintptr(rng.Uint32() % 1000), Align: 8}
		rec.Observe(context.Background(), e, nil)
		events = append(events, e)
		if i%100_000 == 0 {
			if err := rec.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	if before, err := os.ReadFile(path + ".old"); err != nil || string(before) == "before" {
		t.Fatalf("there was no rotation: %v", err)
	}
	var both []byte
	for _, name := range []string{path + ".old", path} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := read(t, bytes.NewReader(b)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		both = append(both, b...)
	}
	if len(both) > max || len(both) < max/4 {
		t.Errorf("the files have %d bytes, the bound is %d", len(both), max)
	}
	list, _, err := read(t, bytes.NewReader(both))
	if err != nil || rec.Usage().Dropped > 0 {
		t.Fatalf("%v, %+v", err, rec.Usage())
	}
	for i, e := range list {
		if want := events[len(events)-len(list)+i]; e.Event != want {
			t.Fatalf("event %d of %d is %+v, want %+v", i, len(list), e, want)
		}
	}
}

// TestRotatesLater: while no new file can begin, events are dropped and counted, and what was written stays.
func TestRotatesLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	rec, err := recording.Create(path, recording.Options{MaxBytes: 12 << 20, Queue: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	inTheWay := filepath.Join(path+".old", "folder")
	if err := os.MkdirAll(inTheWay, 0o777); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	observed := int64(0)
	fill := func(until func(err error) bool) {
		t.Helper()
		for range 100 {
			for range 20_000 {
				rec.Observe(context.Background(), alloctrace.Event{Kind: alloctrace.Freeing, Addr: uintptr(rng.Uint64()), Size: 1, Align: 1}, nil)
				observed++
			}
			if until(rec.Flush()) {
				return
			}
		}
		t.Fatal("it did not come to that")
	}
	fill(func(err error) bool { return err != nil })
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(path + ".old"); err != nil {
		t.Fatal(err)
	}
	fill(func(err error) bool { return err == nil })
	if err := rec.Close(); err == nil {
		t.Error("Close returned no error")
	}
	if old, err := os.ReadFile(path + ".old"); err != nil || !bytes.Equal(old, before) {
		t.Errorf("%d bytes of %d, %v", len(old), len(before), err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := read(t, bytes.NewReader(slices.Concat(before, b)))
	if err != nil {
		t.Fatal(err)
	}
	var there, missing int64
	for _, e := range list {
		if missing += e.Dropped; e.Dropped == 0 {
			there++
		}
	}
	if u := rec.Usage(); there+missing != observed || u.Sampled != there || u.Dropped != missing || missing == 0 {
		t.Errorf("%d events and %d dropped of %d, %+v", there, missing, observed, u)
	}
}

// TestSpan: the times of the first and the last event are read without the events, of a part as well.
func TestSpan(t *testing.T) {
	whole, list := small(t)
	path := filepath.Join(t.TempDir(), "a")
	span := func(n int) (from, to time.Time, err error) {
		if err := os.WriteFile(path, whole[:n], 0o666); err != nil {
			t.Fatal(err)
		}
		return recording.Span(path)
	}
	from, to, err := span(len(whole))
	if err != nil {
		t.Fatal(err)
	}
	r, err := recording.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	began := r.Header().Began
	r.Close()
	if from.Before(began) || from.After(began.Add(list[0].At)) || to.Before(began.Add(list[len(list)-1].At)) {
		t.Errorf("from %v to %v, and events from %v to %v after %v", from, to, list[0].At, list[len(list)-1].At, began)
	}
	shorter := 0
	for n := range whole {
		partFrom, partTo, err := span(n)
		if n < 52 {
			if !errors.Is(err, recording.ErrFormat) {
				t.Errorf("of %d bytes: %v", n, err)
			}
			continue
		}
		if err != nil || !partFrom.Equal(from) || partTo.Before(from) || partTo.After(to) {
			t.Errorf("of %d bytes: %v to %v, %v", n, partFrom, partTo, err)
		}
		if partTo.Before(to) {
			shorter++
		}
	}
	if shorter == 0 {
		t.Error("no part is shorter than the whole")
	}
	if _, _, err := recording.Span(path + "none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
