package vm

import (
	"io"
	"strings"
	"unicode/utf8"

	"github.com/alloctrace/alloctrace/examples/scheme/immix"
)

// A port is the console, or reads or writes a string or bytevector in the heap.
//
//	0  what it is: one of the constants below
//	1  False for the console, else the string or bytevector
//	2  where the next character is, or how many were written
//
// A closed port has portClosed.
const (
	portInput = 1 << iota
	portBinary
	portClosed
)

func (m *Machine) newPort(flags int64, buffer *Value) (Value, error) {
	kind, at := fixnum(flags), fixnum(0)
	return m.object(kindPort, &kind, buffer, &at)
}

// port returns the flags of the port v, which must be open and have the given ones.
func (m *Machine) port(name string, v Value, input, binary bool) error {
	if !m.is(v, kindPort) {
		return m.wrong(name, "a port", v)
	}
	flags := fixOf(m.heap.Get(v, 0))
	switch {
	case flags&portClosed != 0:
		return m.errorf(name+": the port is closed", v)
	case (flags&portInput != 0) != input || (flags&portBinary != 0) != binary:
		return m.wrong(name, "a port of the other direction or of the other kind of data", v)
	}
	return nil
}

// write appends text to the port in a slot of the stack.
func (m *Machine) write(port *Value, text string) error {
	if m.heap.Get(*port, 1) == False {
		_, err := m.out.WriteString(text)
		return err
	}
	runes := []rune(text)
	at, err := m.room(port, len(runes), 4)
	if err != nil {
		return err
	}
	buffer := m.heap.Get(*port, 1)
	for i, c := range runes {
		m.setChar(buffer, at+i, c)
	}
	return nil
}

// room makes room for n more elements of size bytes in the buffer of a port, and returns where they go.
func (m *Machine) room(port *Value, n, size int) (at int, err error) {
	at = int(fixOf(m.heap.Get(*port, 2)))
	if old := m.heap.Len(m.heap.Get(*port, 1)) / size; at+n > old {
		w, err := m.heap.NewBytes(m.heap.Kind(m.heap.Get(*port, 1)), size*max(2*old, at+n, 32))
		if err != nil {
			return 0, err
		}
		copy(m.heap.Bytes(w), m.heap.Bytes(m.heap.Get(*port, 1)))
		m.heap.Set(*port, 1, w)
	}
	m.heap.Set(*port, 2, fixnum(int64(at+n)))
	return at, nil
}

// A portReader reads characters of a port. The heap must not be allocated in meanwhile.
type portReader struct {
	m    *Machine
	port Value
}

func (r portReader) ReadRune() (rune, int, error) {
	m := r.m
	buffer := m.heap.Get(r.port, 1)
	if buffer == False {
		m.out.Flush()
		c, n, err := m.in.ReadRune()
		if err != io.EOF {
			m.inErr = err
		}
		return c, n, err
	}
	at := int(fixOf(m.heap.Get(r.port, 2)))
	if at == m.stringLen(buffer) {
		return 0, 0, io.EOF
	}
	m.heap.Set(r.port, 2, fixnum(int64(at+1)))
	c := m.charAt(buffer, at)
	return c, utf8.RuneLen(c), nil
}

func (r portReader) UnreadRune() error {
	if r.m.heap.Get(r.port, 1) == False {
		return r.m.in.UnreadRune()
	}
	r.m.heap.Set(r.port, 2, fixnum(fixOf(r.m.heap.Get(r.port, 2))-1))
	return nil
}

var _ io.RuneScanner = portReader{}

// reading makes a primitive that reads from a text port: its last argument.
func reading(name string, before int, f func(m *Machine, a []Value, r portReader) (Value, error)) primitive {
	return primitive{name: "%" + name, min: before + 1, max: before + 1, fn: func(m *Machine, a []Value) (Value, error) {
		if err := m.port(name, a[before], true, false); err != nil {
			return 0, err
		}
		v, err := f(m, a, portReader{m, a[before]})
		if m.inErr != nil {
			err = m.raise("file", name+": "+m.inErr.Error())
			m.inErr = nil
		}
		return v, err
	}}
}

func charOrEOF(c rune, _ int, err error) Value {
	if err != nil {
		return EOF
	}
	return charValue(c)
}

// printing makes a primitive that writes its first argument to a port: its second.
func printing(name string, f func(m *Machine, v Value) string) primitive {
	return primitive{name: "%" + name, min: 2, max: 2, fn: func(m *Machine, a []Value) (Value, error) {
		if err := m.port(name, a[1], false, false); err != nil {
			return 0, err
		}
		return Unspecified, m.write(&a[1], f(m, a[0]))
	}}
}

