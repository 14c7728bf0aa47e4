package vm

import (
	"fmt"
	"strings"
	"unicode"
)

// A printer writes values. It allocates nothing in the heap, so that they stay where they are.
type printer struct {
	m      *Machine
	b      strings.Builder
	quoted bool          // as write does
	labels map[Value]int // of what is circular: -1 until it is printed
	count  int
	depth  int
}

// show returns the text of a value, as write if quoted, and else as display.
func (m *Machine) show(v Value, quoted bool) string { return m.print(v, quoted, false) }

// print returns the text of a value. What refers to itself has labels, and all that is shared if shared.
func (m *Machine) print(v Value, quoted, shared bool) string {
	p := &printer{m: m, quoted: quoted, labels: m.cycles(v, shared)}
	p.print(v)
	return p.b.String()
}

// hasParts reports whether the printer prints other objects inside v.
func (m *Machine) hasParts(v Value) bool {
	return m.is(v, kindPair) || m.is(v, kindVector) || m.is(v, kindValues) || m.is(v, kindCondition)
}

// cycles finds the objects that are to have labels.
func (m *Machine) cycles(v Value, shared bool) map[Value]int {
	const (
		open = 1 + iota
		done
	)
	if !m.hasParts(v) {
		return nil
	}
	labels := make(map[Value]int)
	state := make(map[Value]int)
	type step struct {
		v     Value
		leave bool
	}
	todo := []step{{v, false}}
	for len(todo) > 0 {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if s.leave {
			state[s.v] = done
			continue
		}
		if !m.hasParts(s.v) {
			continue
		}
		switch state[s.v] {
		case open:
			labels[s.v] = -1
			continue
		case done:
			if shared {
				labels[s.v] = -1
			}
			continue
		}
		state[s.v] = open
		todo = append(todo, step{s.v, true})
		words := m.heap.Words(s.v)
		for i := len(words) - 1; i >= 0; i-- {
			if words[i].IsRef() {
				todo = append(todo, step{words[i], false})
			}
		}
	}
	return labels
}

// label prints the label of v, if it has one. It reports whether that is all there is to print.
func (p *printer) label(v Value) bool {
	n, ok := p.labels[v]
	if !ok {
		return false
	}
	if n >= 0 {
		fmt.Fprintf(&p.b, "#%d#", n)
		return true
	}
	p.labels[v] = p.count
	fmt.Fprintf(&p.b, "#%d=", p.count)
	p.count++
	return false
}

func (p *printer) print(v Value) {
	if p.depth++; p.depth > maxDepth { // what is nested more could not be read
		p.b.WriteString("…")
		p.depth--
		return
	}
	defer func() { p.depth-- }()
	m := p.m
	if !v.IsRef() {
		p.immediate(v)
		return
	}
	switch m.heap.Kind(v) {
	case kindPair:
		p.pair(v)
	case kindVector:
		if !p.label(v) {
			p.b.WriteString("#(")
			p.items(v, ')')
		}
	case kindFlonum:
		p.b.WriteString(formatNumber(inexact(m.floatOf(v)), 10))
	case kindString:
		if p.quoted {
			p.escape(m.text(v), '"')
		} else {
			p.b.WriteString(m.text(v))
		}
	case kindBytes:
		p.b.WriteString("#u8")
		s := fmt.Sprint(m.heap.Bytes(v))
		p.b.WriteString("(" + s[1:len(s)-1] + ")")
	case kindClosure:
		p.procedure(m.codeOf(v).name)
	case kindCases:
		p.procedure("")
	case kindContinuation:
		p.b.WriteString("#<continuation>")
	case kindCondition:
		if !p.label(v) {
			p.b.WriteString("#<error: ")
			p.condition(v)
			p.b.WriteByte('>')
		}
	case kindRecordType:
		p.b.WriteString("#<record-type " + m.show(m.heap.Get(v, 0), false) + ">")
	case kindRecord:
		p.b.WriteString("#<" + m.show(m.heap.Get(m.heap.Get(v, 0), 0), false) + ">")
	case kindValues:
		if !p.label(v) {
			p.b.WriteString("#<values ")
			p.items(v, '>')
		}
	case kindPromise:
		p.b.WriteString("#<promise>")
	case kindPort:
		p.b.WriteString("#<port>")
	case kindEnvironment:
		p.b.WriteString("#<environment>")
	default:
		fmt.Fprintf(&p.b, "#<object of kind %d>", m.heap.Kind(v))
	}
}

