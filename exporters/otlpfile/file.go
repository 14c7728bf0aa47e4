package otlpfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
)

// An output is what of an *os.File is used.
type output interface {
	io.WriteCloser
	Stat() (os.FileInfo, error)
	Truncate(size int64) error
}

// Create returns an Exporter that writes to a file, which it makes or empties. Create refuses anything but a regular file,
// because opening or writing a pipe may block forever. Shutdown closes the file.
//
// Each line is appended with one call, and removed again if it does not fit on the disk. Only a program that is killed in the
// middle of a write can leave half a line, and then it is the last one: remove it before you open the file.
// [Send] leaves it out. logrotate's copytruncate, or another program that copies and truncates the file, may run at any time. A
// file that is renamed is written to under its new name. [CreateRotating] bounds the size.
//
// One file belongs to one Exporter. Create refuses a file that another is writing, in this program or another, on systems
// with locks that bind nobody else: Linux, macOS and the BSDs. Elsewhere the second one empties the file, and both append.
//
// The error names the path, and wraps one that says what is wrong and what would be right.
func Create(path string) (*Exporter, error) {
	f, err := create(path)
	if err != nil {
		return nil, fmt.Errorf("otlpfile: Create(%q): %w", path, err)
	}
	return &Exporter{out: f}, nil
}

func create(path string) (f appendFile, err error) {
	if path == "" {
		return f, errors.New(`the path is empty; give the path of the file to write, such as "trace.json"`)
	}
	if fi, err := os.Stat(path); err == nil && !fi.Mode().IsRegular() {
		return f, errors.New("not a regular file; give the path of a file to write")
	}
	// With O_APPEND a line goes to the end of the file, also after somebody else has truncated it: at an offset of our own
	// it would leave a hole.
	f.File, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	if err == nil {
		if err = lock(f.File); err == nil {
			err = f.Truncate(0)
		}
		if err != nil {
			f.Close()
		}
	}
	if err == errInUse {
		return f, fmt.Errorf("%w; give each a path of its own, or use CreateRotating", err)
	}
	if err != nil {
		return f, fmt.Errorf("the file cannot be written (%w); give a path in a folder that exists and that you may write to", bare(err))
	}
	return f, nil
}

// An appendFile was opened with O_APPEND.
type appendFile struct{ *os.File }

func (f appendFile) Truncate(size int64) error {
	if runtime.GOOS == "windows" {
		// A handle that appends may not truncate, and one that may truncate does not append.
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

// takeBack removes the last n bytes of the file, which may be shorter by now.
func takeBack(f output, n int64) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	return f.Truncate(max(0, fi.Size()-n))
}

// A stream is a writer that is neither closed nor truncated.
type stream struct{ io.Writer }

var errStream = errors.New("a stream takes nothing back")

func (stream) Stat() (os.FileInfo, error) { return nil, errStream }
func (stream) Truncate(int64) error       { return errStream }
func (stream) Close() error               { return nil }