func init() {
	define(
		primitive{name: "%console", min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) { // for input?
			none, flags := False, int64(0)
			if a[0] == True {
				flags = portInput
			}
			return m.newPort(flags, &none)
		}},
		primitive{name: "open-input-string", min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) {
			if err := stringType.check(m, "open-input-string", a[0]); err != nil {
				return 0, err
			}
			return m.newPort(portInput, &a[0])
		}},
		primitive{name: "open-input-bytevector", min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) {
			if err := bytesType.check(m, "open-input-bytevector", a[0]); err != nil {
				return 0, err
			}
			return m.newPort(portInput|portBinary, &a[0])
		}},
		primitive{name: "open-output-string", fn: func(m *Machine, a []Value) (Value, error) { return m.newOutput(kindString, 0) }},
		primitive{name: "open-output-bytevector", fn: func(m *Machine, a []Value) (Value, error) { return m.newOutput(kindBytes, portBinary) }},
		primitive{name: "get-output-string", min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) {
			return m.written("get-output-string", a, &stringType)
		}},
		primitive{name: "get-output-bytevector", min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) {
			return m.written("get-output-bytevector", a, &bytesType)
		}},
		primitive{name: "close-port", min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) {
			if !m.is(a[0], kindPort) {
				return 0, m.wrong("close-port", "a port", a[0])
			}
			m.heap.Set(a[0], 0, m.heap.Get(a[0], 0)|fixnum(portClosed))
			return Unspecified, nil
		}},
		test("port?", func(m *Machine, v Value) bool { return m.is(v, kindPort) }),
		test("input-port?", func(m *Machine, v Value) bool { return m.hasFlag(v, portInput, true) }),
		test("output-port?", func(m *Machine, v Value) bool { return m.hasFlag(v, portInput, false) }),
		test("textual-port?", func(m *Machine, v Value) bool { return m.hasFlag(v, portBinary, false) }),
		test("binary-port?", func(m *Machine, v Value) bool { return m.hasFlag(v, portBinary, true) }),
		test("input-port-open?", func(m *Machine, v Value) bool {
			return m.hasFlag(v, portInput, true) && m.hasFlag(v, portClosed, false)
		}),
		test("output-port-open?", func(m *Machine, v Value) bool {
			return m.hasFlag(v, portInput, false) && m.hasFlag(v, portClosed, false)
		}),

		printing("display", func(m *Machine, v Value) string { return m.show(v, false) }),
		printing("write", func(m *Machine, v Value) string { return m.show(v, true) }),
		printing("write-shared", func(m *Machine, v Value) string { return m.print(v, true, true) }),
		primitive{name: "%write-u8", min: 2, max: 2, fn: func(m *Machine, a []Value) (Value, error) {
			err := m.port("write-u8", a[1], false, true)
			if err == nil {
				err = bytesType.element(m, "write-u8", a[0])
			}
			if err != nil {
				return 0, err
			}
			at, err := m.room(&a[1], 1, 1)
			if err != nil {
				return 0, err
			}
			m.heap.Bytes(m.heap.Get(a[1], 1))[at] = byte(fixOf(a[0]))
			return Unspecified, nil
		}},
		reading("read-char", 0, func(m *Machine, a []Value, r portReader) (Value, error) { return charOrEOF(r.ReadRune()), nil }),
		reading("peek-char", 0, func(m *Machine, a []Value, r portReader) (Value, error) {
			v := charOrEOF(r.ReadRune())
			if v != EOF {
				r.UnreadRune()
			}
			return v, nil
		}),
		reading("read-line", 0, func(m *Machine, a []Value, r portReader) (Value, error) {
			var b strings.Builder
			for n := 0; ; n++ {
				c, _, err := r.ReadRune()
				if err != nil && n == 0 {
					return EOF, nil
				}
				if err != nil || c == '\n' {
					return m.stringValue(b.String())
				}
				b.WriteRune(c)
			}
		}),
		reading("read-string", 1, func(m *Machine, a []Value, r portReader) (Value, error) {
			n, err := m.size("read-string", a[0], maxSize)
			if err != nil {
				return 0, err
			}
			var b strings.Builder
			for i := range n {
				c, _, err := r.ReadRune()
				if err != nil {
					if i == 0 {
						return EOF, nil
					}
					break
				}
				b.WriteRune(c)
			}
			return m.stringValue(b.String())
		}),
		reading("read", 0, func(m *Machine, a []Value, r portReader) (Value, error) {
			x, err := newReader(r, m.intern).read()
			if err == io.EOF {
				return EOF, nil
			} else if err != nil {
				return 0, err
			}
			return m.toHeap(x)
		}),
		primitive{name: "%read-u8", min: 2, max: 2, fn: func(m *Machine, a []Value) (Value, error) { // port, peek?
			if err := m.port("read-u8", a[0], true, true); err != nil {
				return 0, err
			}
			b, at := m.heap.Bytes(m.heap.Get(a[0], 1)), int(fixOf(m.heap.Get(a[0], 2)))
			if at == len(b) {
				return EOF, nil
			}
			if a[1] == False {
				m.heap.Set(a[0], 2, fixnum(int64(at+1)))
			}
			return fixnum(int64(b[at])), nil
		}},
		primitive{name: "%flush", fn: func(m *Machine, a []Value) (Value, error) { return Unspecified, m.out.Flush() }},
	)
}

func (m *Machine) hasFlag(v Value, flag int64, want bool) bool {
	return m.is(v, kindPort) && (fixOf(m.heap.Get(v, 0))&flag != 0) == want
}

// written returns what was written to the port in a[0].
func (m *Machine) written(name string, a []Value, s *seqType) (Value, error) {
	if !m.is(a[0], kindPort) || !m.is(m.heap.Get(a[0], 1), s.kind) || m.hasFlag(a[0], portInput, true) {
		return 0, m.wrong(name, "a port that writes to a "+s.name, a[0])
	}
	n := int(fixOf(m.heap.Get(a[0], 2)))
	v, err := s.make(m, n)
	if err == nil {
		s.copyRange(m, v, 0, m.heap.Get(a[0], 1), 0, n)
	}
	return v, err
}

func (m *Machine) newOutput(k immix.Kind, flags int64) (Value, error) {
	buffer, err := m.heap.NewBytes(k, 0)
	if err != nil {
		return 0, err
	}
	before := len(m.pins)
	defer func() { m.pins = m.pins[:before] }()
	m.pin(buffer)
	return m.newPort(flags, &m.pins[before])
}
