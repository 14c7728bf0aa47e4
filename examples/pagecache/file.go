package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// pages is what a cache reads and writes.
type pages interface {
	readPage(page uint32, b []byte) error
	writePage(page uint32, b []byte) error
}

// A pageFile is a file of pages of one size.
type pageFile struct {
	*os.File
	pageSize int64
	direct   bool  // reads and writes bypass the kernel's page cache
	why      error // why they do not
}

// createFile makes a file of that many pages, all of generation 0. They are written from buffer, some at once. If direct is
// set, the file is opened with O_DIRECT, unless the kernel or the file system refuses that; then buffer must be aligned as
// pages are.
func createFile(name string, buffer []byte, pageSize int, count uint32, direct bool) (*pageFile, error) {
	plain, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%w: name one that is not there yet", err)
	}
	if err != nil {
		return nil, err
	}
	f := &pageFile{File: plain, pageSize: int64(pageSize)}
	if direct {
		f.goDirect(buffer[:pageSize])
	}
	for first := uint32(0); first < count; {
		n := uint32(0)
		for ; first+n < count && int(n+1)*pageSize <= len(buffer); n++ {
			fill(buffer[int(n)*pageSize:][:pageSize], first+n, 0)
		}
		if err := f.writePage(first, buffer[:int(n)*pageSize]); err != nil {
			return nil, errors.Join(err, f.remove())
		}
		first += n
	}
	return f, nil
}

// goDirect opens the file again, with O_DIRECT, and tries it with a page.
func (f *pageFile) goDirect(page []byte) {
	opened, err := openDirect(f.Name(), len(page))
	if err == nil {
		if _, err = opened.WriteAt(page, 0); err != nil {
			opened.Close()
		}
	}
	if err != nil {
		f.why = err
		return
	}
	f.Close()
	f.File, f.direct = opened, true
}

// remove closes and removes the file.
func (f *pageFile) remove() error { return errors.Join(f.Close(), os.Remove(f.Name())) }

func (f *pageFile) readPage(page uint32, b []byte) error {
	if _, err := f.ReadAt(b, int64(page)*f.pageSize); err != nil {
		return fmt.Errorf("page %d: %w", page, err)
	}
	return nil
}

func (f *pageFile) writePage(page uint32, b []byte) error {
	if _, err := f.WriteAt(b, int64(page)*f.pageSize); err != nil {
		return fmt.Errorf("page %d: %w", page, err)
	}
	return nil
}
