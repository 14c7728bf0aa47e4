//go:build !linux

package pagemap

import (
	"errors"
	"iter"
)

// A File does not exist here.
type File struct{}

// Open returns errors.ErrUnsupported.
func Open() (*File, error) { return nil, errors.ErrUnsupported }

// Close does nothing.
func (f *File) Close() error { return nil }

// Err returns errors.ErrUnsupported.
func (f *File) Err() error { return errors.ErrUnsupported }

// Words yields nothing.
func (f *File) Words(start, end uintptr) iter.Seq2[uintptr, Word] {
	return func(func(uintptr, Word) bool) {}
}
