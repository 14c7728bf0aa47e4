package vm

import (
	"fmt"

	"github.com/alloctrace/alloctrace/examples/scheme/immix"
)

// size returns an argument that is a size or index of at most max.
func (m *Machine) size(name string, v Value, max int) (int, error) {
	if !isFix(v) || fixOf(v) < 0 || fixOf(v) > int64(max) {
		if max < 0 {
			return 0, m.errorf(name+": there are no elements, got index", v)
		}
		return 0, m.wrong(name, fmt.Sprintf("an integer from 0 to %d", max), v)
	}
	return int(fixOf(v)), nil
}

const maxSize = 1 << 30 // of a new object, in elements; there is not as much memory

// span returns the range that the arguments from a[i] on give: of n elements, all without them.
func (m *Machine) span(name string, a []Value, i, n int) (start, end int, err error) {
	end = n
	if len(a) > i+1 {
		if end, err = m.size(name, a[i+1], n); err != nil {
			return 0, 0, err
		}
	}
	if len(a) > i {
		start, err = m.size(name, a[i], end)
	}
	return start, end, err
}

// A seqType is a type of objects with elements.
type seqType struct {
	name     string
	unitName string // between the name and -ref or -set!
	kind     immix.Kind
	make     func(m *Machine, n int) (Value, error)
	get      func(m *Machine, v Value, i int) Value
	set      func(m *Machine, v Value, i int, x Value)
	ok       func(x Value) bool // whether x can be an element
	want     string
	unit     int   // bytes or Words of an element
	zero     Value // what an element is that nobody has set
}

var (
	stringType = seqType{"string", "", kindString, (*Machine).newString,
		func(m *Machine, v Value, i int) Value { return charValue(m.charAt(v, i)) },
		func(m *Machine, v Value, i int, x Value) { m.setChar(v, i, rune(payload(x))) },
		func(x Value) bool { return isTag(x, tagChar) }, "a character", 4, charValue(' ')}
	vectorType = seqType{"vector", "", kindVector,
		func(m *Machine, n int) (Value, error) {
			none := Unspecified
			return m.heap.NewWords(kindVector, n, &none)
		},
		func(m *Machine, v Value, i int) Value { return m.heap.Get(v, i) },
		func(m *Machine, v Value, i int, x Value) { m.heap.Set(v, i, x) },
		func(Value) bool { return true }, "", 1, Unspecified}
	bytesType = seqType{"bytevector", "-u8", kindBytes,
		func(m *Machine, n int) (Value, error) { return m.heap.NewBytes(kindBytes, n) },
		func(m *Machine, v Value, i int) Value { return fixnum(int64(m.heap.Bytes(v)[i])) },
		func(m *Machine, v Value, i int, x Value) { m.heap.Bytes(v)[i] = byte(fixOf(x)) },
		func(x Value) bool { return isFix(x) && fixOf(x) >= 0 && fixOf(x) < 256 }, "a byte", 1, fixnum(0)}
)

func (s *seqType) len(m *Machine, v Value) int { return m.heap.Len(v) / s.unit }

func (s *seqType) check(m *Machine, name string, v Value) error {
	if !m.is(v, s.kind) {
		return m.wrong(name, "a "+s.name, v)
	}
	return nil
}

func (s *seqType) element(m *Machine, name string, v Value) error {
	if !s.ok(v) {
		return m.wrong(name, s.want, v)
	}
	return nil
}

// copyRange copies elements between objects of the type, which may be the same.
func (s *seqType) copyRange(m *Machine, to Value, at int, from Value, start, end int) {
	if s.kind == kindVector {
		copy(m.heap.Words(to)[at:], m.heap.Words(from)[start:end])
	} else {
		copy(m.heap.Bytes(to)[at*s.unit:], m.heap.Bytes(from)[start*s.unit:end*s.unit])
	}
}

