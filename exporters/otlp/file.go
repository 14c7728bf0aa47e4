package otlp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"sync"
)

// A fileTransport is an http.RoundTripper that is its own server: it writes
// the body of each request to a file as one line and answers 200. The
// OpenTelemetry exporter in front of it does the encoding.
type fileTransport struct {
	mu   sync.Mutex
	file lineFile
	err  error // set once the file can no longer be kept whole
}

var _ http.RoundTripper = (*fileTransport)(nil)

// A lineFile is what of an *os.File is used.
type lineFile interface {
	io.WriteCloser
	Stat() (os.FileInfo, error)
	Truncate(size int64) error
}

// createFile makes or empties the file. Anything but a regular file is
// refused, for opening or writing a pipe may block without end.
func createFile(path string) (*fileTransport, error) {
	if fi, err := os.Stat(path); err == nil && !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("WithFile(%q): not a regular file; give the path of a file to write", path)
	}
	// With O_APPEND a line goes to the end of the file, also after somebody else
	// has truncated it: at an offset of our own it would leave a hole.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	if err == nil {
		if err = (appendFile{f}).Truncate(0); err != nil {
			f.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("WithFile(%q): the file cannot be written (%w); give a path in a folder that exists and that you may write to", path, bare(err))
	}
	return &fileTransport{file: appendFile{f}}, nil
}

// An appendFile was opened with O_APPEND.
type appendFile struct{ *os.File }

func (f appendFile) Truncate(size int64) error {
	if runtime.GOOS == "windows" {
		// A handle that appends may not truncate, and one that may truncate
		// does not append.
		return os.Truncate(f.Name(), size)
	}
	return f.File.Truncate(size)
}

// bare returns an error of the file system without the operation and the path.
func bare(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// A console is standard output, which is neither closed nor truncated.
type console struct{ *os.File }

func (console) Close() error { return nil }

func (console) Truncate(int64) error { return errors.New("standard output takes nothing back") }

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
	lowerIDs(body)
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
	if err != nil && n > 0 {
		if terr := t.takeBack(int64(n)); terr != nil {
			t.err = fmt.Errorf("otlp: a half line could not be taken back (%w) after: %w", terr, err)
			return t.err
		}
	}
	return err
}

// takeBack removes the last n bytes of the file, which may be shorter by now.
func (t *fileTransport) takeBack(n int64) error {
	fi, err := t.file.Stat()
	if err != nil {
		return err
	}
	return t.file.Truncate(max(0, fi.Size()-n))
}

// lowerIDs makes the trace and span ids of an OTLP/JSON request lower case, as
// they are in logs and in the headers of W3C Trace Context. Within a string of
// JSON the quotes would be escaped, so that what is found is an id.
func lowerIDs(request []byte) {
	for _, key := range [...]string{`"traceId":"`, `"spanId":"`, `"parentSpanId":"`} {
		for rest := request; ; {
			i := bytes.Index(rest, []byte(key))
			if i < 0 {
				break
			}
			rest = rest[i+len(key):]
			for j, c := range rest {
				if c == '"' {
					break
				}
				if 'A' <= c && c <= 'F' {
					rest[j] = c + ('a' - 'A')
				}
			}
		}
	}
}

// Close closes the file; later requests fail.
func (t *fileTransport) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.file.Close()
}
