package vm

import (
	"time"

	"github.com/alloctrace/alloctrace/examples/scheme/immix"
)

// A primitive is a procedure in Go. Its arguments are on the machine's stack: they stay right when it
// allocates. Other values do not, unless they are pinned.
type primitive struct {
	name     string
	min, max int // arguments; max is negative for any number
	fn       func(m *Machine, a []Value) (Value, error)
	special  int // instead of fn: what run does
}

const (
	_ = iota
	specialApply
	specialValues
	specialCapture
	specialEval
	specialUncaught
	specialExit
)

var primitives []primitive

func define(all ...primitive) { primitives = append(primitives, all...) }

// of makes a primitive of a function that only looks at its arguments.
func of(name string, n int, f func(m *Machine, a []Value) Value) primitive {
	return primitive{name: name, min: n, max: n, fn: func(m *Machine, a []Value) (Value, error) { return f(m, a), nil }}
}

func test(name string, f func(m *Machine, v Value) bool) primitive {
	return of(name, 1, func(m *Machine, a []Value) Value { return boolean(f(m, a[0])) })
}

func init() {
	define(
		primitive{name: "apply", special: specialApply},
		primitive{name: "%apply-values", special: specialValues},
		primitive{name: "%call/cc", special: specialCapture},
		primitive{name: "eval", special: specialEval},
		primitive{name: "%uncaught", special: specialUncaught},
		primitive{name: "%exit", special: specialExit},

		of("eq?", 2, func(m *Machine, a []Value) Value { return boolean(a[0] == a[1]) }),
		of("eqv?", 2, func(m *Machine, a []Value) Value { return boolean(m.eqv(a[0], a[1])) }),
		of("equal?", 2, func(m *Machine, a []Value) Value { return boolean(m.equal(a[0], a[1])) }),
		test("not", func(m *Machine, v Value) bool { return v == False }),
		test("boolean?", func(m *Machine, v Value) bool { return v == False || v == True }),
		test("null?", func(m *Machine, v Value) bool { return v == Nil }),
		test("pair?", func(m *Machine, v Value) bool { return m.is(v, kindPair) }),
		test("symbol?", func(m *Machine, v Value) bool { return isTag(v, tagSymbol) }),
		test("string?", func(m *Machine, v Value) bool { return m.is(v, kindString) }),
		test("char?", func(m *Machine, v Value) bool { return isTag(v, tagChar) }),
		test("vector?", func(m *Machine, v Value) bool { return m.is(v, kindVector) }),
		test("bytevector?", func(m *Machine, v Value) bool { return m.is(v, kindBytes) }),
		test("procedure?", func(m *Machine, v Value) bool { return m.isProcedure(v) }),
		test("eof-object?", func(m *Machine, v Value) bool { return v == EOF }),
		of("eof-object", 0, func(*Machine, []Value) Value { return EOF }),
		primitive{name: "boolean=?", min: 2, max: -1, fn: func(m *Machine, a []Value) (Value, error) {
			return m.same("boolean=?", a, func(v Value) bool { return v == True || v == False }, "a boolean")
		}},
		primitive{name: "symbol=?", min: 2, max: -1, fn: func(m *Machine, a []Value) (Value, error) {
			return m.same("symbol=?", a, func(v Value) bool { return isTag(v, tagSymbol) }, "a symbol")
		}},
		primitive{name: "values", max: -1, fn: func(m *Machine, a []Value) (Value, error) {
			if len(a) == 1 {
				return a[0], nil
			}
			return m.tuple(kindValues, a)
		}},
		primitive{name: "%case-lambda", max: -1, fn: func(m *Machine, a []Value) (Value, error) { return m.tuple(kindCases, a) }},

		primitive{name: "%condition", min: 3, max: 3, fn: func(m *Machine, a []Value) (Value, error) { // message, irritants, kind
			return m.object(kindCondition, &a[0], &a[1], &a[2])
		}},
		test("error-object?", func(m *Machine, v Value) bool { return m.is(v, kindCondition) }),
		field("error-object-message", kindCondition, "an error object", 0),
		field("error-object-irritants", kindCondition, "an error object", 1),
		field("%condition-kind", kindCondition, "an error object", 2),

		primitive{name: "%record-type", min: 2, max: 2, fn: func(m *Machine, a []Value) (Value, error) {
			return m.object(kindRecordType, &a[0], &a[1])
		}},
		primitive{name: "%record", min: 1, max: -1, fn: func(m *Machine, a []Value) (Value, error) { return m.tuple(kindRecord, a) }},
		of("%record?", 2, func(m *Machine, a []Value) Value { return boolean(m.isRecord(a[0], a[1])) }),
		primitive{name: "%record-ref", min: 4, max: 4, fn: func(m *Machine, a []Value) (Value, error) { // record, type, field, accessor
			if !m.isRecord(a[0], a[1]) {
				return 0, m.notRecord(a[0], a[1], a[3])
			}
			return m.heap.Get(a[0], 1+int(fixOf(a[2]))), nil
		}},
		primitive{name: "%record-set!", min: 5, max: 5, fn: func(m *Machine, a []Value) (Value, error) { // record, type, field, value, modifier
			if !m.isRecord(a[0], a[1]) {
				return 0, m.notRecord(a[0], a[1], a[4])
			}
			m.heap.Set(a[0], 1+int(fixOf(a[2])), a[3])
			return Unspecified, nil
		}},

		test("promise?", func(m *Machine, v Value) bool { return m.is(v, kindPromise) }),
		primitive{name: "%promise", min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) { return m.object(kindPromise, &a[0]) }},
		field("%promise-box", kindPromise, "a promise", 0),
		primitive{name: "%set-promise-box!", min: 2, max: 2, fn: func(m *Machine, a []Value) (Value, error) {
			if !m.is(a[0], kindPromise) {
				return 0, m.wrong("%set-promise-box!", "a promise", a[0])
			}
			m.heap.Set(a[0], 0, a[1])
			return Unspecified, nil
		}},

		primitive{name: "symbol->string", min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) {
			if !isTag(a[0], tagSymbol) {
				return 0, m.wrong("symbol->string", "a symbol", a[0])
			}
			return m.stringValue(m.symbols[payload(a[0])].name)
		}},
		primitive{name: "string->symbol", min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) {
			if !m.is(a[0], kindString) {
				return 0, m.wrong("string->symbol", "a string", a[0])
			}
			return immediate(tagSymbol, m.intern(m.text(a[0])).id), nil
		}},
		primitive{name: "%hash", min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) { return fixnum(int64(m.hash(a[0], 4))), nil }},
		primitive{name: "%hash-eq", min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) { return fixnum(int64(m.hash(a[0], 0))), nil }},

		primitive{name: "command-line", fn: func(m *Machine, a []Value) (Value, error) { return m.stringList(m.o.Args) }},
		primitive{name: "features", fn: func(m *Machine, a []Value) (Value, error) {
			b := m.newBuilder()
			for _, f := range features {
				if err := b.add(immediate(tagSymbol, m.intern(f).id)); err != nil {
					return 0, err
				}
			}
			return b.list(), nil
		}},
		of("current-jiffy", 0, func(m *Machine, a []Value) Value { return fixnum(time.Since(m.began).Nanoseconds()) }),
		of("jiffies-per-second", 0, func(m *Machine, a []Value) Value { return fixnum(1e9) }),
		primitive{name: "current-second", fn: func(m *Machine, a []Value) (Value, error) {
			return m.newFloat(float64(time.Now().UnixNano()) / 1e9)
		}},
		primitive{name: "gc", fn: func(m *Machine, a []Value) (Value, error) { // how many bytes are live
			err := m.heap.Collect()
			last, _ := m.heap.Last()
			return fixnum(last.Live), err
		}},
		primitive{name: "interaction-environment", fn: func(m *Machine, a []Value) (Value, error) { return m.object(kindEnvironment) }},
	)
	define(register("%handlers", "%set-handlers!", regHandlers)...)
	define(register("%winders", "%set-winders!", regWinders)...)
}

