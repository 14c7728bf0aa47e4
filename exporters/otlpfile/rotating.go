package otlpfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// A rotatingFile is an output of many files, of which it writes the newest. The Exporter's lock guards it.
type rotatingFile struct {
	output // the file that is being written
	path   string
	limits Rotation
	begin  func(name string) (output, error)

	name     string
	since    time.Time // of the first line
	spoiled  bool      // it ends in half a line
	others   int64     // bytes of all other files, when they were last listed
	closeErr error     // the first

	files, deletedFiles, deletedBytes int64
}

// Write writes all of b to one file, or nothing.
func (r *rotatingFile) Write(b []byte) (int, error) {
	if err := r.prepare(int64(len(b))); err != nil {
		return 0, err
	}
	n, err := r.output.Write(b)
	if err != nil && n > 0 {
		if terr := takeBack(r.output, int64(n)); terr != nil {
			r.spoiled = true
			err = fmt.Errorf("%s ends in half a line that could not be taken back (%w) after: %w", r.name, terr, err)
		}
		n = 0
	}
	return n, err
}

// prepare makes sure that n bytes may be written to the file, or to a new one.
func (r *rotatingFile) prepare(n int64) error {
	if most := r.limits.MaxTotalBytes; most > 0 && n > most {
		return fmt.Errorf("the spans have %d bytes, and all files together may have MaxTotalBytes=%d; raise it, or export fewer spans at once", n, most)
	}
	now := time.Now()
	size, there := sizeAt(r, r.name)
	if !there || r.spoiled || size > 0 && (r.limits.MaxFileBytes > 0 && n > r.limits.MaxFileBytes-size ||
		r.limits.MaxFileAge > 0 && now.Sub(r.since) >= r.limits.MaxFileAge) {
		if err := r.next(); err != nil {
			return err
		}
		size = 0
	}
	if size == 0 {
		r.since = now
	}
	return r.makeRoom(size + n)
}

// sizeAt returns the size of a file, and whether it is still there under its name.
func sizeAt(f interface{ Stat() (os.FileInfo, error) }, name string) (size int64, there bool) {
	own, err := f.Stat()
	if err != nil {
		return 0, false
	}
	found, err := os.Stat(name)
	return own.Size(), err == nil && os.SameFile(own, found)
}

// next begins a new file, and then ends the one before. If it fails, that one stays.
func (r *rotatingFile) next() error {
	files, err := filesOf(r.path)
	if err != nil {
		return fmt.Errorf("the folder cannot be read (%w)", bare(err))
	}
	// The new file's name is the last, whatever has become of the clock.
	at := time.Now().UTC()
	if len(files) > 0 {
		if newest := files[len(files)-1].at; !at.After(newest) {
			at = newest.Add(1)
		}
	}
	name := nameOf(r.path, at)
	f, err := r.begin(name)
	for range 100 {
		if !errors.Is(err, fs.ErrExist) {
			break
		}
		at = at.Add(1) // another Exporter was faster
		name = nameOf(r.path, at)
		f, err = r.begin(name)
	}
	if err != nil {
		return fmt.Errorf("a new file cannot be written (%w); give a path in a folder that exists and that you may write to", bare(err))
	}
	if r.output != nil {
		if err := r.output.Close(); r.closeErr == nil {
			r.closeErr = err
		}
	}
	r.output, r.name, r.spoiled = f, name, false
	r.files++
	r.others = 0
	for _, f := range files {
		r.others += f.size
	}
	return nil
}

// makeRoom deletes the oldest files until a file of that size fits beside the others.
func (r *rotatingFile) makeRoom(size int64) error {
	most := r.limits.MaxTotalBytes
	if most == 0 || size <= most-r.others {
		return nil
	}
	files, err := filesOf(r.path)
	if err != nil {
		return fmt.Errorf("the folder cannot be read (%w)", bare(err))
	}
	r.others = 0
	for _, f := range files {
		if f.name != r.name {
			r.others += f.size
		}
	}
	var reason error
	for _, f := range files {
		if f.name == r.name || size <= most-r.others {
			continue
		}
		if reason = deleteUnused(f.name); reason == nil {
			r.others -= f.size
			r.deletedFiles++
			r.deletedBytes += f.size
		}
	}
	if size <= most-r.others {
		return nil
	}
	return fmt.Errorf("files beside %s have %d bytes, cannot be deleted (newest reason: %w), and leave no room below MaxTotalBytes=%d; "+
		"use another path for each program", r.path, r.others, bare(reason), most)
}

// Close closes the file, and removes it if it is empty.
func (r *rotatingFile) Close() error {
	size, there := sizeAt(r, r.name)
	err := errors.Join(r.closeErr, r.output.Close())
	if size == 0 && there {
		err = errors.Join(err, os.Remove(r.name))
	}
	return err
}

// begin makes a file that was not there, and keeps other Exporters from deleting it.
func begin(name string) (output, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND|os.O_EXCL, 0o666)
	if err != nil {
		return nil, err
	}
	// Between the two, another Exporter may have deleted the empty file.
	err = lock(f)
	if err == nil {
		_, there := sizeAt(f, name)
		if !there {
			err = errInUse
		}
	}
	if err != nil {
		f.Close()
		return nil, fs.ErrExist // so that another name is tried
	}
	return appendFile{f}, nil
}

var errInUse = errors.New("another Exporter is writing the file")

// deleteUnused deletes a file that no Exporter writes.
func deleteUnused(name string) error {
	f, _, err := claim(name)
	if err == nil {
		defer f.Close()
		if removeWhileOpen {
			return os.Remove(name)
		}
		f.Close()
		err = os.Remove(name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
