package vm

// path makes a primitive such as cadr.
func path(name string) primitive {
	steps := name[1 : len(name)-1]
	return primitive{name: name, min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) {
		v := a[0]
		for i := len(steps) - 1; i >= 0; i-- {
			if !m.is(v, kindPair) {
				return 0, m.wrong(name, "a pair", a[0])
			}
			v = m.heap.Get(v, int(steps[i]-'a')/3) // a is 0, d is 1
		}
		return v, nil
	}}
}

func setField(name string, i int) primitive {
	return primitive{name: name, min: 2, max: 2, fn: func(m *Machine, a []Value) (Value, error) {
		if !m.is(a[0], kindPair) {
			return 0, m.wrong(name, "a pair", a[0])
		}
		m.heap.Set(a[0], i, a[1])
		return Unspecified, nil
	}}
}

// member makes memq, memv, assq or assv.
func member(name string, association bool, same func(m *Machine, a, b Value) bool) primitive {
	return primitive{name: name, min: 2, max: 2, fn: func(m *Machine, a []Value) (Value, error) {
		for l := a[1]; ; l = m.cdr(l) {
			if l == Nil {
				return False, nil
			}
			if !m.is(l, kindPair) {
				return 0, m.wrong(name, "a list", a[1])
			}
			x := m.car(l)
			if !association {
				if same(m, a[0], x) {
					return l, nil
				}
				continue
			}
			if !m.is(x, kindPair) {
				return 0, m.wrong(name, "a list of pairs", a[1])
			}
			if same(m, a[0], m.car(x)) {
				return x, nil
			}
		}
	}}
}

func init() {
	for steps := []string{""}; len(steps[0]) < 4; { // car and cdr, and all compositions of up to four
		var more []string
		for _, s := range steps {
			more = append(more, s+"a", s+"d")
		}
		for _, s := range more {
			define(path("c" + s + "r"))
		}
		steps = more
	}
	same := func(m *Machine, a, b Value) bool { return a == b }
	define(
		primitive{name: "cons", min: 2, max: 2, fn: func(m *Machine, a []Value) (Value, error) { return m.object(kindPair, &a[0], &a[1]) }},
		setField("set-car!", 0), setField("set-cdr!", 1),
		member("memq", false, same), member("memv", false, (*Machine).eqv), member("%member", false, (*Machine).equal),
		member("assq", true, same), member("assv", true, (*Machine).eqv), member("%assoc", true, (*Machine).equal),
		test("list?", func(m *Machine, v Value) bool {
			_, ok := m.isList(v)
			return ok
		}),
		primitive{name: "length", min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) {
			n, ok := m.isList(a[0])
			if !ok {
				return 0, m.wrong("length", "a list", a[0])
			}
			return fixnum(int64(n)), nil
		}},
		primitive{name: "list", max: -1, fn: func(m *Machine, a []Value) (Value, error) { return m.restList(a) }},
		primitive{name: "make-list", min: 1, max: 2, fn: func(m *Machine, a []Value) (Value, error) {
			n, err := m.size("make-list", a[0], maxSize)
			tail := Nil
			for ; n > 0 && err == nil; n-- {
				fill := Unspecified
				if len(a) == 2 {
					fill = a[1]
				}
				tail, err = m.cons(fill, tail)
			}
			return tail, err
		}},
		primitive{name: "append", max: -1, fn: func(m *Machine, a []Value) (Value, error) {
			b := m.newBuilder()
			for i := range a {
				if i == len(a)-1 {
					return b.end(a[i]), nil
				}
				if _, ok := m.isList(a[i]); !ok {
					return 0, m.wrong("append", "a list", a[i])
				}
				at := m.pin(a[i])
				for ; m.pins[at] != Nil; m.pins[at] = m.cdr(m.pins[at]) {
					if err := b.add(m.car(m.pins[at])); err != nil {
						return 0, err
					}
				}
			}
			return b.list(), nil
		}},
		primitive{name: "reverse", min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) {
			if _, ok := m.isList(a[0]); !ok {
				return 0, m.wrong("reverse", "a list", a[0])
			}
			at := m.pin(a[0])
			defer func() { m.pins = m.pins[:at] }()
			tail := Nil
			for m.pins[at] != Nil {
				var err error
				if tail, err = m.cons(m.car(m.pins[at]), tail); err != nil {
					return 0, err
				}
				m.pins[at] = m.cdr(m.pins[at])
			}
			return tail, nil
		}},
		primitive{name: "list-tail", min: 2, max: 2, fn: func(m *Machine, a []Value) (Value, error) {
			n, err := m.size("list-tail", a[1], maxSize)
			v := a[0]
			for ; n > 0 && err == nil; n-- {
				if !m.is(v, kindPair) {
					return 0, m.errorf("list-tail: the list is too short", a[0], a[1])
				}
				v = m.cdr(v)
			}
			return v, err
		}},
		primitive{name: "list-copy", min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) {
			b := m.newBuilder()
			at := m.pin(a[0])
			for ; m.is(m.pins[at], kindPair); m.pins[at] = m.cdr(m.pins[at]) {
				if err := b.add(m.car(m.pins[at])); err != nil {
					return 0, err
				}
			}
			return b.end(m.pins[at]), nil
		}},
	)
}
