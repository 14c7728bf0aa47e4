package main

import (
	"slices"
	"strings"
	"testing"
)

func TestWords(t *testing.T) {
	for text, want := range map[string][]string{
		"":                           nil,
		"func Main() { x2 := 0x2F }": {"func", "main", "x2"},
		"_a __ 9lives a9":            {"_a", "__", "a9"},
		"ÄRGER Straße":               {"Ärger", "straße"},
		"a\xffb 日本語、語":               {"a", "b", "日本語", "語"},
		strings.Repeat("x", maxWord) + " " + strings.Repeat("y", maxWord+1): {strings.Repeat("x", maxWord)},
	} {
		folded := []byte(text)
		fold(folded)
		var got []string
		for word := range words(folded) {
			got = append(got, string(word))
		}
		if !slices.Equal(got, want) {
			t.Errorf("words of %q are %q, want %q", text, got, want)
		}
	}
	for word := range words([]byte("one two")) { // and a loop may end early
		if string(word) != "one" {
			t.Fatalf("first word is %q", word)
		}
		break
	}
}
