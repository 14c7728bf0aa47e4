package vm

import (
	"cmp"
	"math"
)

// A number is a fixnum or a flonum, as a Go value.
type number struct {
	i       int64
	f       float64
	inexact bool
}

func exact(i int64) number     { return number{i: i} }
func inexact(f float64) number { return number{f: f, inexact: true} }

func (x number) float() float64 {
	if x.inexact {
		return x.f
	}
	return float64(x.i)
}

// integer returns x as an integer, if it is one.
func (x number) integer() (int64, bool) {
	if !x.inexact {
		return x.i, true
	}
	n := int64(x.f)
	return n, float64(n) == x.f && isFixnum(n)
}

func (m *Machine) number(v Value) (number, bool) {
	if isFix(v) {
		return exact(fixOf(v)), true
	}
	if m.is(v, kindFlonum) {
		return inexact(m.floatOf(v)), true
	}
	return number{}, false
}

func (m *Machine) numberValue(name string, x number) (Value, error) {
	if x.inexact {
		return m.newFloat(x.f)
	}
	if !isFixnum(x.i) {
		return 0, m.overflow(name)
	}
	return fixnum(x.i), nil
}

func (m *Machine) overflow(name string) error {
	return m.errorf(name + ": the result is an integer of more than 63 bits, which this Scheme does not have")
}

func (m *Machine) numbers(name string, a []Value) ([]number, error) {
	all := make([]number, len(a))
	for i, v := range a {
		var ok bool
		if all[i], ok = m.number(v); !ok {
			return nil, m.wrong(name, "a number", v)
		}
	}
	return all, nil
}

func mul(a, b int64) (int64, bool) {
	if a == 0 || b == 0 {
		return 0, true
	}
	p := a * b
	return p, p/b == a && !(a == -1 && b == math.MinInt64) && !(b == -1 && a == math.MinInt64) && isFixnum(p)
}

// arithmetic makes a primitive of an operation on two numbers. The identity is the value without arguments, and what
// stands before a single one if inverse.
func arithmetic(name string, min int, identity int64, inverse bool, i func(a, b int64) (int64, bool), f func(a, b float64) float64) primitive {
	return primitive{name: name, min: min, max: -1, fn: func(m *Machine, a []Value) (Value, error) {
		x := exact(identity)
		if len(a) > 1 || len(a) == 1 && !inverse {
			var ok bool
			if x, ok = m.number(a[0]); !ok {
				return 0, m.wrong(name, "a number", a[0])
			}
			a = a[1:]
		}
		for _, v := range a {
			y, ok := m.number(v)
			if !ok {
				return 0, m.wrong(name, "a number", v)
			}
			if x.inexact || y.inexact {
				x = inexact(f(x.float(), y.float()))
				continue
			}
			n, ok := i(x.i, y.i)
			if !ok || !isFixnum(n) {
				return 0, m.overflow(name)
			}
			x.i = n
		}
		return m.numberValue(name, x)
	}}
}

// orders are the comparisons, by name: of what cmp.Compare returns.
var orders = map[string]func(order int) bool{
	"=":  func(o int) bool { return o == 0 },
	"<":  func(o int) bool { return o < 0 },
	">":  func(o int) bool { return o > 0 },
	"<=": func(o int) bool { return o <= 0 },
	">=": func(o int) bool { return o >= 0 },
}

func comparison(name string, holds func(order int) bool) primitive {
	return primitive{name: name, min: 1, max: -1, fn: func(m *Machine, a []Value) (Value, error) {
		var last number
		all := true
		for i, v := range a {
			x, ok := m.number(v)
			if !ok {
				return 0, m.wrong(name, "a number", v)
			}
			if i > 0 {
				order, ok := compare(last, x)
				all = all && ok && holds(order)
			}
			last = x
		}
		return boolean(all), nil
	}}
}

// compare compares two numbers without rounding. It is not ok if one is no number.
func compare(x, y number) (order int, ok bool) {
	switch {
	case !x.inexact && !y.inexact:
		return cmp.Compare(x.i, y.i), true
	case math.IsNaN(x.f) || math.IsNaN(y.f):
		return 0, false
	case x.inexact && y.inexact:
		return cmp.Compare(x.f, y.f), true
	case x.inexact:
		order, _ = compare(y, x)
		return -order, true
	case y.f < minFixnum || y.f > maxFixnum:
		return cmp.Compare(0, y.f), true
	}
	whole := math.Trunc(y.f)
	return cmp.Or(cmp.Compare(x.i, int64(whole)), cmp.Compare(whole, y.f)), true
}

