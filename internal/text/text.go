// Package text makes strings fit to leave the process: names, error texts and labels, which
// may be any bytes, become valid UTF-8 of bounded length. A single string that is not UTF-8
// makes a receiver of OTLP refuse the whole batch and Prometheus the whole scrape.
package text

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	MaxName = 1 << 10  // bytes of a name or a label
	MaxText = 16 << 10 // bytes of a longer text, such as that of an error or a stack
)

// Mark ends a string that was cut.
const Mark = "…"

// Name returns Valid(s, MaxName).
func Name(s string) string { return Valid(s, MaxName) }

// Text returns Valid(s, MaxText).
func Text(s string) string { return Valid(s, MaxText) }

// Valid returns s as valid UTF-8 of at most limit bytes. Each byte that is part of no rune
// becomes U+FFFD, as in encoding/json. A result that would be longer ends after the last rune
// that leaves room for [Mark], and Mark. The limit must be at least len(Mark). Different
// strings can become equal.
//
// A good string is returned as it is. That costs a look at each byte and no allocation. Any
// other is copied, so that a short string does not keep a long one in memory.
func Valid(s string, limit int) string {
	if len(s) <= limit && utf8.ValidString(s) {
		return s
	}
	return rewrite(s, limit, utf8.AppendRune)
}

// Line is Valid for texts whose reader takes lines apart: control characters and the
// separators U+2028 and U+2029 become escapes of Go, such as \n, \x00 and \u2028. The
// result has no line break. Cost and allocations are those of Valid.
func Line(s string, limit int) string {
	if len(s) <= limit && utf8.ValidString(s) && !strings.ContainsFunc(s, breaksLine) {
		return s
	}
	return rewrite(s, limit, func(b []byte, r rune) []byte {
		if !breaksLine(r) {
			return utf8.AppendRune(b, r)
		}
		return append(b, strings.Trim(strconv.QuoteRuneToASCII(r), "'")...)
	})
}

func breaksLine(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }

// rewrite appends the runes of s by write until limit is reached.
func rewrite(s string, limit int, write func([]byte, rune) []byte) string {
	b := make([]byte, 0, min(len(s)+len(s)/2, limit)+utf8.UTFMax)
	end := 0 // of the last rune after which Mark fits
	for _, r := range s {
		if b = write(b, r); len(b) > limit {
			return string(append(b[:end], Mark...))
		}
		if len(b) <= limit-len(Mark) {
			end = len(b)
		}
	}
	return string(b)
}

// Keys makes the n keys that key points to names, as Name does. Those that become equal get a
// number, as in "key#2", for a receiver may keep only one of equal keys. Keys that are good are
// not written, may be equal, and cost no allocation.
func Keys(n int, key func(i int) *string) {
	changed := false
	for i := range n {
		k := key(i)
		if name := Name(*k); name != *k {
			*k, changed = name, true
		}
	}
	if !changed {
		return
	}
	seen := make(map[string]bool, n)
	for i := range n {
		k := key(i)
		first := *k
		for n := 2; seen[*k]; n++ {
			*k = first + "#" + strconv.Itoa(n)
		}
		seen[*k] = true
	}
}
