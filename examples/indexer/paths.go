package main

import (
	"errors"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
)

// paths is a list of file names outside the Go heap.
type paths struct {
	text *typed.Buffer      // all of them, one after the other
	ends *typed.Vec[uint64] // where in text each ends
}

func newPaths(mem blockalloc.Allocator) *paths {
	return &paths{typed.NewBuffer(mem), typed.NewVec[uint64](mem)}
}

func (p *paths) add(path string) error {
	if _, err := p.text.WriteString(path); err != nil {
		return err
	}
	return p.ends.Append(uint64(p.text.Len()))
}

func (p *paths) len() int { return p.ends.Len() }

func (p *paths) at(i int) string {
	start := uint64(0)
	if i > 0 {
		start = p.ends.At(i - 1)
	}
	return string(p.text.Bytes()[start:p.ends.At(i)])
}

func (p *paths) free(mem blockalloc.Allocator) error {
	p.text.SetAllocator(mem)
	p.ends.SetAllocator(mem)
	return errors.Join(p.text.Free(), p.ends.Free())
}
