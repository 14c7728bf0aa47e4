package recording

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"time"

	"github.com/alloctrace/alloctrace"
)

// A Writer writes events that have their times already: some of another recording, or what another program has noted. One
// goroutine may use it. It keeps what the events name, for example a stack by its pointer, until it is closed.
type Writer struct {
	out     stream
	encoder encoder
	owners  table[owner]
	regions table[string]
	stacks  table[*Stack]
	err     error // what ended it
}

// A table gives numbers that begin at 1 to values.
type table[T comparable] struct {
	numbers map[T]uint64
	list    []T
}

func (t *table[T]) number(v T) uint64 {
	n, ok := t.numbers[v]
	if !ok {
		if t.numbers == nil {
			t.numbers = make(map[T]uint64)
		}
		t.list = append(t.list, v)
		n = uint64(len(t.list))
		t.numbers[v] = n
	}
	return n
}

// mostFrames bounds a stack of a Writer.
const mostFrames = 256

// NewWriter returns a Writer that writes a recording to w. The times of the events count from h.Began.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	if w == nil {
		return nil, errors.New("recording: NewWriter(nil): pass a writer")
	}
	if h.Began.UnixNano() < 0 || !time.Unix(0, h.Began.UnixNano()).Equal(h.Began) {
		return nil, fmt.Errorf("recording: NewWriter: Header.Began is %v: use a time from 1970 to 2262", h.Began)
	}
	nw := &Writer{out: stream{w: w}}
	if err := nw.encoder.init((*written)(nw), h); err != nil {
		return nil, fmt.Errorf("recording: NewWriter: %w", err)
	}
	return nw, nil
}

// Write adds an event. No event is earlier than the one before. Of an event that says how many were dropped, its time is
// kept alone. Of a stack, the 256 innermost calls are kept. An event that is refused changes nothing. What cannot be
// written ends the Writer: all later calls return the same error.
func (w *Writer) Write(e Event) error {
	if w.err != nil {
		return w.err
	}
	if err := w.check(e); err != nil {
		return fmt.Errorf("recording: Write: %w", err)
	}
	if e.Dropped > 0 {
		w.encoder.dropped(uint64(e.At), uint64(e.Dropped))
		return w.flushIfFull()
	}
	s := shape{granted: uint64(e.Size), requested: uint64(e.Requested), align: uint8(bits.TrailingZeros64(uint64(e.Align)))}
	var stack uint64
	if e.Proxy != "" || e.Child != "" {
		s.owner = w.owners.number(owner{e.Proxy, e.Child})
	}
	if e.Region != "" {
		s.region = w.regions.number(e.Region)
	}
	if e.Stack != nil {
		stack = w.stacks.number(e.Stack)
	}
	w.encoder.event(uint64(e.At), e.Kind, uint64(e.Addr), s, stack, e.Reallocation)
	return w.flushIfFull()
}

// check returns what is wrong with e.
func (w *Writer) check(e Event) error {
	switch last := time.Duration(w.encoder.last); {
	case e.At < last:
		return fmt.Errorf("an event at %v follows one at %v: write them in the order of their times, which begin at 0", e.At, last)
	case e.Dropped > 0:
	case e.Dropped < 0:
		return fmt.Errorf("%d events were dropped: use a number above 0", e.Dropped)
	case e.Kind == 0 || e.Kind > alloctrace.FreeFailed:
		return fmt.Errorf("an event has the kind %d: use one of alloctrace.Kind", e.Kind)
	case e.Align == 0 || e.Align&(e.Align-1) != 0:
		return fmt.Errorf("an event has the alignment %d: use a power of two", e.Align)
	}
	return nil
}

func (w *Writer) flushIfFull() error {
	if w.encoder.full() {
		return w.flush()
	}
	return nil
}

func (w *Writer) flush() error {
	batch, _, _ := w.encoder.batch(w.encoder.last)
	if _, err := w.out.write(batch); err != nil {
		w.err = fmt.Errorf("recording: Write: %w", err)
	}
	return w.err
}

// Close writes the last events, and that the recording ends. It does not close what w writes to. A second Close does nothing.
func (w *Writer) Close() error {
	if w.encoder.ended {
		return nil
	}
	if w.err != nil {
		return w.err
	}
	w.encoder.ended = true
	err := w.flush()
	w.err = fmt.Errorf("recording: Write: %w", os.ErrClosed)
	return err
}

// written is a Writer as the encoder sees it.
type written Writer

func (w *written) owner(number uint64) owner { return w.owners.list[number-1] }

func (w *written) region(number uint64) string { return w.regions.list[number-1] }

func (w *written) stack(number uint64) []Frame {
	frames := w.stacks.list[number-1].Frames
	return frames[:min(len(frames), mostFrames)]
}
