package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
	"github.com/alloctrace/alloctrace/tracer"
)

// maxParts bounds how many goroutines build an index.
const maxParts = 8

// An index says where in a folder's files each word is.
type index struct {
	parts   []*part
	files   atomic.Int64 // that were looked at so far
	skipped atomic.Int64 // of these, that are no text or could not be read
}

// build indexes files with one goroutine a core. Each has a region of its own,
// so that the trace shows what each took, at the same time. The index is to be
// freed even if build fails.
func (x *index) build(ctx context.Context, mem blockalloc.Allocator, in folder, files *paths) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for i := range min(runtime.GOMAXPROCS(0), maxParts) {
		ctx, region := tracer.Start(ctx, fmt.Sprintf("part %d", i+1), mem)
		p := newPart(region.Allocator())
		x.parts = append(x.parts, p)
		wg.Go(func() {
			defer region.End()
			if err := x.fill(ctx, p, region.Allocator(), in, files, &next); err != nil {
				cancel(err) // ends the others as well
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// fill indexes files until next is behind the last one.
func (x *index) fill(ctx context.Context, p *part, mem blockalloc.Allocator, in folder, files *paths, next *atomic.Int64) (err error) {
	buffer := typed.NewVec[byte](mem)
	defer func() { err = errors.Join(err, buffer.Free()) }()
	for ctx.Err() == nil {
		i := int(next.Add(1) - 1)
		if i >= files.len() {
			return nil
		}
		err := readFile(filepath.Join(in.dir, files.at(i)), buffer)
		if pathError := (*fs.PathError)(nil); errors.As(err, &pathError) || err == nil && !isText(buffer.Slice()) {
			x.skipped.Add(1)
		} else if err != nil {
			return err
		} else if err := p.add(i, buffer.Slice()); err != nil {
			return err
		}
		x.files.Add(1)
	}
	return nil
}

// first returns the first n places of a word in the order of the files.
func (x *index) first(word string, n int) []place {
	var places []place
	for _, p := range x.parts {
		places = append(places, p.first(word, n)...)
	}
	slices.SortFunc(places, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.line, b.line))
	})
	return places[:min(n, len(places))]
}

// occurrences is how often a word occurs.
func (x *index) occurrences(word string) int {
	n := 0
	for _, p := range x.parts {
		if l := p.words[word]; l != nil {
			n += l.len
		}
	}
	return n
}

// A size says how much an index holds.
type size struct {
	Files       int64 `json:"files"`
	Skipped     int64 `json:"skipped_files"` // no text, or not readable
	Lines       int64 `json:"lines"`
	Bytes       int64 `json:"bytes"` // of text
	Words       int64 `json:"words"` // different ones
	Occurrences int64 `json:"occurrences"`
}

func (x *index) size() size {
	s := size{Skipped: x.skipped.Load()}
	for i, p := range x.parts {
		s.Files += int64(p.sources.Len())
		s.Lines += int64(p.lines.Len() - p.sources.Len())
		s.Bytes += p.bytes
		for word, l := range p.words {
			s.Occurrences += int64(l.len)
			if !slices.ContainsFunc(x.parts[:i], func(q *part) bool { return q.words[word] != nil }) {
				s.Words++
			}
		}
	}
	return s
}

// forget loses one block of postings. What is left can only be freed.
func (x *index) forget() error {
	for _, p := range x.parts {
		if p.postings.forget() {
			return nil
		}
	}
	return errors.New("no word was indexed, so there is no block to forget: use -leak with a folder that has some")
}

func (x *index) free(mem blockalloc.Allocator) error {
	var errs []error
	for _, p := range x.parts {
		errs = append(errs, p.free(mem))
	}
	return errors.Join(errs...)
}
