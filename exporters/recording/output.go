package recording

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// An output takes batches.
type output interface {
	// write writes a batch, all or nothing as far as it can, and reports whether the next must begin a segment.
	write(b []byte) (fresh bool, err error)
	Close() error
}

// A stream is an io.Writer of somebody else's.
type stream struct{ w io.Writer }

func (s *stream) write(b []byte) (bool, error) {
	n, err := s.w.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return false, err
}

func (s *stream) Close() error { return nil }

// A file is on the disk, with the one before beside it.
type file struct {
	f    *os.File
	path string
	size int64
	max  int64 // of all
	full bool  // the next batch goes to another file
}

// minBytes has room for two batches in each of two files.
const minBytes = 4 * maxBatch

func createFile(path string, maxBytes int64) (*file, error) {
	if path == "" {
		return nil, errors.New(`the path is empty: give that of the file to write, such as "server.alloctrace"`)
	}
	if maxBytes < minBytes {
		return nil, fmt.Errorf("Options.MaxBytes is %d: use %d or more, or 0 for a GiB", maxBytes, minBytes)
	}
	f := &file{path: path, max: maxBytes}
	return f, f.next()
}

// next ends the file, and begins a new one. If it cannot, there is none until it is called again.
func (f *file) next() error {
	f.full = true
	if err := f.Close(); err != nil { // before it is renamed, which Windows wants
		return err
	}
	if err := os.Rename(f.path, f.path+".old"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	n, err := os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	f.f, f.size, f.full = n, 0, false
	return nil
}

func (f *file) write(b []byte) (bool, error) {
	if f.full {
		if err := f.next(); err != nil {
			return true, err
		}
	}
	n, err := f.f.Write(b)
	if err != nil {
		if n > 0 { // half a batch would be damage
			if _, seek := f.f.Seek(f.size, io.SeekStart); seek == nil && f.f.Truncate(f.size) == nil {
				return true, err
			}
			f.full = true // nothing may follow it
		}
		return true, err
	}
	f.size += int64(n)
	f.full = f.size+maxBatch > f.max/2
	return f.full, nil
}

func (f *file) Close() error {
	open := f.f
	if f.f = nil; open == nil {
		return nil
	}
	return open.Close()
}
