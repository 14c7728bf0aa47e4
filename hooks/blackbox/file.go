package blackbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/pages"
)

// ErrInUse is the error of [Create] for a file that is the black box of a process that runs, or of another Box of this one.
var ErrInUse = errors.New("the file is in use: give each process a path of its own")

// claim opens an empty file at path that nobody else writes. A black box that is there is kept as path.old.
func claim(path string) (*os.File, error) {
	for {
		f, err := open(path)
		if err != nil {
			return nil, err
		}
		ours, err := keepOld(f, path)
		if err == nil && ours {
			return f, nil
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
}

// keepOld renames a black box of an earlier process. It reports whether f is empty and at path: another process may have
// renamed it before it was locked.
func keepOld(f *os.File, path string) (ours bool, err error) {
	is, err := f.Stat()
	if err != nil {
		return false, err
	}
	at, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil || !os.SameFile(is, at) {
		return false, err
	}
	if !is.Mode().IsRegular() {
		return false, fmt.Errorf("%s is no regular file: use another path", path)
	}
	if is.Size() == 0 {
		return true, nil
	}
	var begin [len(magic)]byte
	if n, err := f.ReadAt(begin[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	} else if string(begin[:n]) != magic {
		return false, fmt.Errorf("%s has other content than a black box: use another path, or remove it", path)
	}
	return false, os.Rename(path, path+".old")
}

// fill writes the header and zeros to an empty file, so that the file system has room for all of it.
func fill(f *os.File, l *layout) error {
	if _, err := f.Write(l.header()); err != nil {
		return err
	}
	zeros := make([]byte, 1<<20)
	for left := l.size - headerSize; left > 0; {
		n, err := f.Write(zeros[:min(left, uint64(len(zeros)))])
		if err != nil {
			return err
		}
		left -= uint64(n)
	}
	return nil
}

// mapped returns the content of a file, shared with it. Each page is written to, so that no event waits for the kernel to map it.
func mapped(f *os.File, size uint64) ([]byte, error) {
	p, err := pages.MapFile(f, uintptr(size))
	if err != nil {
		return nil, err
	}
	mem := unsafe.Slice((*byte)(p), size)
	for at := uint64(0); at < size; at += uint64(pages.Size) {
		(*atomic.Uint64)(unsafe.Pointer(&mem[at])).Add(0)
	}
	return mem, nil
}
