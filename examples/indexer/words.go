package main

import (
	"iter"
	"unicode"
	"unicode/utf8"
)

// maxWord is the length in bytes of the longest word that is indexed. What is
// longer is most often embedded data.
const maxWord = 64

// fold turns the letters A to Z of text into lower case, in place. Other letters
// stay what they are.
func fold(text []byte) {
	for i, c := range text {
		if 'A' <= c && c <= 'Z' {
			text[i] = c + 'a' - 'A'
		}
	}
}

// words returns the words of text: letters, digits and underscores, of which the
// first is no digit, as in an identifier of Go. They are parts of text.
func words(text []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for i := 0; i < len(text); {
			n, size := kindOf(text[i:])
			if n == other {
				i += size
				continue
			}
			start, first := i, n
			for i < len(text) {
				n, size = kindOf(text[i:])
				if n == other {
					break
				}
				i += size
			}
			if first == letter && i-start <= maxWord && !yield(text[start:i]) {
				return
			}
		}
	}
}

// A kind is what a character means to a word.
type kind byte

const (
	other  kind = iota // separates words
	letter             // or underscore
	digit
)

var asciiKinds = func() (kinds [utf8.RuneSelf]kind) {
	for c := range kinds {
		kinds[c] = runeKind(rune(c))
	}
	return kinds
}()

func runeKind(r rune) kind {
	switch {
	case r == '_' || unicode.IsLetter(r):
		return letter
	case unicode.IsDigit(r):
		return digit
	}
	return other
}

// kindOf returns the kind of the first character of text and its size in bytes.
func kindOf(text []byte) (kind, int) {
	if c := text[0]; c < utf8.RuneSelf {
		return asciiKinds[c], 1
	}
	r, size := utf8.DecodeRune(text)
	return runeKind(r), size
}
