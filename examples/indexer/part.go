package main

import (
	"bytes"
	"errors"
	"sort"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
)

// A part is the index of some of the files, built by one goroutine. The lines of
// all its files are numbered through, so that one number says where a word is.
// But for the words themselves all of it lies outside the Go heap.
type part struct {
	words    map[string]*list
	postings arena
	sources  *typed.Vec[source]
	lines    *typed.Vec[uint32] // by number: where the line starts in its file; behind a file's lines, the file's end
	bytes    int64              // of text
}

// A source is a file in a part.
type source struct {
	file  uint64 // its place in paths
	first uint64 // the number of its first line
}

// A place is a line of a file.
type place struct {
	file       int    // in paths
	line       int    // the first line is 1
	start, end uint32 // offsets in the file
}

func newPart(mem blockalloc.Allocator) *part {
	return &part{
		words:    make(map[string]*list),
		postings: arena{mem: mem},
		sources:  typed.NewVec[source](mem),
		lines:    typed.NewVec[uint32](mem),
	}
}

// add indexes a file of at most maxFile bytes, which it folds in place. Files
// come in ascending order. If it fails, the part can only be freed.
func (p *part) add(file int, text []byte) error {
	if err := p.sources.Append(source{uint64(file), uint64(p.lines.Len())}); err != nil {
		return err
	}
	fold(text)
	for start := 0; start < len(text); {
		end := len(text)
		if i := bytes.IndexByte(text[start:], '\n'); i >= 0 {
			end = start + i + 1
		}
		number := uint64(p.lines.Len())
		if err := p.lines.Append(uint32(start)); err != nil {
			return err
		}
		for word := range words(text[start:end]) {
			if err := p.list(word).add(&p.postings, number); err != nil {
				return err
			}
		}
		start = end
	}
	p.bytes += int64(len(text))
	return p.lines.Append(uint32(len(text)))
}

func (p *part) list(word []byte) *list {
	l := p.words[string(word)] // does not allocate
	if l == nil {
		l = new(list)
		p.words[string(word)] = l
	}
	return l
}

// first returns the first n places of a word, each line once.
func (p *part) first(word string, n int) []place {
	l := p.words[word]
	if l == nil {
		return nil
	}
	var places []place
	last := -1
	for number := range l.lines(&p.postings) {
		if int(number) == last {
			continue
		}
		if len(places) == n {
			break
		}
		last = int(number)
		places = append(places, p.place(last))
	}
	return places
}

func (p *part) place(number int) place {
	next := sort.Search(p.sources.Len(), func(i int) bool { return p.sources.At(i).first > uint64(number) })
	s := p.sources.At(next - 1)
	return place{
		file:  int(s.file),
		line:  number - int(s.first) + 1,
		start: p.lines.At(number),
		end:   p.lines.At(number + 1),
	}
}

// free gives all of it back through mem, another region's allocator than it came from.
func (p *part) free(mem blockalloc.Allocator) error {
	p.sources.SetAllocator(mem)
	p.lines.SetAllocator(mem)
	return errors.Join(p.postings.free(mem), p.sources.Free(), p.lines.Free())
}