// register is a pair of primitives that read and write a register.
func register(get, set string, r int) []primitive {
	return []primitive{
		of(get, 0, func(m *Machine, a []Value) Value { return m.reg[r] }),
		of(set, 1, func(m *Machine, a []Value) Value {
			m.reg[r] = a[0]
			return Unspecified
		}),
	}
}

// wrong is the error for an argument that is not what the procedure wants.
func (m *Machine) wrong(name, want string, v Value) error {
	return m.errorf(name+": wants "+want+", got", v)
}

func (m *Machine) same(name string, a []Value, is func(Value) bool, want string) (Value, error) {
	equal := true
	for _, v := range a {
		if !is(v) {
			return 0, m.wrong(name, want, v)
		}
		equal = equal && v == a[0]
	}
	return boolean(equal), nil
}

func (m *Machine) isProcedure(v Value) bool {
	return isTag(v, tagPrim) || m.is(v, kindClosure) || m.is(v, kindCases) || m.is(v, kindContinuation)
}

func (m *Machine) isRecord(v, of Value) bool { return m.is(v, kindRecord) && m.heap.Get(v, 0) == of }

func (m *Machine) notRecord(v, of, by Value) error {
	return m.wrong(m.show(by, false), "a "+m.show(m.heap.Get(of, 0), false), v)
}

