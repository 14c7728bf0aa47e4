package vm

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// A SyntaxError is text that is no Scheme.
type SyntaxError struct {
	Line       int // 0 if it is not known
	Text       string
	Incomplete bool // the text ended too early
}

func (e *SyntaxError) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("line %d: %s", e.Line, e.Text)
	}
	return e.Text
}

// maxDepth bounds how deeply data and code are nested.
const maxDepth = 2000

// A reader reads data from text.
type reader struct {
	in     io.RuneScanner
	intern func(name string) *symbol
	line   int
	depth  int
	fold   bool           // symbols are read in lower case
	labels map[int]*label // of #n=
}

// A label is a datum that refers to itself, until it is read.
type label struct {
	value any
	done  bool
}

func newReader(in io.RuneScanner, intern func(string) *symbol) *reader {
	return &reader{in: in, intern: intern, line: 1}
}

const eof = -1

func (r *reader) next() rune {
	c, _, err := r.in.ReadRune()
	if err != nil {
		return eof
	}
	if c == '\n' {
		r.line++
	}
	return c
}

func (r *reader) back(c rune) {
	if c == eof {
		return
	}
	if c == '\n' {
		r.line--
	}
	r.in.UnreadRune()
}

func (r *reader) peek() rune {
	c := r.next()
	r.back(c)
	return c
}

func (r *reader) fail(format string, args ...any) error {
	return &SyntaxError{Line: r.line, Text: fmt.Sprintf(format, args...)}
}

func (r *reader) incomplete(what string) error {
	return &SyntaxError{Line: r.line, Text: "the text ends inside " + what, Incomplete: true}
}

// read returns the next datum, or io.EOF if there is none.
func (r *reader) read() (any, error) {
	r.labels, r.depth = nil, 0
	x, err := r.datum()
	if err == nil && r.labels != nil {
		x, err = r.patch(x, make(map[any]bool))
	}
	var t token
	if errors.As(err, &t) {
		return nil, r.fail("unexpected %q", string(t))
	}
	return x, err
}

// A token is what ends a list, or the dot in it: no datum.
type token string

func (t token) Error() string { return string(t) }

func (r *reader) space() {
	for {
		switch c := r.next(); {
		case c == ';':
			for c = r.next(); c != '\n' && c != eof; c = r.next() {
			}
		case !unicode.IsSpace(c):
			r.back(c)
			return
		}
	}
}

// datum reads one datum. At the end of the text, the error is io.EOF.
func (r *reader) datum() (any, error) {
	if r.depth++; r.depth > maxDepth {
		return nil, r.fail("data are nested more than %d deep", maxDepth)
	}
	defer func() { r.depth-- }()
	for {
		r.space()
		switch c := r.next(); c {
		case eof:
			return nil, io.EOF
		case '(':
			return r.list()
		case ')':
			return nil, token(")")
		case '\'':
			return r.quoted("quote")
		case '`':
			return r.quoted("quasiquote")
		case ',':
			if c := r.next(); c == '@' {
				return r.quoted("unquote-splicing")
			} else {
				r.back(c)
			}
			return r.quoted("unquote")
		case '"':
			return r.text('"')
		case '#':
			x, again, err := r.hash()
			if err != nil || !again {
				return x, err
			}
		default:
			r.back(c)
			return r.atom("")
		}
	}
}

// inner reads a datum that must be there.
func (r *reader) inner(of string) (any, error) {
	x, err := r.datum()
	if err == io.EOF {
		err = r.incomplete(of)
	}
	return x, err
}

func (r *reader) quoted(by string) (any, error) {
	x, err := r.inner("a quotation")
	if err != nil {
		return nil, err
	}
	return list(r.intern(by), x), nil
}

func (r *reader) list() (any, error) {
	var all []any
	for {
		x, err := r.inner("a list")
		switch {
		case err == token(")"):
			return listWithTail(all, null{}), nil
		case err == token(".") && len(all) > 0:
			tail, err := r.inner("a list")
			if err != nil {
				return nil, err
			}
			if _, err := r.inner("a list"); err == nil {
				return nil, r.fail("more than one datum after the dot of a list")
			} else if err != token(")") {
				return nil, err
			}
			return listWithTail(all, tail), nil
		case err != nil:
			return nil, err
		}
		all = append(all, x)
	}
}

// hash reads what begins with #. If that was a comment, it says so.
func (r *reader) hash() (x any, again bool, err error) {
	switch c := r.next(); {
	case c == eof:
		return nil, false, r.incomplete("a datum that begins with #")
	case c == '(':
		x, err := r.list()
		if err != nil {
			return nil, false, err
		}
		all, ok := items(x)
		if !ok {
			return nil, false, r.fail("a dot in a vector")
		}
		return &vector{all}, false, nil
	case c == '|':
		return nil, true, r.comment()
	case c == ';':
		_, err := r.inner("a comment")
		if t, ok := err.(token); ok {
			err = r.fail("unexpected %q after #;", string(t))
		}
		return nil, err == nil, err
	case c == '!':
		word := r.word()
		switch word {
		case "fold-case", "no-fold-case":
			r.fold = word == "fold-case"
		default:
			return nil, false, r.fail("unknown directive #!%s", word)
		}
		return nil, true, nil
	case c == '\\':
		x, err := r.char()
		return x, false, err
	case c >= '0' && c <= '9':
		x, err := r.labelled(c)
		return x, false, err
	default:
		r.back(c)
		x, err := r.atom("#")
		return x, false, err
	}
}

