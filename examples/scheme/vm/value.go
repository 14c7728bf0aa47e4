package vm

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/alloctrace/alloctrace/examples/scheme/immix"
)

// A Value is a fixnum if bit 0 is set: the other 63 bits. With the low bits 010, the next
// five say what the upper 56 are. Else it is a reference to an object.
type Value = immix.Word

const (
	tagChar    = 0x02
	tagSymbol  = 0x0a // a number in Machine.symbols
	tagSpecial = 0x12
	tagPrim    = 0x1a // a number in primitives
)

func immediate(tag, n int) Value  { return Value(n)<<8 | Value(tag) }
func isTag(v Value, tag int) bool { return v&0xff == Value(tag) }
func payload(v Value) int         { return int(v >> 8) }

// The special values.
const (
	False Value = tagSpecial | iota<<8
	True
	Nil
	Unspecified
	EOF
	unbound    // a global that is not defined
	unassigned // a variable of letrec before its value
	bottom     // in place of a closure: the end of the stack
)

func fixnum(n int64) Value   { return Value(n)<<1 | 1 }
func isFix(v Value) bool     { return v&1 != 0 }
func fixOf(v Value) int64    { return int64(v) >> 1 }
func charValue(c rune) Value { return immediate(tagChar, int(c)) }
func boolean(b bool) Value {
	if b {
		return True
	}
	return False
}

// The kinds of objects.
const (
	kindPair         immix.Kind = iota + 1 // car, cdr
	kindFlonum                             // 8 bytes
	kindString                             // 4 bytes a character
	kindBytes                              // a bytevector
	kindVector                             //
	kindBox                                // a variable that is set
	kindCode                               // the number of a code, its constants
	kindClosure                            // a kindCode, its free variables
	kindCases                              // closures of case-lambda
	kindContinuation                       // the handlers, the stack
	kindValues                             // more or less than one value
	kindCondition                          // message, irritants, what kind of error
	kindRecordType                         // name, list of fields
	kindRecord                             // its type, fields
	kindPromise                            // a box of done, value or thunk: see prelude.scm
	kindPort                               // see port.go
	kindEnvironment                        //
)

// Floats and strings have one order of bytes, so that a heap looks the same everywhere.
var order = binary.LittleEndian

func (m *Machine) newFloat(f float64) (Value, error) {
	w, err := m.heap.NewBytes(kindFlonum, 8)
	if err != nil {
		return 0, err
	}
	order.PutUint64(m.heap.Bytes(w), math.Float64bits(f))
	return w, nil
}

func (m *Machine) floatOf(v Value) float64 {
	return math.Float64frombits(order.Uint64(m.heap.Bytes(v)))
}

// newString returns a string of n characters, which are not yet set.
func (m *Machine) newString(n int) (Value, error) {
	if n > math.MaxInt32/4 {
		n = math.MaxInt32 // whose bytes are too many as well
	}
	return m.heap.NewBytes(kindString, 4*n)
}

func (m *Machine) stringLen(v Value) int          { return m.heap.Len(v) / 4 }
func (m *Machine) charAt(v Value, i int) rune     { return rune(order.Uint32(m.heap.Bytes(v)[4*i:])) }
func (m *Machine) setChar(v Value, i int, c rune) { order.PutUint32(m.heap.Bytes(v)[4*i:], uint32(c)) }

func (m *Machine) stringValue(s string) (Value, error) {
	runes := []rune(s)
	w, err := m.newString(len(runes))
	if err != nil {
		return 0, err
	}
	for i, c := range runes {
		m.setChar(w, i, c)
	}
	return w, nil
}

func (m *Machine) text(v Value) string { return m.textBetween(v, 0, m.stringLen(v)) }

func (m *Machine) textBetween(v Value, start, end int) string {
	var b strings.Builder
	for i := start; i < end; i++ {
		b.WriteRune(m.charAt(v, i))
	}
	return b.String()
}

