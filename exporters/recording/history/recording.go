package history

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"time"

	"github.com/alloctrace/alloctrace/exporters/recording"
)

// A Recording is the file of a Recorder, and the one before it.
type Recording struct {
	// Progress, if it is not nil, is called while events are read: with the bytes that were, and all that there are. In the
	// end it is called with all, though some could not be read.
	Progress func(read, size int64)

	header      recording.Header
	files       []string
	size        int64
	first, last time.Duration
	closed      bool    // as far as was read
	damage      []error // of a file that cannot be read at all
}

// Open returns the recording at path. Unless alone is set, path.old is read before it if it is of the same process. If that alone
// can be read, it is all there is.
func Open(path string, alone bool) (*Recording, error) {
	r := &Recording{}
	err := r.open(path)
	if !alone {
		if _, missing := os.Stat(path + ".old"); missing == nil {
			err = r.openOld(path, err)
		}
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// openOld adds the file before the one at path, for which there was an error or nil.
func (r *Recording) openOld(path string, err error) error {
	old := &Recording{}
	oldErr := old.open(path + ".old")
	switch {
	case err != nil && oldErr == nil && errors.Is(err, recording.ErrFormat):
		old.damage = []error{err}
		*r = *old
		return nil
	case err == nil && oldErr != nil:
		r.damage = []error{oldErr}
	case err == nil && old.header.PID == r.header.PID && old.header.Began.Equal(r.header.Began):
		r.files = append(old.files, r.files...)
		r.size += old.size
		r.first = old.first
	}
	return err
}

func (r *Recording) open(path string) error {
	in, err := recording.Open(path)
	if err != nil {
		return err
	}
	r.header = in.Header()
	in.Close()
	first, last, err := recording.Span(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	r.files, r.size = []string{path}, info.Size()
	r.first, r.last = first.Sub(r.header.Began), last.Sub(r.header.Began)
	return nil
}

// Header returns what the recording says of its process.
func (r *Recording) Header() recording.Header { return r.header }

// Files returns the paths of the files, in the order in which they are read.
func (r *Recording) Files() []string { return r.files }

// Size returns the bytes of the files.
func (r *Recording) Size() int64 { return r.size }

// Span returns the times of the first and the last event, since Header.Began: by the headers of batches, which may be
// more than can be read.
func (r *Recording) Span() (first, last time.Duration) { return r.first, r.last }

// Time returns a moment as a time.
func (r *Recording) Time(moment time.Duration) time.Time { return r.header.Began.Add(moment) }

// Events yields all events from the first file on, whenever it is called. After an error, which says what of a file cannot be
// read, it goes on with the next file.
func (r *Recording) Events() iter.Seq2[recording.Event, error] {
	return func(yield func(recording.Event, error) bool) {
		var read int64
		for _, path := range r.files {
			if !r.eventsOf(path, &read, yield) {
				return
			}
		}
		for _, err := range r.damage {
			if !yield(recording.Event{}, err) {
				return
			}
		}
		if r.Progress != nil {
			r.Progress(r.size, r.size)
		}
	}
}

func (r *Recording) eventsOf(path string, read *int64, yield func(recording.Event, error) bool) bool {
	f, err := os.Open(path)
	if err != nil {
		return yield(recording.Event{}, err)
	}
	defer f.Close()
	in, err := recording.NewReader(bufio.NewReaderSize(&counted{f, r, read}, 1<<16))
	if err != nil {
		return yield(recording.Event{}, fmt.Errorf("%s: %w", path, err))
	}
	defer in.Close()
	for e, err := range in.Events() {
		if err != nil {
			r.closed = false
			return yield(e, fmt.Errorf("%s: %w", path, err))
		}
		if !yield(e, nil) {
			return false
		}
	}
	r.closed = in.Ended()
	return true
}

// counted counts the bytes that are read.
type counted struct {
	io.Reader
	of   *Recording
	read *int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	*c.read += int64(n)
	if c.of.Progress != nil {
		c.of.Progress(*c.read, c.of.size)
	}
	return n, err
}

// Read returns the History of all events.
func (r *Recording) Read(o Options) *History {
	h := New(o)
	for e, err := range r.Events() {
		if err != nil {
			h.Damaged(err)
		} else {
			h.Add(e)
		}
	}
	if len(h.unknown.Damage) == 0 {
		h.End(r.last)
	}
	h.End(h.now)
	return h
}

// readSpan is Read with options that are made of the first and the last time. A recording that turns out to end before is read again.
func (r *Recording) readSpan(options func(first, last time.Duration) Options) *History {
	h := r.Read(options(r.first, r.last))
	if len(h.unknown.Damage) > 0 && h.now < r.last {
		r.last = max(h.now, r.first)
		h = r.Read(options(r.first, r.last))
	}
	return h
}
