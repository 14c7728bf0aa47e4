package vm

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

var charNames = map[string]rune{
	"alarm": 7, "backspace": 8, "delete": 127, "escape": 27, "newline": '\n',
	"null": 0, "return": '\r', "space": ' ', "tab": '\t',
}

func (r *reader) char() (any, error) {
	first := r.next()
	if first == eof {
		return nil, r.incomplete("a character")
	}
	if c := r.peek(); delimits(c) {
		return char(first), nil
	}
	word := string(first) + r.word()
	if c, size := utf8.DecodeRuneInString(word); size == len(word) {
		return char(c), nil
	}
	if c, ok := charNames[word]; ok {
		return char(c), nil
	}
	if word[0] == 'x' {
		if c, err := strconv.ParseUint(word[1:], 16, 32); err == nil && validChar(c) {
			return char(c), nil
		}
	}
	return nil, r.fail("unknown character #\\%s", word)
}

func validChar(c uint64) bool { return c <= unicode.MaxRune && (c < 0xd800 || c > 0xdfff) }

// text reads a string or |symbol| up to its end.
func (r *reader) text(end rune) (string, error) {
	var b strings.Builder
	for {
		c := r.next()
		switch c {
		case eof:
			return "", r.incomplete("a string or |symbol|")
		case end:
			return b.String(), nil
		case '\\':
			if err := r.escape(&b); err != nil {
				return "", err
			}
		default:
			b.WriteRune(c)
		}
	}
}

func (r *reader) escape(b *strings.Builder) error {
	switch c := r.next(); c {
	case eof:
		return r.incomplete("a string or |symbol|")
	case 'a':
		b.WriteByte(7)
	case 'b':
		b.WriteByte(8)
	case 't':
		b.WriteByte('\t')
	case 'n':
		b.WriteByte('\n')
	case 'r':
		b.WriteByte('\r')
	case '"', '\\', '|':
		b.WriteRune(c)
	case 'x', 'X':
		var hex strings.Builder
		for c = r.next(); c != ';' && c != eof && hex.Len() < 9; c = r.next() {
			hex.WriteRune(c)
		}
		n, err := strconv.ParseUint(hex.String(), 16, 32)
		if err != nil || c != ';' || !validChar(n) {
			return r.fail(`bad escape \x%s`, hex.String())
		}
		b.WriteRune(rune(n))
	default: // the end of a line, with spaces around it, stands for nothing
		for c == ' ' || c == '\t' {
			c = r.next()
		}
		if c != '\n' {
			return r.fail(`unknown escape \%c`, c)
		}
		for c = r.next(); c == ' ' || c == '\t'; c = r.next() {
		}
		r.back(c)
	}
	return nil
}
