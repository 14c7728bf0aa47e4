package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// newWork returns work on a folder, to be freed by the caller.
func newWork(t *testing.T, dir string, mem *alloctrace.Proxy) *work {
	t.Helper()
	in, err := openFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &work{in: in, mem: mem, show: newProgress(new(bytes.Buffer))}
}

// TestIndexModel builds an index with several goroutines and compares all of it
// with the model.
func TestIndexModel(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	dir := writeCorpus(t)
	model := readModel(t, dir)
	mem, _ := newMemory(t)
	w := newWork(t, dir, mem)
	if err := errors.Join(w.scan(t.Context(), mem), w.build(t.Context(), mem)); err != nil {
		t.Fatal(err)
	}
	if len(w.index.parts) != 4 {
		t.Errorf("%d parts, want one for each of 4 cores", len(w.index.parts))
	}
	if got := w.index.size(); got != model.size {
		t.Errorf("the index holds %+v, want %+v", got, model.size)
	}
	name := func(file int) string { return w.files.at(file) }
	for word, want := range model.postings {
		var got []posting
		for _, p := range w.index.parts {
			got = append(got, p.all(word, name)...)
		}
		slices.SortFunc(got, comparePostings)
		slices.SortFunc(want, comparePostings)
		if !slices.Equal(got, want) {
			t.Errorf("%q is at %v, want %v", word, got, want)
		}
		if n := w.index.occurrences(word); n != len(want) {
			t.Errorf("%q occurs %d times, want %d", word, n, len(want))
		}
	}
	if n, places := w.index.occurrences("absent"), w.index.first("absent", 3); n != 0 || len(places) != 0 {
		t.Errorf("a word that is not there occurs %d times, at %v", n, places)
	}
	if err := w.free(t.Context(), mem); err != nil {
		t.Error(err)
	}
}

// all returns all postings of a word.
func (p *part) all(word string, name func(int) string) []posting {
	var postings []posting
	if l := p.words[word]; l != nil {
		for number := range l.lines(&p.postings) {
			at := p.place(int(number))
			postings = append(postings, posting{name(at.file), at.line})
		}
	}
	return postings
}

func comparePostings(a, b posting) int {
	if c := strings.Compare(a.file, b.file); c != 0 {
		return c
	}
	return a.line - b.line
}

// FuzzPart indexes text of any bytes, cut into files at each form feed.
func FuzzPart(f *testing.F) {
	f.Add([]byte("one two\nTwo one\r\n\n\ftwo"))
	f.Add([]byte("ä\xff\xc3 2x x2 _ \x00 日本\f\f\n"))
	f.Add(bytes.Repeat([]byte("a b\n"), 3000))
	f.Add(bytes.Repeat([]byte("w"), 200))
	f.Fuzz(func(t *testing.T, text []byte) {
		mem, _ := newMemory(t)
		p := newPart(mem)
		m := &model{postings: make(map[string][]posting)}
		for i, file := range bytes.Split(text, []byte("\f")) {
			m.add(fmt.Sprint(i), file)
			if err := p.add(i, file); err != nil {
				t.Fatal(err)
			}
		}
		if got := (&index{parts: []*part{p}}).size(); got != m.size {
			t.Errorf("the part holds %+v, want %+v", got, m.size)
		}
		for word, want := range m.postings {
			if got := p.all(word, func(i int) string { return fmt.Sprint(i) }); !slices.Equal(got, want) {
				t.Errorf("%q is at %v, want %v", word, got, want)
			}
			if first := p.first(word, 1); len(first) != 1 || first[0].line != want[0].line || fmt.Sprint(first[0].file) != want[0].file {
				t.Errorf("%q is first at %v, want %v", word, first, want[0])
			}
		}
		if err := p.free(mem); err != nil {
			t.Error(err)
		}
	})
}

// TestOutOfMemory lets each operation of the work fail once: the error comes
// back, and what was allocated until then is freed.
func TestOutOfMemory(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "a.txt", strings.Repeat("all the words of this line and more\n", 3000))
	writeFile(t, dir, "b.txt", strings.Repeat("\n", 2000))
	failed := 0
	for n := int64(0); ; n++ {
		mem, inner := newMemory(t)
		inner.left.Store(n)
		w := newWork(t, dir, mem)
		err := w.run(t.Context(), mem, []string{"words"}, new(report))
		if err := w.free(t.Context(), mem); err != nil {
			t.Error(err)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, blockalloc.ErrOutOfMemory) {
			t.Fatalf("out of memory after %d operations: error %v", n, err)
		}
		failed++
	}
	if failed < 10 {
		t.Errorf("only %d operations failed: too few to test anything", failed)
	}
}

// TestWrongIndex: a line that lacks the word, for the file was changed, is an
// error, and so is a file that is gone.
func TestWrongIndex(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "a.txt", "nothing\nhere is a needle\n")
	mem, _ := newMemory(t)
	w := newWork(t, dir, mem)
	if err := errors.Join(w.scan(t.Context(), mem), w.build(t.Context(), mem)); err != nil {
		t.Fatal(err)
	}
	answers, err := w.query(t.Context(), mem, []string{"needle"})
	if err != nil || len(answers) != 1 || answers[0].First[0] != (citation{"a.txt", 2, "here is a needle"}) {
		t.Errorf("answers are %+v, %v", answers, err)
	}
	writeFile(t, dir, "a.txt", "nothing\nhere is a needles\n")
	if _, err := w.query(t.Context(), mem, []string{"needle"}); err == nil || !strings.Contains(err.Error(), `"needle" is not on line 2 of a.txt`) {
		t.Errorf("a changed file: error %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "a.txt")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.query(t.Context(), mem, []string{"needle"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is gone: error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.query(ctx, mem, []string{"needle"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: error %v", err)
	}
	if err := w.free(t.Context(), mem); err != nil {
		t.Error(err)
	}
}