func (m *Machine) stringList(all []string) (Value, error) {
	b := m.newBuilder()
	for _, s := range all {
		v, err := m.stringValue(s)
		if err == nil {
			err = b.add(v)
		}
		if err != nil {
			return 0, err
		}
	}
	return b.list(), nil
}

func (m *Machine) eqv(a, b Value) bool {
	if a == b {
		return true
	}
	if m.is(a, kindFlonum) && m.is(b, kindFlonum) {
		return order.Uint64(m.heap.Bytes(a)) == order.Uint64(m.heap.Bytes(b))
	}
	return false
}

// equal compares contents. Pairs and vectors that are compared already, further up or beside, are
// taken as equal, so that it ends where data are circular.
func (m *Machine) equal(a, b Value) bool {
	type two struct{ a, b Value }
	todo := []two{{a, b}}
	var seen map[two]bool
	for steps := 0; len(todo) > 0; steps++ {
		t := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if m.eqv(t.a, t.b) {
			continue
		}
		if !t.a.IsRef() || !t.b.IsRef() || m.heap.Kind(t.a) != m.heap.Kind(t.b) || m.heap.Len(t.a) != m.heap.Len(t.b) {
			return false
		}
		switch m.heap.Kind(t.a) {
		case kindString, kindBytes:
			if string(m.heap.Bytes(t.a)) != string(m.heap.Bytes(t.b)) {
				return false
			}
		case kindPair, kindVector:
			if steps > 10_000 { // they may be circular
				if seen == nil {
					seen = make(map[two]bool)
				}
				if seen[t] {
					continue
				}
				seen[t] = true
			}
			x, y := m.heap.Words(t.a), m.heap.Words(t.b)
			for i := len(x) - 1; i >= 0; i-- {
				todo = append(todo, two{x[i], y[i]})
			}
		default:
			return false
		}
	}
	return true
}

// hash is equal for values that are equal, if depth is above zero, or the same, if it is zero.
func (m *Machine) hash(v Value, depth int) uint32 {
	mix := func(h, x uint32) uint32 { return (h ^ x) * 16777619 } // FNV-1a, with words for bytes
	if !v.IsRef() {
		return mix(mix(2166136261, uint32(v)), uint32(v>>32)) >> 3
	}
	k := m.heap.Kind(v)
	text, compound := k == kindString || k == kindBytes, k == kindPair || k == kindVector
	h := uint32(2166136261)
	switch {
	case k == kindFlonum || text && depth > 0:
		for _, b := range m.heap.Bytes(v) {
			h = mix(h, uint32(b))
		}
	case compound && depth > 1:
		for i := range min(m.heap.Len(v), 8) {
			h = mix(h, m.hash(m.heap.Get(v, i), depth-1))
		}
	case !compound || depth == 0: // else what is this deep does not count
		h = mix(h, uint32(m.heap.Hash(v)))
	}
	return h >> 3
}

// field makes a primitive that reads field i of an object.
func field(name string, k immix.Kind, want string, i int) primitive {
	return primitive{name: name, min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) {
		if !m.is(a[0], k) {
			return 0, m.wrong(name, want, a[0])
		}
		return m.heap.Get(a[0], i), nil
	}}
}
