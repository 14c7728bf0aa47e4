package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/alloctrace/alloctrace/blockalloc/typed"
)

// maxFile is the size in bytes of the largest file that is indexed.
const maxFile = 1 << 30

// A folder is what is indexed: the files in it and below. Names that begin with
// a dot are left out, and so is what is no regular file.
type folder struct {
	dir string
	ext string // what names must end with, "" if nothing
}

// openFolder returns the folder of that name, or the Go standard library's
// sources if dir is empty. It fails unless there is at least one text file.
func openFolder(dir string) (folder, error) {
	f := folder{dir: dir}
	if dir == "" {
		out, err := exec.Command("go", "env", "GOROOT").Output()
		if err != nil {
			return f, fmt.Errorf("cannot find the Go standard library by go env GOROOT: %w: name a folder of text files with -dir", err)
		}
		f = folder{filepath.Join(strings.TrimSpace(string(out)), "src"), ".go"}
	}
	err := f.check()
	if err != nil {
		err = fmt.Errorf("cannot index %q: %w: name a folder of text files with -dir", f.dir, err)
	}
	return f, err
}

func (f *folder) check() error {
	found := false
	dir, err := filepath.EvalSymlinks(f.dir) // WalkDir does not follow a link
	if err == nil {
		f.dir = dir
		err = f.walk(func(path string) error {
			if found = hasText(filepath.Join(dir, path)); found {
				return fs.SkipAll
			}
			return nil
		})
	}
	var pathError *fs.PathError
	switch {
	case errors.As(err, &pathError):
		return pathError.Err // the path is in the sentence already
	case err == nil && !found:
		return errors.New("no text file in it can be read")
	}
	return err
}

// walk calls visit with the path of each file, relative to the folder, in
// lexical order. Folders below that cannot be read are left out.
func (f *folder) walk(visit func(path string) error) error {
	if info, err := os.Stat(f.dir); err != nil {
		return err
	} else if !info.IsDir() {
		return errors.New("not a folder")
	}
	return filepath.WalkDir(f.dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case path == f.dir:
			return err
		case err != nil:
			return nil
		case strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case !d.Type().IsRegular(), !strings.HasSuffix(path, f.ext), isOutput(d.Name()):
			return nil
		}
		relative, err := filepath.Rel(f.dir, path)
		if err != nil {
			return err
		}
		return visit(relative)
	})
}

// hasText reports whether a file can be read and begins with text.
func hasText(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head, err := io.ReadAll(io.LimitReader(f, headSize))
	return err == nil && isText(head)
}

// headSize is how many bytes of a file show whether it is text.
const headSize = 8000

// isText is git's rule: text has no zero byte near its beginning.
func isText(text []byte) bool {
	return len(text) > 0 && bytes.IndexByte(text[:min(len(text), headSize)], 0) < 0
}

// readFile reads a file into buffer, in place of what was there. Its errors are
// those of the allocator, and *fs.PathError for what is wrong with the file.
func readFile(path string, buffer *typed.Vec[byte]) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() > maxFile {
		return &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("larger than %d bytes", maxFile)}
	}
	return readAt(f, buffer, 0, int(info.Size()))
}

// readAt reads up to size bytes that start at offset into buffer, in place of
// what was there.
func readAt(f io.ReaderAt, buffer *typed.Vec[byte], offset int64, size int) error {
	if err := buffer.Resize(size); err != nil {
		return err
	}
	n, err := f.ReadAt(buffer.Slice(), offset)
	buffer.Truncate(n)
	if err == io.EOF {
		return nil
	}
	return err
}
