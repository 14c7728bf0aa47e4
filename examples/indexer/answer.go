package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/alloctrace/alloctrace/blockalloc/typed"
)

// An answer says where a word is.
type answer struct {
	Word        string     `json:"word"`
	Occurrences int        `json:"occurrences"`
	First       []citation `json:"first"` // the first lines it is on
}

// A citation is a line of a file, with its text as the file has it.
type citation struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Text string `json:"text"`
}

// maxCitations is how many lines an answer cites.
const maxCitations = 3

// ask looks a word up and reads the lines it is on from their files. A line
// without the word is an error: the index does not say the truth. The buffer is
// for the lines.
func ask(x *index, in folder, files *paths, word string, buffer *typed.Vec[byte]) (answer, error) {
	a := answer{Word: word, Occurrences: x.occurrences(word), First: []citation{}}
	for _, at := range x.first(word, maxCitations) {
		c := citation{File: files.at(at.file), Line: at.line}
		if err := readLine(filepath.Join(in.dir, c.File), at, buffer); err != nil {
			return a, err
		}
		c.Text = string(bytes.TrimRight(buffer.Slice(), "\r\n"))
		fold(buffer.Slice())
		if !slices.ContainsFunc(slices.Collect(words(buffer.Slice())), func(w []byte) bool { return string(w) == word }) {
			return a, fmt.Errorf("the index is wrong, or the file has changed: %q is not on line %d of %s: %q", word, c.Line, c.File, c.Text)
		}
		a.First = append(a.First, c)
	}
	return a, nil
}

func readLine(path string, at place, buffer *typed.Vec[byte]) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return readAt(f, buffer, int64(at.start), int(at.end-at.start))
}