func (p *printer) procedure(name string) {
	p.b.WriteString(strings.TrimSuffix("#<procedure "+name, " ") + ">")
}

func (p *printer) items(v Value, end byte) {
	for i, x := range p.m.heap.Words(v) {
		if i > 0 {
			p.b.WriteByte(' ')
		}
		p.print(x)
	}
	p.b.WriteByte(end)
}

var abbreviations = map[string]string{"quote": "'", "quasiquote": "`", "unquote": ",", "unquote-splicing": ",@"}

func (p *printer) pair(v Value) {
	m := p.m
	if p.label(v) {
		return
	}
	if rest := m.cdr(v); isTag(m.car(v), tagSymbol) && m.is(rest, kindPair) && m.cdr(rest) == Nil {
		if _, labelled := p.labels[rest]; !labelled {
			if short, ok := abbreviations[m.symbols[payload(m.car(v))].name]; ok {
				p.b.WriteString(short)
				p.print(m.car(rest))
				return
			}
		}
	}
	p.b.WriteByte('(')
	for {
		p.print(m.car(v))
		v = m.cdr(v)
		if _, labelled := p.labels[v]; !m.is(v, kindPair) || labelled {
			break
		}
		p.b.WriteByte(' ')
	}
	if v != Nil {
		p.b.WriteString(" . ")
		p.print(v)
	}
	p.b.WriteByte(')')
}

var specialNames = map[Value]string{
	False: "#f", True: "#t", Nil: "()", Unspecified: "#<unspecified>", EOF: "#<eof>", unbound: "#<unbound>", unassigned: "#<unassigned>",
}

func (p *printer) immediate(v Value) {
	switch {
	case isFix(v):
		fmt.Fprint(&p.b, fixOf(v))
	case isTag(v, tagChar):
		p.char(rune(payload(v)))
	case isTag(v, tagSymbol):
		p.symbol(p.m.symbols[payload(v)].name)
	case isTag(v, tagPrim):
		p.procedure(primitives[payload(v)].name)
	default:
		p.b.WriteString(specialNames[v])
	}
}

func (p *printer) char(c rune) {
	if !p.quoted {
		p.b.WriteRune(c)
		return
	}
	p.b.WriteString(`#\`)
	for name, named := range charNames {
		if named == c {
			p.b.WriteString(name)
			return
		}
	}
	if unicode.IsPrint(c) {
		p.b.WriteRune(c)
	} else {
		fmt.Fprintf(&p.b, "x%x", c)
	}
}

// symbol prints a symbol between bars if it would be read as something else.
func (p *printer) symbol(name string) {
	plain := name != "" && name != "." && !strings.HasPrefix(name, "#") && !strings.ContainsFunc(name, func(c rune) bool {
		return delimits(c) || c == '|' || c == '\\' || c == '`' || c == ',' || !unicode.IsPrint(c)
	})
	if plain && p.quoted {
		_, isNumber, err := parseNumber(name, 10)
		plain = !isNumber && err == nil
	}
	if plain || !p.quoted {
		p.b.WriteString(name)
	} else {
		p.escape(name, '|')
	}
}

func (p *printer) escape(s string, end rune) {
	p.b.WriteRune(end)
	for _, c := range s {
		switch {
		case c == end || c == '\\':
			p.b.WriteRune('\\')
			p.b.WriteRune(c)
		case c == '\n':
			p.b.WriteString(`\n`)
		case c == '\t':
			p.b.WriteString(`\t`)
		case c == '\r':
			p.b.WriteString(`\r`)
		case !unicode.IsPrint(c):
			fmt.Fprintf(&p.b, `\x%x;`, c)
		default:
			p.b.WriteRune(c)
		}
	}
	p.b.WriteRune(end)
}

// conditionText is the message of an error object with its irritants.
func (m *Machine) conditionText(v Value) string {
	p := &printer{m: m, labels: m.cycles(v, false)}
	p.condition(v)
	return p.b.String()
}

// condition prints the message as display does, and the irritants as write does.
func (p *printer) condition(v Value) {
	quoted := p.quoted
	p.quoted = false
	p.print(p.m.heap.Get(v, 0))
	p.quoted = true
	l := p.m.heap.Get(v, 1)
	for ; p.m.is(l, kindPair); l = p.m.cdr(l) {
		if _, labelled := p.labels[l]; labelled {
			break
		}
		p.b.WriteByte(' ')
		p.print(p.m.car(l))
	}
	if l != Nil {
		p.b.WriteString(" . ")
		p.print(l)
	}
	p.quoted = quoted
}