// slice returns a new object with a range of a[0].
func (s *seqType) slice(m *Machine, name string, a []Value) (Value, error) {
	start, end, err := s.span(m, name, a, 1)
	if err != nil {
		return 0, err
	}
	v, err := s.make(m, end-start)
	if err == nil {
		s.copyRange(m, v, 0, a[0], start, end)
	}
	return v, err
}

// span returns the range of a[0], which must be of the type, that the arguments from a[i] on give.
func (s *seqType) span(m *Machine, name string, a []Value, i int) (start, end int, err error) {
	if err := s.check(m, name, a[0]); err != nil {
		return 0, 0, err
	}
	return m.span(name, a, i, s.len(m, a[0]))
}

// index returns the index a[1] of an element of a[0], which must be of the type.
func (s *seqType) index(m *Machine, name string, a []Value) (int, error) {
	if err := s.check(m, name, a[0]); err != nil {
		return 0, err
	}
	return m.size(name, a[1], s.len(m, a[0])-1)
}

// procedures are those that R7RS has for each of the three types.
func (s *seqType) procedures() (all []primitive) {
	add := func(name string, min, max int, f func(m *Machine, name string, a []Value) (Value, error)) {
		all = append(all, primitive{name: name, min: min, max: max, fn: func(m *Machine, a []Value) (Value, error) { return f(m, name, a) }})
	}
	add("make-"+s.name, 1, 2, func(m *Machine, name string, a []Value) (Value, error) {
		count, err := m.size(name, a[0], maxSize)
		if err == nil && len(a) == 2 {
			err = s.element(m, name, a[1])
		}
		if err != nil {
			return 0, err
		}
		v, err := s.make(m, count)
		if err != nil {
			return 0, err
		}
		fill := s.zero
		if len(a) == 2 {
			fill = a[1]
		}
		for i := range count {
			s.set(m, v, i, fill)
		}
		return v, nil
	})
	add(s.name, 0, -1, func(m *Machine, name string, a []Value) (Value, error) {
		for _, x := range a {
			if err := s.element(m, name, x); err != nil {
				return 0, err
			}
		}
		v, err := s.make(m, len(a))
		if err == nil {
			for i, x := range a {
				s.set(m, v, i, x)
			}
		}
		return v, err
	})
	add(s.name+"-length", 1, 1, func(m *Machine, name string, a []Value) (Value, error) {
		if err := s.check(m, name, a[0]); err != nil {
			return 0, err
		}
		return fixnum(int64(s.len(m, a[0]))), nil
	})
	add(s.name+s.unitName+"-ref", 2, 2, func(m *Machine, name string, a []Value) (Value, error) {
		i, err := s.index(m, name, a)
		if err != nil {
			return 0, err
		}
		return s.get(m, a[0], i), nil
	})
	add(s.name+s.unitName+"-set!", 3, 3, func(m *Machine, name string, a []Value) (Value, error) {
		i, err := s.index(m, name, a)
		if err == nil {
			err = s.element(m, name, a[2])
		}
		if err != nil {
			return 0, err
		}
		s.set(m, a[0], i, a[2])
		return Unspecified, nil
	})
	add(s.name+"-copy", 1, 3, func(m *Machine, name string, a []Value) (Value, error) { return s.slice(m, name, a) })
	add(s.name+"-copy!", 3, 5, func(m *Machine, name string, a []Value) (Value, error) { // to, at, from, start, end
		if err := s.check(m, name, a[0]); err != nil {
			return 0, err
		}
		at, err := m.size(name, a[1], s.len(m, a[0]))
		if err != nil {
			return 0, err
		}
		start, end, err := s.span(m, name, a[2:], 1)
		if err != nil {
			return 0, err
		}
		if end-start > s.len(m, a[0])-at {
			return 0, m.errorf(name+": the range does not fit there", a[1], fixnum(int64(end-start)))
		}
		s.copyRange(m, a[0], at, a[2], start, end)
		return Unspecified, nil
	})
	add(s.name+"-fill!", 2, 4, func(m *Machine, name string, a []Value) (Value, error) {
		start, end, err := s.span(m, name, a, 2)
		if err == nil {
			err = s.element(m, name, a[1])
		}
		for i := start; i < end && err == nil; i++ {
			s.set(m, a[0], i, a[1])
		}
		return Unspecified, err
	})
	add(s.name+"-append", 0, -1, func(m *Machine, name string, a []Value) (Value, error) {
		total := uint64(0) // the same object many times may be more than an int has
		for _, x := range a {
			if err := s.check(m, name, x); err != nil {
				return 0, err
			}
			total += uint64(s.len(m, x))
		}
		v, err := s.make(m, int(min(total, maxSize+1)))
		if err != nil {
			return 0, err
		}
		at := 0
		for _, x := range a {
			s.copyRange(m, v, at, x, 0, s.len(m, x))
			at += s.len(m, x)
		}
		return v, nil
	})
	add(s.name+"->list", 1, 3, func(m *Machine, name string, a []Value) (Value, error) {
		start, end, err := s.span(m, name, a, 1)
		tail := Nil
		for i := end - 1; i >= start && err == nil; i-- {
			tail, err = m.cons(s.get(m, a[0], i), tail)
		}
		return tail, err
	})
	add("list->"+s.name, 1, 1, func(m *Machine, name string, a []Value) (Value, error) {
		count, ok := m.isList(a[0])
		if !ok {
			return 0, m.wrong(name, "a list", a[0])
		}
		for l := a[0]; l != Nil; l = m.cdr(l) {
			if err := s.element(m, name, m.car(l)); err != nil {
				return 0, err
			}
		}
		v, err := s.make(m, count)
		if err != nil {
			return 0, err
		}
		for i, l := 0, a[0]; i < count; i, l = i+1, m.cdr(l) {
			s.set(m, v, i, m.car(l))
		}
		return v, nil
	})
	return all
}