func (m *Machine) is(v Value, k immix.Kind) bool { return m.heap.Is(v, k) }
func (m *Machine) car(p Value) Value             { return m.heap.Get(p, 0) }
func (m *Machine) cdr(p Value) Value             { return m.heap.Get(p, 1) }

// cons keeps car and cdr while it allocates, and nothing else.
func (m *Machine) cons(car, cdr Value) (Value, error) {
	m.pair[0], m.pair[1] = car, cdr
	w, err := m.heap.NewWords(kindPair, 2, &m.pair[1])
	if err == nil {
		m.heap.Set(w, 0, m.pair[0])
	}
	m.pair[0], m.pair[1] = 0, 0
	return w, err
}

// object returns an object of values that are on the stack or pinned.
func (m *Machine) object(k immix.Kind, values ...*Value) (Value, error) {
	none := False
	w, err := m.heap.NewWords(k, len(values), &none)
	if err != nil {
		return 0, err
	}
	for i, v := range values {
		m.heap.Set(w, i, *v)
	}
	return w, nil
}

// tuple returns an object of values in the stack.
func (m *Machine) tuple(k immix.Kind, values []Value) (Value, error) {
	none := False
	w, err := m.heap.NewWords(k, len(values), &none)
	if err == nil {
		copy(m.heap.Words(w), values)
	}
	return w, err
}

// pin makes v a root, until the pins are cut back to what they were.
func (m *Machine) pin(v Value) int {
	m.pins = append(m.pins, v)
	return len(m.pins) - 1
}

// A builder makes a list from its front. Its two pins are valid until the pins are cut.
type builder struct {
	m    *Machine
	head int // pin of the first pair, or Nil; the next pin is the last pair
}

func (m *Machine) newBuilder() builder {
	b := builder{m, m.pin(Nil)}
	m.pin(Nil)
	return b
}

func (b builder) add(v Value) error {
	m := b.m
	p, err := m.cons(v, Nil)
	if err != nil {
		return err
	}
	if last := m.pins[b.head+1]; last == Nil {
		m.pins[b.head] = p
	} else {
		m.heap.Set(last, 1, p)
	}
	m.pins[b.head+1] = p
	return nil
}

// end ends the list with tail, which may be an improper end, and returns it.
func (b builder) end(tail Value) Value {
	m := b.m
	head, last := m.pins[b.head], m.pins[b.head+1]
	m.pins = m.pins[:b.head]
	if last == Nil {
		return tail
	}
	m.heap.Set(last, 1, tail)
	return head
}

func (b builder) list() Value { return b.end(Nil) }

// isList reports whether v is a proper list, and how long it is.
func (m *Machine) isList(v Value) (n int, ok bool) {
	slow := v
	for ; m.is(v, kindPair); n++ {
		v = m.cdr(v)
		if n%2 == 1 {
			if slow = m.cdr(slow); slow == v && v != Nil {
				return 0, false
			}
		}
	}
	return n, v == Nil
}

// toHeap copies a datum into the heap.
func (m *Machine) toHeap(x any) (Value, error) {
	if v, ok := m.simple(x); ok {
		return v, nil
	}
	before := len(m.pins)
	defer func() { m.pins = m.pins[:before] }()
	pin, err := m.copyIn(x, make(map[any]int))
	if err != nil {
		return 0, err
	}
	return m.pins[pin], nil
}

// simple returns the value of a datum that needs no memory.
func (m *Machine) simple(x any) (Value, bool) {
	switch x := x.(type) {
	case int64:
		return fixnum(x), true
	case bool:
		return boolean(x), true
	case char:
		return charValue(rune(x)), true
	case *symbol:
		return immediate(tagSymbol, x.id), true
	case null:
		return Nil, true
	case unspecified:
		return Unspecified, true
	case opaque:
		return m.pins[x.pin], true
	}
	return 0, false
}

