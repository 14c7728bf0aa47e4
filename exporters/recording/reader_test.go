package recording_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/recording"
)

// small returns a recording of some batches, and its events.
func small(t testing.TB) (b []byte, list []recording.Event) {
	var out bytes.Buffer
	rec, err := recording.New(&out, recording.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := alloctrace.Wrap(&blockalloc.Heap{}, alloctrace.WithHooks(rec))
	var live []blockalloc.Block
	for i := range 40 {
		b, err := p.Allocate(blockalloc.Layout{Size: uintptr(1 + i), Align: 8})
		if err != nil {
			t.Fatal(err)
		}
		if live = append(live, b); i%3 == 0 {
			if err := p.Free(live[i/3]); err != nil {
				t.Fatal(err)
			}
		}
		if i%5 == 4 {
			if live[i], err = p.Reallocate(live[i], uintptr(100+i)); err != nil {
				t.Fatal(err)
			}
		}
		if i%8 == 7 {
			if err := rec.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := recording.NewReader(bytes.NewReader(out.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range r.Events() {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	return out.Bytes(), list
}

// same reports whether two events are the same, by what their stacks say.
func same(a, b recording.Event) bool {
	stacks := func(a, b *recording.Stack) bool {
		return a == b || a != nil && b != nil && slices.Equal(a.Frames, b.Frames)
	}
	if !stacks(a.Stack, b.Stack) {
		return false
	}
	a.Stack, b.Stack = nil, nil
	return a == b
}

// TestCut: wherever a recording is cut off, what came before is there, and the error says from where on nothing is.
func TestCut(t *testing.T) {
	whole, all := small(t)
	ends, step := 0, 1
	if testing.Short() {
		step = 7
	}
	for n := 0; n < len(whole); n += step {
		r, err := recording.NewReader(bytes.NewReader(whole[:n]))
		if err != nil {
			if !errors.Is(err, recording.ErrFormat) {
				t.Fatalf("of %d bytes: %v", n, err)
			}
			continue
		}
		i := 0
		var damaged *recording.DamagedError
		for e, err := range r.Events() {
			if errors.As(err, &damaged) {
				break
			}
			if err != nil || i >= len(all) || !same(e, all[i]) {
				t.Fatalf("of %d bytes: event %d is %+v, %v", n, i, e, err)
			}
			i++
		}
		if r.Ended() {
			t.Errorf("of %d bytes: it is said to have ended", n)
		}
		if damaged == nil {
			ends++
		} else if damaged.Offset >= int64(n) || !errors.Is(damaged, io.ErrUnexpectedEOF) {
			t.Errorf("of %d bytes: %v", n, damaged)
		}
	}
	if step == 1 && ends != 6 {
		t.Errorf("%d recordings seem whole: want those that end after one of the 6 batches before the last", ends)
	}
}

// FuzzReader: whatever is read, a Reader says what is wrong with it.
func FuzzReader(f *testing.F) {
	whole, all := small(f)
	f.Add(whole, 0, byte(0))
	f.Add(whole, 100, byte(1))
	f.Fuzz(func(t *testing.T, b []byte, at int, x byte) {
		if at >= 0 && at < len(b) {
			b = slices.Clone(b)
			b[at] ^= x
		}
		r, err := recording.NewReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		defer r.Close()
		i := 0
		for e, err := range r.Events() {
			var damaged *recording.DamagedError
			if err != nil {
				if !errors.As(err, &damaged) {
					t.Fatal(err)
				}
				break
			}
			if bytes.Equal(b, whole) && !same(e, all[i]) {
				t.Fatalf("event %d is %+v, want %+v", i, e, all[i])
			}
			if i++; i > 1<<20 {
				break
			}
		}
	})
}

// TestReaderOf64Bits: a program of 32 bits, which has no room for their addresses, refuses the recordings of one of 64.
func TestReaderOf64Bits(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64", "s390x", "386", "wasm"} {
		var out bytes.Buffer
		w, err := recording.NewWriter(&out, recording.Header{GOARCH: arch, Began: time.Unix(1, 0)})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		_, err = recording.NewReader(&out)
		if wide := arch != "386" && arch != "wasm"; (err != nil) != (wide && strconv.IntSize == 32) || err != nil && !errors.Is(err, recording.ErrFormat) {
			t.Errorf("of %s, with %d bits: %v", arch, strconv.IntSize, err)
		}
	}
}