// division makes a primitive of an operation on two integers.
func division(name string, i func(a, b int64) int64) primitive {
	return primitive{name: name, min: 2, max: 2, fn: func(m *Machine, a []Value) (Value, error) {
		x, err := m.numbers(name, a)
		if err != nil {
			return 0, err
		}
		n, ok1 := x[0].integer()
		d, ok2 := x[1].integer()
		switch {
		case !ok1:
			return 0, m.wrong(name, "an integer", a[0])
		case !ok2:
			return 0, m.wrong(name, "an integer", a[1])
		case d == 0:
			return 0, m.errorf(name+": division by zero", a[0])
		}
		r := exact(i(n, d))
		if x[0].inexact || x[1].inexact {
			r = inexact(float64(r.i))
		}
		return m.numberValue(name, r)
	}}
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 && (a < 0) != (b < 0) {
		q--
	}
	return q
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return max(a, -a)
}

// numeric makes a primitive of a function of one number.
func numeric(name string, f func(x number) number) primitive {
	return primitive{name: name, min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) {
		x, ok := m.number(a[0])
		if !ok {
			return 0, m.wrong(name, "a number", a[0])
		}
		return m.numberValue(name, f(x))
	}}
}

func rounding(name string, f func(float64) float64) primitive {
	return numeric(name, func(x number) number {
		if x.inexact {
			x.f = f(x.f)
		}
		return x
	})
}

func analytic(name string, f func(float64) float64) primitive {
	return numeric(name, func(x number) number {
		if x == exact(0) && f(0) == math.Trunc(f(0)) { // exact where that is simple: (exp 0) is 1
			return exact(int64(f(0)))
		}
		return inexact(f(x.float()))
	})
}

func numberTest(name string, f func(x number) bool) primitive {
	return primitive{name: name, min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) {
		x, ok := m.number(a[0])
		if !ok {
			return 0, m.wrong(name, "a number", a[0])
		}
		return boolean(f(x)), nil
	}}
}

func parity(name string, odd bool) primitive {
	return primitive{name: name, min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) {
		x, ok := m.number(a[0])
		if !ok || !isWhole(x) {
			return 0, m.wrong(name, "an integer", a[0])
		}
		return boolean((x.i%2 != 0 || math.Mod(x.f, 2) != 0) == odd), nil
	}}
}

func kindTest(name string, f func(x number) bool) primitive {
	return test(name, func(m *Machine, v Value) bool {
		x, ok := m.number(v)
		return ok && f(x)
	})
}

func isWhole(x number) bool { return !x.inexact || x.f == math.Trunc(x.f) && !math.IsInf(x.f, 0) }
func isFinite(x number) bool {
	return !x.inexact || !math.IsInf(x.f, 0) && !math.IsNaN(x.f)
}