func init() {
	define(stringType.procedures()...)
	define(vectorType.procedures()...)
	define(bytesType.procedures()...)
	define(
		primitive{name: "substring", min: 3, max: 3, fn: func(m *Machine, a []Value) (Value, error) {
			return stringType.slice(m, "substring", a)
		}},
		primitive{name: "string->vector", min: 1, max: 3, fn: func(m *Machine, a []Value) (Value, error) {
			return m.convert("string->vector", &stringType, &vectorType, a)
		}},
		primitive{name: "vector->string", min: 1, max: 3, fn: func(m *Machine, a []Value) (Value, error) {
			return m.convert("vector->string", &vectorType, &stringType, a)
		}},
		primitive{name: "string->utf8", min: 1, max: 3, fn: func(m *Machine, a []Value) (Value, error) {
			start, end, err := stringType.span(m, "string->utf8", a, 1)
			if err != nil {
				return 0, err
			}
			text := m.textBetween(a[0], start, end)
			v, err := m.heap.NewBytes(kindBytes, len(text))
			if err == nil {
				copy(m.heap.Bytes(v), text)
			}
			return v, err
		}},
		primitive{name: "utf8->string", min: 1, max: 3, fn: func(m *Machine, a []Value) (Value, error) {
			start, end, err := bytesType.span(m, "utf8->string", a, 1)
			if err != nil {
				return 0, err
			}
			return m.stringValue(string(m.heap.Bytes(a[0])[start:end]))
		}},
	)
}

func (m *Machine) convert(name string, from, to *seqType, a []Value) (Value, error) {
	start, end, err := from.span(m, name, a, 1)
	for i := start; i < end && err == nil; i++ {
		err = to.element(m, name, from.get(m, a[0], i))
	}
	if err != nil {
		return 0, err
	}
	v, err := to.make(m, end-start)
	for i := start; i < end && err == nil; i++ {
		to.set(m, v, i-start, from.get(m, a[0], i))
	}
	return v, err
}
