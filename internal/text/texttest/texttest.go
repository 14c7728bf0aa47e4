// Package texttest has the ugly names that each exporter, log and writer is tested with.
package texttest

import "strings"

// An Ugly is a string that somebody will name an allocator by one day.
type Ugly struct {
	Case string // what it is: plain and unique, for the name of a subtest
	Text string // any bytes
}

// Table returns the ugly names. Texts are different from each other, but "same, 1" to "same, 3"
// become equal once they are valid UTF-8.
func Table() []Ugly {
	return []Ugly{
		{"empty", ""},
		{"space", " "},
		{"spaces around", "  a  "},
		{"quotes", "\"a\" 'b' `c`"},
		{"backslashes", `\a\\b\n\x00\u0000\`},
		{"newline", "a\nb"},
		{"newlines around", "\na\n"},
		{"carriage return", "a\r\nb\r"},
		{"tab", "\ta\tb"},
		{"NUL", "a\x00b"},
		{"only NUL", "\x00"},
		{"controls", "\a\b\v\f\x01\x1b[31mred\x1b[0m\x7f\u0080\u0085\u009b"},
		{"line separators", "a\u2028b\u2029c"},
		{"punctuation", "a=b,c;d:e|f&g?h#i%j+k*l!m~n^o@p$q(r)[s]{t}<u>/v"},
		{"percent", "%s%d%n%00%2F%zz%"},
		{"markup", "<script>alert(1)</script>&amp;<!--]]>"},
		{"template", "{{.Name}} ${HOME} $(id) `id`"},
		{"path", "../../etc/passwd"},
		{"comment", "# HELP a b\n# TYPE a counter\na 1\n# EOF\n"},
		{"JSON", `"},{"name":"b"}]}`},
		{"accents", "çédille, e\u0301"},
		{"scripts", "日本語 العربية עברית हिन्दी"},
		{"emoji", "👩‍👩‍👧‍👦🏳️‍🌈"},
		{"direction", "a\u202eb\u2066c"},
		{"zero width", "a\u200bb\ufeffc"},
		{"byte order mark", "\ufeffa"},
		{"noncharacters", "\ufffe\uffff\U0010ffff"},
		{"replacement character", "a\ufffdb"},
		{"lone byte", "a\xffb"},
		{"same, 1", "same\xff"},
		{"same, 2", "same\xfe"},
		{"same, 3", "same\ufffd"},
		{"Latin-1", "caf\xe9"},
		{"UTF-16", "\xff\xfea\x00b\x00"},
		{"half a rune", "日本\xe8\xaa"},
		{"lone continuation", "\x80\xbf"},
		{"lone surrogates", "\xed\xa0\x80a\xed\xb0\x80"},
		{"surrogate pair", "\xed\xa0\xbd\xed\xb8\x80"},
		{"overlong", "\xc0\x80\xc1\xbf\xe0\x80\xaf"},
		{"beyond Unicode", "\xf4\x90\x80\x80\xf8\x88\x80\x80\x80"},
		{"100 kB", strings.Repeat("0123456789", 10_000)},
		{"100 kB of three-byte runes", strings.Repeat("語", 33_334)},
		{"100 kB of no runes", strings.Repeat("\xfe", 100_000)},
		{"100 kB of newlines", strings.Repeat("\n", 100_000)},
		{"100 kB of NUL", strings.Repeat("\x00", 100_000)},
		{"all bytes", allBytes()},
	}
}

func allBytes() string {
	var b [256]byte
	for i := range b {
		b[i] = byte(i)
	}
	return string(b[:])
}