// copyIn copies a datum and returns the pin that it is at. Pairs and vectors in seen are copied already.
func (m *Machine) copyIn(x any, seen map[any]int) (pin int, err error) {
	if v, ok := m.simple(x); ok {
		return m.pin(v), nil
	}
	var v Value
	none := Nil
	switch x := x.(type) {
	case float64:
		v, err = m.newFloat(x)
	case string:
		v, err = m.stringValue(x)
	case []byte:
		if v, err = m.heap.NewBytes(kindBytes, len(x)); err == nil {
			copy(m.heap.Bytes(v), x)
		}
	case *vector:
		if pin, ok := seen[x]; ok {
			return pin, nil
		}
		if v, err = m.heap.NewWords(kindVector, len(x.items), &none); err != nil {
			return 0, err
		}
		pin = m.pin(v)
		seen[x] = pin
		for i, item := range x.items {
			p, err := m.copyIn(item, seen)
			if err != nil {
				return 0, err
			}
			m.heap.Set(m.pins[pin], i, m.pins[p])
		}
		return pin, nil
	case *pair:
		return m.copyList(x, seen)
	default:
		panic("vm: a datum of an unknown type")
	}
	return m.pin(v), err
}

// copyList goes along a list, so that only its elements nest.
func (m *Machine) copyList(x *pair, seen map[any]int) (int, error) {
	if pin, ok := seen[x]; ok {
		return pin, nil
	}
	first := -1
	last := -1 // pin of the pair that the next is the cdr of
	for {
		v, err := m.cons(Nil, Nil)
		if err != nil {
			return 0, err
		}
		pin := m.pin(v)
		seen[x] = pin
		if first < 0 {
			first = pin
		} else {
			m.heap.Set(m.pins[last], 1, v)
		}
		car, err := m.copyIn(x.car, seen)
		if err != nil {
			return 0, err
		}
		m.heap.Set(m.pins[pin], 0, m.pins[car])
		next, ok := x.cdr.(*pair)
		if ok {
			_, old := seen[next]
			ok = !old
		}
		if !ok {
			cdr, err := m.copyIn(x.cdr, seen)
			if err != nil {
				return 0, err
			}
			m.heap.Set(m.pins[pin], 1, m.pins[cdr])
			return first, nil
		}
		x, last = next, pin
	}
}

// fromHeap makes a datum of a value, for the compiler. It allocates nothing in the heap.
func (m *Machine) fromHeap(v Value, seen map[Value]any) any {
	if m.depth++; m.depth > maxDepth {
		panic(&SyntaxError{Text: fmt.Sprintf("eval: data are nested more than %d deep", maxDepth)})
	}
	defer func() { m.depth-- }()
	switch {
	case isFix(v):
		return fixOf(v)
	case isTag(v, tagChar):
		return char(payload(v))
	case isTag(v, tagSymbol):
		return m.symbols[payload(v)]
	case v == True, v == False:
		return v == True
	case v == Nil:
		return null{}
	case v == Unspecified:
		return unspecified{}
	case m.is(v, kindFlonum):
		return m.floatOf(v)
	case m.is(v, kindString):
		return m.text(v)
	case m.is(v, kindBytes):
		return append([]byte{}, m.heap.Bytes(v)...)
	case m.is(v, kindVector):
		if x, ok := seen[v]; ok {
			return x
		}
		x := &vector{make([]any, m.heap.Len(v))}
		seen[v] = x
		for i := range x.items {
			x.items[i] = m.fromHeap(m.heap.Get(v, i), seen)
		}
		return x
	case m.is(v, kindPair):
		return m.fromList(v, seen)
	}
	return opaque{m.pin(v)}
}

func (m *Machine) fromList(v Value, seen map[Value]any) any {
	if x, ok := seen[v]; ok {
		return x
	}
	first := &pair{}
	for x := first; ; {
		seen[v] = x
		x.car = m.fromHeap(m.car(v), seen)
		v = m.cdr(v)
		if old, ok := seen[v]; ok && v.IsRef() {
			x.cdr = old
			return first
		}
		if !m.is(v, kindPair) {
			x.cdr = m.fromHeap(v, seen)
			return first
		}
		next := &pair{}
		x.cdr, x = next, next
	}
}
