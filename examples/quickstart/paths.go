package main

import (
	"errors"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// paths is a list of file names outside the Go heap.
type paths struct {
	text table[byte]   // all of them, one after the other
	ends table[uint64] // where in text each ends
}

func newPaths(mem blockalloc.Allocator) *paths {
	return &paths{text: table[byte]{mem: mem}, ends: table[uint64]{mem: mem}}
}

func (p *paths) add(path string) error {
	if err := p.text.add([]byte(path)...); err != nil {
		return err
	}
	return p.ends.add(uint64(len(p.text.items)))
}

func (p *paths) len() int { return len(p.ends.items) }

func (p *paths) at(i int) string {
	start := uint64(0)
	if i > 0 {
		start = p.ends.items[i-1]
	}
	return string(p.text.items[start:p.ends.items[i]])
}

func (p *paths) free(mem blockalloc.Allocator) error {
	return errors.Join(p.text.free(mem), p.ends.free(mem))
}