// comment reads up to the end of a comment, which may have others inside.
func (r *reader) comment() error {
	for depth, last := 1, rune(0); depth > 0; {
		c := r.next()
		switch {
		case c == eof:
			return r.incomplete("a comment #|")
		case last == '|' && c == '#':
			depth--
			c = 0
		case last == '#' && c == '|':
			depth++
			c = 0
		}
		last = c
	}
	return nil
}

func delimits(c rune) bool {
	return c == eof || unicode.IsSpace(c) || strings.ContainsRune(`()";'`, c)
}

// word reads up to a delimiter.
func (r *reader) word() string {
	var b strings.Builder
	for c := r.next(); ; c = r.next() {
		if delimits(c) {
			r.back(c)
			return b.String()
		}
		b.WriteRune(c)
	}
}

// atom reads a number, a symbol, or what else begins with the given text.
func (r *reader) atom(before string) (any, error) {
	var b strings.Builder
	b.WriteString(before)
	bars := false
	for c := r.next(); ; c = r.next() {
		if c == '|' && before == "" {
			s, err := r.text('|')
			if err != nil {
				return nil, err
			}
			bars = true
			b.WriteString(s)
			continue
		}
		if delimits(c) {
			r.back(c)
			break
		}
		if r.fold {
			c = unicode.ToLower(c)
		}
		b.WriteRune(c)
	}
	word := b.String()
	if bars {
		return r.intern(word), nil
	}
	if word == "." {
		return nil, token(".")
	}
	if before == "#" {
		switch strings.ToLower(word) {
		case "#t", "#true":
			return true, nil
		case "#f", "#false":
			return false, nil
		case "#u8":
			return r.bytes()
		}
	}
	x, isNumber, err := parseNumber(word, 10)
	switch {
	case err != nil:
		return nil, r.fail("%v", err)
	case isNumber:
		return x, nil
	case before == "#" || word == "":
		return nil, r.fail("unknown datum %q", word)
	}
	return r.intern(word), nil
}

func (r *reader) bytes() (any, error) {
	if c := r.next(); c != '(' {
		return nil, r.fail("#u8 without a list of bytes")
	}
	x, err := r.list()
	if err != nil {
		return nil, err
	}
	all, ok := items(x)
	b := make([]byte, len(all))
	for i, x := range all {
		n, isInt := x.(int64)
		if !isInt || n < 0 || n > 255 {
			return nil, r.fail("#u8 has something that is no byte")
		}
		b[i] = byte(n)
	}
	if !ok {
		return nil, r.fail("a dot in #u8")
	}
	return b, nil
}

// labelled reads #n= and what follows, or #n#.
func (r *reader) labelled(c rune) (any, error) {
	n := 0
	for ; c >= '0' && c <= '9'; c = r.next() {
		if n = n*10 + int(c-'0'); n > 1_000_000 {
			return nil, r.fail("label #%d is too large", n)
		}
	}
	switch old := r.labels[n]; {
	case c == '#' && old != nil:
		return old, nil
	case c == '=' && old == nil:
		if r.labels == nil {
			r.labels = make(map[int]*label)
		}
		l := &label{}
		r.labels[n] = l
		x, err := r.inner("a labelled datum")
		if err != nil {
			return nil, err
		}
		if x == l {
			return nil, r.fail("#%d= stands for itself", n)
		}
		l.value, l.done = x, true
		return x, nil
	}
	return nil, r.fail("#%d%c: a label is defined by #%d= once, and used by #%d# inside", n, max(c, ' '), n, n)
}

// patch replaces the labels inside x by what they stand for.
func (r *reader) patch(x any, seen map[any]bool) (any, error) {
	var err error
	switch v := x.(type) {
	case *label:
		if !v.done {
			return nil, r.fail("a label is used before its datum begins")
		}
		return r.patch(v.value, seen)
	case *pair:
		first := v
		for !seen[v] {
			seen[v] = true
			if v.car, err = r.patch(v.car, seen); err != nil {
				return nil, err
			}
			next, ok := v.cdr.(*pair)
			if !ok {
				v.cdr, err = r.patch(v.cdr, seen)
				break
			}
			v = next
		}
		return first, err
	case *vector:
		if !seen[v] {
			seen[v] = true
			for i := range v.items {
				if v.items[i], err = r.patch(v.items[i], seen); err != nil {
					return nil, err
				}
			}
		}
	}
	return x, err
}

// Incomplete reports whether text ends inside a datum, so that more text may make it whole.
func Incomplete(text string) bool {
	symbols := make(map[string]*symbol)
	r := newReader(strings.NewReader(text), func(name string) *symbol {
		if symbols[name] == nil {
			symbols[name] = &symbol{name: name}
		}
		return symbols[name]
	})
	for {
		_, err := r.read()
		var syntax *SyntaxError
		if errors.As(err, &syntax) {
			return syntax.Incomplete
		} else if err != nil {
			return false
		}
	}
}
