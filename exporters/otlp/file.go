package otlp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
)

// A fileTransport is an http.RoundTripper that is its own server: it writes
// the body of each request to a file as one line and answers 200. The
// OpenTelemetry exporter in front of it does the encoding.
type fileTransport struct {
	mu   sync.Mutex
	file lineFile
	size int64 // bytes of whole lines
	err  error // set once the file can no longer be kept whole
}

var _ http.RoundTripper = (*fileTransport)(nil)

// A lineFile is what of an *os.File is used.
type lineFile interface {
	io.WriteSeeker
	io.Closer
	Truncate(size int64) error
}

// createFile makes or empties the file. Anything but a regular file is
// refused, for opening or writing a pipe may block without end.
func createFile(path string) (*fileTransport, error) {
	if fi, err := os.Stat(path); err == nil && !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("WithFile(%q): not a regular file; give the path of a file to write", path)
	}
	f, err := os.Create(path)
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, fmt.Errorf("WithFile(%q): the file cannot be written (%w); give a path in a folder that exists and that you may write to", path, err)
	}
	return &fileTransport{file: f}, nil
}

// RoundTrip appends the request's body and a newline with one write. When the
// write falls short, as on a full disk, it takes back the half line.
func (t *fileTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	r.Body.Close()
	if err != nil {
		return nil, err
	}
	if bytes.IndexByte(body, '\n') >= 0 {
		return nil, errors.New("otlp: a request holds a line break and would not fit on one line of the file")
	}
	if err := t.appendLine(body); err != nil {
		return nil, err
	}
	return &http.Response{
		Status:     "200 OK",
		StatusCode: http.StatusOK,
		Proto:      "HTTP/1.1",
		ProtoMajor: 1,
		ProtoMinor: 1,
		Header:     http.Header{},
		Body:       http.NoBody,
		Request:    r,
	}, nil
}

func (t *fileTransport) appendLine(line []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return t.err
	}
	n, err := t.file.Write(append(line, '\n'))
	if err == nil {
		t.size += int64(n)
		return nil
	}
	if n > 0 {
		if terr := t.file.Truncate(t.size); terr != nil {
			t.err = fmt.Errorf("otlp: a half line could not be taken back (%w) after: %w", terr, err)
			return t.err
		}
		if _, serr := t.file.Seek(t.size, io.SeekStart); serr != nil {
			t.err = fmt.Errorf("otlp: no way back to the end of the file (%w) after: %w", serr, err)
			return t.err
		}
	}
	return err
}

// Close closes the file; later requests fail.
func (t *fileTransport) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.file.Close()
}