func init() {
	for name, holds := range orders {
		define(comparison(name, holds))
	}
	any := func(number) bool { return true }
	define(
		arithmetic("+", 0, 0, false, func(a, b int64) (int64, bool) { return a + b, true }, func(a, b float64) float64 { return a + b }),
		arithmetic("*", 0, 1, false, mul, func(a, b float64) float64 { return a * b }),
		arithmetic("-", 1, 0, true, func(a, b int64) (int64, bool) { return a - b, true }, func(a, b float64) float64 { return a - b }),
		arithmetic("max", 1, 0, false, func(a, b int64) (int64, bool) { return max(a, b), true }, math.Max),
		arithmetic("min", 1, 0, false, func(a, b int64) (int64, bool) { return min(a, b), true }, math.Min),
		primitive{name: "/", min: 1, max: -1, fn: divide},

		division("quotient", func(a, b int64) int64 { return a / b }),
		division("remainder", func(a, b int64) int64 { return a % b }),
		division("modulo", func(a, b int64) int64 { return a - b*floorDiv(a, b) }),
		division("truncate-quotient", func(a, b int64) int64 { return a / b }),
		division("truncate-remainder", func(a, b int64) int64 { return a % b }),
		division("floor-quotient", floorDiv),
		division("floor-remainder", func(a, b int64) int64 { return a - b*floorDiv(a, b) }),
		primitive{name: "gcd", max: -1, fn: func(m *Machine, a []Value) (Value, error) {
			return m.divisors("gcd", a, func(a, b int64) (int64, bool) { return gcd(a, b), true }, 0)
		}},
		primitive{name: "lcm", max: -1, fn: func(m *Machine, a []Value) (Value, error) {
			return m.divisors("lcm", a, func(a, b int64) (int64, bool) {
				if a == 0 || b == 0 {
					return 0, true
				}
				n, ok := mul(a/gcd(a, b), b)
				return max(n, -n), ok
			}, 1)
		}},

		kindTest("number?", any), kindTest("complex?", any), kindTest("real?", any),
		kindTest("rational?", isFinite), kindTest("integer?", isWhole),
		kindTest("exact-integer?", func(x number) bool { return !x.inexact }),
		numberTest("exact?", func(x number) bool { return !x.inexact }),
		numberTest("inexact?", func(x number) bool { return x.inexact }),
		numberTest("zero?", func(x number) bool { return x.float() == 0 }),
		numberTest("positive?", func(x number) bool { return x.float() > 0 }),
		numberTest("negative?", func(x number) bool { return x.float() < 0 }),
		numberTest("finite?", isFinite),
		numberTest("infinite?", func(x number) bool { return math.IsInf(x.float(), 0) }),
		numberTest("nan?", func(x number) bool { return math.IsNaN(x.float()) }),
		parity("odd?", true), parity("even?", false),

		rounding("floor", math.Floor), rounding("ceiling", math.Ceil),
		rounding("truncate", math.Trunc), rounding("round", math.RoundToEven),
		numeric("abs", func(x number) number { return number{max(x.i, -x.i), math.Abs(x.f), x.inexact} }),
		numeric("inexact", func(x number) number { return inexact(x.float()) }),
		numeric("numerator", func(x number) number { return number{x.i, x.f * denominator(x.f), x.inexact} }),
		numeric("denominator", func(x number) number { return number{1, denominator(x.f), x.inexact} }),
		primitive{name: "exact", min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) {
			x, ok := m.number(a[0])
			if !ok {
				return 0, m.wrong("exact", "a number", a[0])
			}
			n, ok := x.integer()
			if !ok {
				return 0, m.wrong("exact", "an integer of 63 bits, for there are no other exact numbers", a[0])
			}
			return fixnum(n), nil
		}},
		analytic("exp", math.Exp), analytic("sin", math.Sin), analytic("cos", math.Cos), analytic("tan", math.Tan),
		analytic("asin", math.Asin), analytic("acos", math.Acos),
		primitive{name: "atan", min: 1, max: 2, fn: func(m *Machine, a []Value) (Value, error) {
			x, err := m.numbers("atan", a)
			switch {
			case err != nil:
				return 0, err
			case x[0] == exact(0) && (len(x) == 1 || x[1].float() > 0 && !x[1].inexact):
				return fixnum(0), nil
			case len(x) == 1:
				return m.newFloat(math.Atan(x[0].f + float64(x[0].i)))
			}
			return m.newFloat(math.Atan2(x[0].float(), x[1].float()))
		}},
		primitive{name: "log", min: 1, max: 2, fn: func(m *Machine, a []Value) (Value, error) {
			x, err := m.numbers("log", a)
			switch {
			case err != nil:
				return 0, err
			case len(x) == 2:
				return m.newFloat(math.Log(x[0].float()) / math.Log(x[1].float()))
			case x[0] == exact(1):
				return fixnum(0), nil
			}
			return m.newFloat(math.Log(x[0].float()))
		}},
		primitive{name: "sqrt", min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) {
			x, ok := m.number(a[0])
			switch {
			case !ok:
				return 0, m.wrong("sqrt", "a number", a[0])
			case x.float() < 0:
				return 0, m.errorf("sqrt: there are no complex numbers", a[0])
			}
			if r := isqrt(x.i); !x.inexact && r*r == x.i {
				return fixnum(r), nil
			}
			return m.newFloat(math.Sqrt(x.float()))
		}},
		primitive{name: "%isqrt", min: 1, max: 1, fn: func(m *Machine, a []Value) (Value, error) {
			if !isFix(a[0]) || fixOf(a[0]) < 0 {
				return 0, m.wrong("exact-integer-sqrt", "an exact integer, not negative", a[0])
			}
			return fixnum(isqrt(fixOf(a[0]))), nil
		}},
		primitive{name: "expt", min: 2, max: 2, fn: expt},
		primitive{name: "number->string", min: 1, max: 2, fn: func(m *Machine, a []Value) (Value, error) {
			x, ok := m.number(a[0])
			if !ok {
				return 0, m.wrong("number->string", "a number", a[0])
			}
			radix, err := m.radix("number->string", a)
			if err != nil {
				return 0, err
			}
			if x.inexact && radix != 10 {
				return 0, m.errorf("number->string: a number that is not exact has radix 10", a[0], a[1])
			}
			return m.stringValue(formatNumber(x, radix))
		}},
		primitive{name: "string->number", min: 1, max: 2, fn: func(m *Machine, a []Value) (Value, error) {
			if !m.is(a[0], kindString) {
				return 0, m.wrong("string->number", "a string", a[0])
			}
			radix, err := m.radix("string->number", a)
			if err != nil {
				return 0, err
			}
			x, ok, err := parseNumber(m.text(a[0]), radix)
			if err != nil || !ok {
				return False, nil
			}
			return m.toHeap(x)
		}},
	)
}

