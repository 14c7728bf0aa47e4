package recording

import (
	"bytes"
	"errors"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// batchOf returns a batch that unpacks to plain, and is said to have so many events.
func batchOf(z *zstd.Encoder, plain []byte, events uint32, flags uint16) []byte {
	out := z.EncodeAll(plain, make([]byte, batchHeaderSize))
	h := batchHeader{flags: flags, packed: uint32(len(out) - batchHeaderSize), plain: uint32(len(plain)), events: events}
	h.put(out)
	return out
}

// plains returns what the batches of a recording unpack to, and how many events they have.
func plains(f *testing.F) (list [][]byte, events []uint32) {
	var out bytes.Buffer
	rec, err := New(&out, Options{FreeStacks: true})
	if err != nil {
		f.Fatal(err)
	}
	p := alloctrace.Wrap(&blockalloc.Heap{}, alloctrace.WithName("p"), alloctrace.WithHooks(rec))
	for i := range 20 {
		b, err := p.Child("c").Allocate(blockalloc.Layout{Size: uintptr(1 + i), Align: 8})
		if err == nil && i%2 == 0 {
			err = p.Child("c").Free(b)
		}
		if err == nil && i%4 == 1 {
			_, err = p.Reallocate(b, uintptr(100+i))
		}
		if err == nil && i == 10 {
			err = rec.Flush()
		}
		if err != nil {
			f.Fatal(err)
		}
	}
	if err := rec.Close(); err != nil {
		f.Fatal(err)
	}
	r, err := NewReader(&out)
	if err != nil {
		f.Fatal(err)
	}
	defer r.Close()
	for ; err == nil; err = r.load() {
		list, events = append(list, bytes.Clone(r.plain)), append(events, r.next.events)
	}
	return list, events
}

// FuzzBatches: whatever two batches unpack to, a Reader returns as many events as they have, or says what is wrong.
func FuzzBatches(f *testing.F) {
	list, events := plains(f)
	for i := 1; i < len(list); i++ {
		f.Add(list[i-1], list[i], events[i-1], events[i], i == 1, false)
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, first, second []byte, n, m uint32, fresh, again bool) {
		flags := map[bool]uint16{true: flagFresh}
		n, m = n%batchEvents, m%batchEvents
		r, err := NewReader(bytes.NewReader(append(batchOf(z, first, n, flags[fresh]), batchOf(z, second, m, flags[again])...)))
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		defer r.Close()
		var got uint32
		for e, err := range r.Events() {
			var damaged *DamagedError
			if errors.As(err, &damaged) {
				if damaged.Offset < 0 {
					t.Fatal(err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if e.Dropped == 0 && (e.Kind == 0 || e.Kind > alloctrace.FreeFailed) {
				t.Fatalf("%+v", e)
			}
			got++
		}
		if got != n+m {
			t.Fatalf("%d events of %d and %d", got, n, m)
		}
	})
}
