package otlpfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A Rotation says when an Exporter ends its file and begins a new one, and how much all files may hold. A field that is zero is
// off.
type Rotation struct {
	// MaxFileBytes is the size that a file does not grow beyond. Spans that are handed over together stay in one file. If they
	// alone are more than MaxFileBytes, they have a larger file of their own.
	MaxFileBytes int64

	// MaxFileAge is the time from a file's first line to its end. No timer runs: a new file is begun when the next spans are
	// written.
	MaxFileAge time.Duration

	// MaxTotalBytes bounds the bytes of all files of the path, those of earlier runs included. Before spans are written that
	// do not fit, the oldest files are deleted, and counted in [Stats]. It needs a MaxFileBytes of at most half of it, because
	// the file that is being written is not deleted.
	MaxTotalBytes int64
}

func (r Rotation) check() error {
	switch {
	case r.MaxFileBytes < 0 || r.MaxFileAge < 0 || r.MaxTotalBytes < 0:
		return fmt.Errorf("%+v: a limit is below zero; use a limit above zero, or 0 for none", r)
	case r.MaxTotalBytes > 0 && (r.MaxFileBytes == 0 || r.MaxFileBytes > r.MaxTotalBytes/2):
		return fmt.Errorf("MaxFileBytes=%d with MaxTotalBytes=%d: use a MaxFileBytes from 1 to %d, half of all",
			r.MaxFileBytes, r.MaxTotalBytes, r.MaxTotalBytes/2)
	}
	return nil
}

// CreateRotating returns an Exporter that writes to files beside path, each of which has the time of its beginning in its name:
// with the path "log/trace.json" they are log/trace-20260131T235959.000000000Z.json and the like, and none is log/trace.json.
// A file is never renamed, so that a program that is killed between two files loses nothing. [Files] lists them.
//
// CreateRotating keeps the files of earlier runs. If a program was killed in the middle of a write, the half line at the end of
// its file is removed. No write is followed by an fsync: files survive the death of the program, and not that of the machine.
//
// If a write fails, for example because the disk is full, the half line is removed, as [Create] does it. If that fails too, it
// stays the last of its file, and the next spans go to a new file. The same happens if another program has renamed or deleted
// the file that is being written.
//
// Several Exporters, in one program or several, may have one path: each writes files of its own, and none deletes a file that
// another is writing. The bound on all files then holds but for what the others have written since this Exporter last began
// or deleted a file. Exporters see each other by file locks, which Linux, macOS, the BSDs and Windows have. Elsewhere, and on
// network file systems without locks, an Exporter may delete a file that another is writing, and leaves half lines.
//
// The error names the path, and wraps one that says what is wrong and what would be right.
func CreateRotating(path string, r Rotation) (*Exporter, error) {
	f, err := createRotating(path, r)
	if err != nil {
		return nil, fmt.Errorf("otlpfile: CreateRotating(%q): %w", path, err)
	}
	return &Exporter{out: f}, nil
}

func createRotating(path string, r Rotation) (*rotatingFile, error) {
	if path == "" {
		return nil, errors.New(`the path is empty; give the path of the files to write, such as "trace.json"`)
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	path = filepath.Clean(path)
	files, err := filesOf(path)
	if err != nil {
		return nil, fmt.Errorf("its folder cannot be read (%w); give a path in a folder that exists", bare(err))
	}
	for _, f := range files {
		removeHalfLine(f.name)
	}
	f := &rotatingFile{path: path, limits: r, begin: begin}
	if err := f.next(); err != nil {
		return nil, err
	}
	return f, nil
}

// Files returns the names of the files that Exporters of [CreateRotating] have written with this path, oldest first. The last
// one may still be written to.
func Files(path string) ([]string, error) {
	files, err := filesOf(filepath.Clean(path))
	if err != nil {
		return nil, fmt.Errorf("otlpfile: Files(%q): the folder cannot be read: %w", path, bare(err))
	}
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f.name
	}
	return names, nil
}

// stamp is the time in a file's name. Names sort as their times do.
const stamp = "20060102T150405.000000000Z"

// nameOf returns the name of the file that is begun at that time.
func nameOf(path string, at time.Time) string {
	ext := filepath.Ext(path)
	return strings.TrimSuffix(path, ext) + "-" + at.UTC().Format(stamp) + ext
}

type rotatedFile struct {
	name string
	at   time.Time
	size int64
}

// filesOf returns the files of a path, oldest first.
func filesOf(path string) (files []rotatedFile, err error) {
	entries, err := os.ReadDir(filepath.Dir(path)) // sorted by name
	if err != nil {
		return nil, err
	}
	ext := filepath.Ext(path)
	before := strings.TrimSuffix(filepath.Base(path), ext) + "-"
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), before)
		if !ok || !e.Type().IsRegular() {
			continue
		}
		at, err := time.Parse(stamp, strings.TrimSuffix(rest, ext))
		name := nameOf(path, at)
		if err != nil || filepath.Base(name) != e.Name() {
			continue
		}
		fi, err := e.Info()
		if err != nil {
			continue // another program has deleted it
		}
		files = append(files, rotatedFile{name, at, fi.Size()})
	}
	return files, nil
}

// removeHalfLine cuts off what follows the last end of a line, unless another Exporter has the file. What cannot be opened is
// left as it is.
func removeHalfLine(name string) {
	f, sure, err := claim(name)
	if err != nil {
		return
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || !sure {
		return
	}
	b := make([]byte, 64<<10)
	for end := fi.Size(); end > 0; {
		start := max(0, end-int64(len(b)))
		n, err := f.ReadAt(b[:end-start], start)
		if err != nil && err != io.EOF {
			return
		}
		if i := bytes.LastIndexByte(b[:n], '\n'); i >= 0 || start == 0 {
			if size := start + int64(i) + 1; size < fi.Size() {
				f.Truncate(size)
			}
			return
		}
		end = start
	}
}
