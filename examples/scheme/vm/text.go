package vm

import (
	"strings"
	"unicode"
)

// texts makes a primitive that compares strings or characters, after a mapping if it is not nil.
func texts(name string, of func(m *Machine, v Value) (string, bool), want string, mapped func(string) string, holds func(order int) bool) primitive {
	return primitive{name: name, min: 1, max: -1, fn: func(m *Machine, a []Value) (Value, error) {
		last, all := "", true
		for i, v := range a {
			s, ok := of(m, v)
			if !ok {
				return 0, m.wrong(name, want, v)
			}
			if mapped != nil {
				s = mapped(s)
			}
			all = all && (i == 0 || holds(strings.Compare(last, s)))
			last = s
		}
		return boolean(all), nil
	}}
}

func fold(s string) string { return strings.ToLower(strings.ToUpper(s)) }

// comparisons are the ten comparisons of strings or characters.
func comparisons(name string, of func(m *Machine, v Value) (string, bool), want string) (all []primitive) {
	for sign, holds := range orders {
		all = append(all, texts(name+sign+"?", of, want, nil, holds), texts(name+"-ci"+sign+"?", of, want, fold, holds))
	}
	return all
}

func mapText(name string, f func(string) string) primitive {
	return primitive{name: name, min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) {
		if !m.is(a[0], kindString) {
			return 0, m.wrong(name, "a string", a[0])
		}
		return m.stringValue(f(m.text(a[0])))
	}}
}

func charFunc(name string, f func(c rune) Value) primitive {
	return primitive{name: name, min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) {
		if !isTag(a[0], tagChar) {
			return 0, m.wrong(name, "a character", a[0])
		}
		return f(rune(payload(a[0]))), nil
	}}
}

func init() {
	define(comparisons("string", func(m *Machine, v Value) (string, bool) {
		if !m.is(v, kindString) {
			return "", false
		}
		return m.text(v), true
	}, "a string")...)
	define(comparisons("char", func(m *Machine, v Value) (string, bool) {
		return string(rune(payload(v))), isTag(v, tagChar)
	}, "a character")...)
	define(
		mapText("string-upcase", strings.ToUpper), mapText("string-downcase", strings.ToLower), mapText("string-foldcase", fold),

		charFunc("char->integer", func(c rune) Value { return fixnum(int64(c)) }),
		charFunc("char-upcase", func(c rune) Value { return charValue(unicode.ToUpper(c)) }),
		charFunc("char-downcase", func(c rune) Value { return charValue(unicode.ToLower(c)) }),
		charFunc("char-foldcase", func(c rune) Value { return charValue(unicode.ToLower(unicode.ToUpper(c))) }),
		charFunc("char-alphabetic?", func(c rune) Value { return boolean(unicode.IsLetter(c)) }),
		charFunc("char-numeric?", func(c rune) Value { return boolean(unicode.IsDigit(c)) }),
		charFunc("char-whitespace?", func(c rune) Value { return boolean(unicode.IsSpace(c)) }),
		charFunc("char-upper-case?", func(c rune) Value { return boolean(unicode.IsUpper(c)) }),
		charFunc("char-lower-case?", func(c rune) Value { return boolean(unicode.IsLower(c)) }),
		charFunc("digit-value", func(c rune) Value {
			if !unicode.IsDigit(c) {
				return False
			}
			zero := c // digits of a script follow each other, from 0 to 9
			for unicode.IsDigit(zero-1) && c-zero < 9 {
				zero--
			}
			return fixnum(int64(c - zero))
		}),
		primitive{name: "integer->char", min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) {
			if !isFix(a[0]) || fixOf(a[0]) < 0 || !validChar(uint64(fixOf(a[0]))) {
				return 0, m.wrong("integer->char", "a Unicode scalar value", a[0])
			}
			return charValue(rune(fixOf(a[0]))), nil
		}},
	)
}
