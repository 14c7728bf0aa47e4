package recording

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Span returns from when to when a file is: from before its first event to its last event, or to when the Recorder was closed. It
// reads headers alone, which takes milliseconds. Of a file that ends too early or is damaged it returns the times of what
// comes before. The error wraps [ErrFormat] if the file is no recording.
func Span(path string) (first, last time.Time, err error) {
	f, err := os.Open(path)
	if err != nil {
		return first, last, fmt.Errorf("recording: Span: %w", err)
	}
	defer f.Close()
	var b [batchHeaderSize]byte
	for {
		var h batchHeader
		if _, err := io.ReadFull(f, b[:]); err != nil {
			break
		}
		if version, ok := h.parse(b[:]); !ok || version != Version {
			break
		}
		if first.IsZero() {
			first = time.Unix(0, h.first).UTC()
		}
		last = time.Unix(0, h.last).UTC()
		if _, err := f.Seek(int64(h.packed), io.SeekCurrent); err != nil {
			break
		}
	}
	if first.IsZero() {
		return first, last, fmt.Errorf("recording: Span(%q): %w: %w", path, ErrFormat, errors.New("no batch begins here"))
	}
	return first, last, nil
}