// denominator is the least power of two by which f is an integer.
func denominator(f float64) float64 {
	d := 1.0
	for f != math.Trunc(f) && !math.IsNaN(f) && !math.IsInf(d, 0) {
		f, d = f*2, d*2
	}
	return d
}

func (m *Machine) radix(name string, a []Value) (int, error) {
	if len(a) < 2 {
		return 10, nil
	}
	if !isFix(a[1]) || fixOf(a[1]) < 2 || fixOf(a[1]) > 36 {
		return 0, m.wrong(name, "a radix of 2 to 36", a[1])
	}
	return int(fixOf(a[1])), nil
}

func isqrt(n int64) int64 {
	if n < 0 {
		return 0
	}
	r := int64(math.Sqrt(float64(n)))
	for r*r > n {
		r--
	}
	for (r+1)*(r+1) <= n {
		r++
	}
	return r
}

func divide(m *Machine, a []Value) (Value, error) {
	all, err := m.numbers("/", a)
	if err != nil {
		return 0, err
	}
	if len(all) == 1 {
		all = []number{exact(1), all[0]}
	}
	x := all[0]
	for _, y := range all[1:] {
		switch {
		case y == exact(0):
			return 0, m.errorf("/: division by zero", a...)
		case !x.inexact && !y.inexact && x.i%y.i == 0:
			x.i /= y.i
		default: // a fraction is not exact
			x = inexact(x.float() / y.float())
		}
	}
	return m.numberValue("/", x)
}

func (m *Machine) divisors(name string, a []Value, f func(a, b int64) (int64, bool), r int64) (Value, error) {
	all, err := m.numbers(name, a)
	if err != nil {
		return 0, err
	}
	result := exact(0)
	for i, x := range all {
		n, ok := x.integer()
		if !ok {
			return 0, m.wrong(name, "integers", a[i])
		}
		if r, ok = f(r, n); !ok {
			return 0, m.overflow(name)
		}
		result.inexact = result.inexact || x.inexact
	}
	result.i, result.f = r, float64(r)
	return m.numberValue(name, result)
}

func expt(m *Machine, a []Value) (Value, error) {
	x, err := m.numbers("expt", a)
	if err != nil {
		return 0, err
	}
	base, power := x[0], x[1]
	if base.inexact || power.inexact || power.i < 0 {
		return m.newFloat(math.Pow(base.float(), power.float()))
	}
	r, b := int64(1), base.i
	for n := power.i; ; {
		ok := true
		if n&1 != 0 {
			if r, ok = mul(r, b); !ok {
				return 0, m.overflow("expt")
			}
		}
		if n >>= 1; n == 0 {
			return m.numberValue("expt", exact(r))
		}
		if b, ok = mul(b, b); !ok {
			return 0, m.overflow("expt")
		}
	}
}
