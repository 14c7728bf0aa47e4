package text_test

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/alloctrace/alloctrace/internal/text"
	"github.com/alloctrace/alloctrace/internal/text/texttest"
)

func TestValid(t *testing.T) {
	for _, test := range []struct {
		s     string
		limit int
		want  string
	}{
		{"", 3, ""},
		{"abc", 3, "abc"},
		{"abcd", 3, "…"},
		{"abcd", 4, "abcd"},
		{"abcdefg", 6, "abc…"},
		{"語語", 6, "語語"},
		{"語語語", 6, "語…"},
		{"語語語", 8, "語…"},
		{"a\xff", 4, "a\ufffd"},
		{"a\xff\xfe", 7, "a\ufffd\ufffd"},
		{"a\xff\xfe", 6, "a…"},
		{"a\xff\xfe", 4, "a…"},
		{"\xed\xa0\x80", 9, "\ufffd\ufffd\ufffd"},
		{"日\xe8\xaa", 100, "日\ufffd\ufffd"},
		{"a\ufffdb", 100, "a\ufffdb"},
		{"a\x00\n", 100, "a\x00\n"},
	} {
		if got := text.Valid(test.s, test.limit); got != test.want {
			t.Errorf("Valid(%q, %d) = %q, want %q", test.s, test.limit, got, test.want)
		}
	}
}

func TestLine(t *testing.T) {
	for _, test := range []struct {
		s     string
		limit int
		want  string
	}{
		{"abc", 3, "abc"},
		{"a\nb\r\x00\u0085\u2028", 100, `a\nb\r\x00\u0085\u2028`},
		{"'\n'", 100, `'\n'`},
		{"\n\xff", 100, "\\n\ufffd"},
		{"a\n\n\n", 7, `a\n\n\n`},
		{"a\n\n\n", 6, `a\n…`},
	} {
		if got := text.Line(test.s, test.limit); got != test.want {
			t.Errorf("Line(%q, %d) = %q, want %q", test.s, test.limit, got, test.want)
		}
	}
}

func TestUgly(t *testing.T) {
	for _, u := range texttest.Table() {
		for _, limit := range []int{len(text.Mark), 10, text.MaxName, text.MaxText} {
			check(t, u.Case, u.Text, limit)
		}
	}
}

func FuzzText(f *testing.F) {
	for _, u := range texttest.Table() {
		if len(u.Text) < 1000 {
			f.Add(u.Text, uint16(20))
		}
	}
	f.Fuzz(func(t *testing.T, s string, limit uint16) {
		check(t, "", s, max(int(limit), len(text.Mark)))
	})
}

// check checks what Valid and Line promise.
func check(t *testing.T, name, s string, limit int) {
	t.Helper()
	valid, line := text.Valid(s, limit), text.Line(s, limit)
	for _, got := range []string{valid, line} {
		if len(got) > limit || !utf8.ValidString(got) {
			t.Errorf("%s: %q of %d bytes, want valid UTF-8 of at most %d", name, got, len(got), limit)
		}
	}
	if strings.ContainsAny(line, "\n\r\v\f\x00\u0085\u2028\u2029") {
		t.Errorf("%s: Line returns %q, want one line", name, line)
	}
	if text.Valid(valid, limit) != valid || text.Line(line, limit) != line {
		t.Errorf("%s: a second call changes the result", name)
	}
	all := string([]rune(s))
	if len(all) <= limit && valid != all {
		t.Errorf("%s: Valid returns %q, want %q", name, valid, all)
	}
	if len(all) > limit {
		kept, cut := strings.CutSuffix(valid, text.Mark)
		rest := strings.TrimPrefix(all, kept)
		_, size := utf8.DecodeRuneInString(rest)
		if !cut || len(rest) == len(all) && kept != "" || len(kept)+size <= limit-len(text.Mark) {
			t.Errorf("%s: Valid returns %q, want as many runes of the beginning as fit, and the mark", name, valid)
		}
	}
}

func TestGoodStringsAllocateNothing(t *testing.T) {
	good := strings.Repeat("cache, 語 ", 50)
	var got string
	if n := testing.AllocsPerRun(100, func() { got = text.Name(good); got = text.Text(got); got = text.Line(got, text.MaxName) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
	if got != good {
		t.Errorf("%q became %q", good, got)
	}
}

func TestKeys(t *testing.T) {
	long := strings.Repeat("k", text.MaxName)
	for _, test := range []struct{ keys, want []string }{
		{nil, nil},
		{[]string{"a", "a"}, []string{"a", "a"}},
		{[]string{"a\xff", "a\xfe", "a\ufffd", "a\ufffd#2"}, []string{"a\ufffd", "a\ufffd#2", "a\ufffd#3", "a\ufffd#2#2"}},
		{[]string{long, long + "a", long + "b"}, []string{long, long[3:] + "…", long[3:] + "…#2"}},
	} {
		got := slices.Clone(test.keys)
		text.Keys(len(got), func(i int) *string { return &got[i] })
		if !slices.Equal(got, test.want) {
			t.Errorf("%q became %q, want %q", test.keys, got, test.want)
		}
	}
	keys := []string{"a", "b€"}
	if n := testing.AllocsPerRun(100, func() { text.Keys(len(keys), func(i int) *string { return &keys[i] }) }); n != 0 {
		t.Errorf("%v allocations for good keys, want 0", n)
	}
}

func TestTableIsUnique(t *testing.T) {
	cases, texts := make(map[string]bool), make(map[string]bool)
	for _, u := range texttest.Table() {
		if cases[u.Case] || texts[u.Text] {
			t.Errorf("%s stands twice", u.Case)
		}
		cases[u.Case], texts[u.Text] = true, true
	}
}

func BenchmarkName(b *testing.B) {
	good := strings.Repeat("cache", 4)
	for b.Loop() {
		text.Name(good)
	}
}
