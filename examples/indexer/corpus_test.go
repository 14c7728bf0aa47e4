package main

import (
	"bytes"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func writeFile(t testing.TB, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

// writeCorpus makes a folder of text files with all that can go wrong in them,
// and some files that are to be left out. It returns its path without links.
func writeCorpus(t testing.TB) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	vocabulary := []string{
		"the", "the", "the", "mmap", "Mmap", "MMAP", "mmap2", "2mmap", "_mmap", "mmapped", "café", "cafés", "Größe", "größe",
		"0x1F", "é", "naïve", "日本語", "x", strings.Repeat("long", 16), strings.Repeat("long", 16) + "s", "\xff\xfe", "٣", "a٣",
	}
	separators := []string{" ", "\t", ".", ", ", "—", "(", ")", "\"", "  "}
	for i := range 60 {
		var text strings.Builder
		for range random.IntN(200) {
			for range random.IntN(12) {
				text.WriteString(vocabulary[random.IntN(len(vocabulary))])
				text.WriteString(separators[random.IntN(len(separators))])
			}
			text.WriteString([]string{"\n", "\r\n", "\n\n"}[random.IntN(3)])
		}
		text.WriteString("no newline at the end: mmap")
		writeFile(t, dir, []string{"", "a/", "a/b/", "z/"}[i%4]+string(rune('a'+i%26))+strings.Repeat("x", i/26)+".txt", text.String())
	}
	writeFile(t, dir, "empty.txt", "")
	writeFile(t, dir, "binary.bin", "mmap\x00mmap\n")
	writeFile(t, dir, ".hidden", "mmap\n")
	writeFile(t, dir, ".git/objects", "mmap\n")
	return dir
}

// A posting is where a word occurs once.
type posting struct {
	file string
	line int
}

// A model is what an index ought to be, made the slow and simple way.
type model struct {
	size     size
	postings map[string][]posting
}

var wordPattern = regexp.MustCompile(`[\p{L}\p{Nd}_]+`)

func (m *model) add(file string, text []byte) {
	m.size.Files++
	m.size.Bytes += int64(len(text))
	line := 0
	for raw := range bytes.Lines(text) {
		line++
		for _, word := range wordPattern.FindAllString(lower(string(raw)), -1) {
			if first, _ := utf8.DecodeRuneInString(word); !unicode.IsDigit(first) && len(word) <= 64 {
				m.postings[word] = append(m.postings[word], posting{file, line})
				m.size.Occurrences++
			}
		}
	}
	m.size.Lines += int64(line)
	m.size.Words = int64(len(m.postings))
}

func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf {
			return unicode.ToLower(r)
		}
		return r
	}, s)
}

func readModel(t testing.TB, dir string) *model {
	m := &model{postings: make(map[string][]posting)}
	eachFile(t, dir, "", func(file string, text []byte) {
		if len(text) == 0 || bytes.Contains(text, []byte{0}) {
			m.size.Skipped++
			return
		}
		m.add(file, text)
	})
	return m
}

func eachFile(t testing.TB, dir, ext string, visit func(file string, text []byte)) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path != "." && strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || !strings.HasSuffix(path, ext) || strings.HasPrefix(d.Name(), "indexer.") {
			return nil
		}
		text, err := os.ReadFile(filepath.Join(dir, path))
		visit(filepath.FromSlash(path), text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// naiveAnswers greps the files for each word, as a search without an index does.
func naiveAnswers(t *testing.T, dir, ext string, wanted ...string) []answer {
	t.Helper()
	answers := make([]answer, len(wanted))
	for i, word := range wanted {
		answers[i] = answer{Word: word, First: []citation{}}
	}
	eachFile(t, dir, ext, func(file string, text []byte) {
		if bytes.IndexByte(text, 0) >= 0 {
			return
		}
		folded := bytes.Clone(text)
		for i, c := range folded {
			if 'A' <= c && c <= 'Z' {
				folded[i] = c + 'a' - 'A'
			}
		}
		for i := range answers {
			grep(&answers[i], file, text, folded)
		}
	})
	return answers
}

func grep(a *answer, file string, text, folded []byte) {
	for from := 0; ; {
		i := bytes.Index(folded[from:], []byte(a.Word))
		if i < 0 {
			return
		}
		start, end := from+i, from+i+len(a.Word)
		from = start + 1
		before, _ := utf8.DecodeLastRune(folded[:start])
		after, _ := utf8.DecodeRune(folded[end:])
		if inWord(before) || inWord(after) {
			continue
		}
		a.Occurrences++
		line := 1 + bytes.Count(text[:start], []byte("\n"))
		if n := len(a.First); n == maxCitations || n > 0 && a.First[n-1].File == file && a.First[n-1].Line == line {
			continue
		}
		whole := strings.Split(string(text), "\n")[line-1]
		a.First = append(a.First, citation{file, line, strings.TrimRight(whole, "\r")})
	}
}

func inWord(r rune) bool {
	return r == '_' || r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r))
}

func wantAnswers(t *testing.T, got, want []answer) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d answers, want %d", len(got), len(want))
	}
	for i := range want {
		for j := range want[i].First {
			c := &want[i].First[j]
			c.Text = string([]rune(c.Text)) // U+FFFD for each byte that is no UTF-8, as in JSON
		}
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("the answer is\n%+v\nwant\n%+v", got[i], want[i])
		}
	}
}
