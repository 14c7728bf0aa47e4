package vm

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// The least and the greatest fixnum.
const (
	minFixnum = -1 << 62
	maxFixnum = 1<<62 - 1
)

func isFixnum(n int64) bool { return n >= minFixnum && n <= maxFixnum }

// parseNumber reads a number. The error is one that this Scheme does not have.
func parseNumber(s string, radix int) (x any, ok bool, err error) {
	whole, exactness, base := s, byte(0), 0
	for len(s) > 1 && s[0] == '#' {
		switch c := s[1] | 0x20; {
		case base == 0 && bases[c] != 0:
			base = bases[c]
		case exactness == 0 && (c == 'e' || c == 'i'):
			exactness = c
		default:
			return nil, false, nil
		}
		s = s[2:]
	}
	x, ok, err = parseReal(strings.ToLower(s), cmp.Or(base, radix), exactness == 'i')
	if err != nil || !ok {
		return nil, ok, err
	}
	switch v := x.(type) {
	case int64:
		if exactness == 'i' {
			return float64(v), true, nil
		}
	case float64:
		if exactness == 'e' {
			n := int64(v)
			if float64(n) != v || !isFixnum(n) {
				return nil, false, fmt.Errorf("%s: this Scheme has no exact numbers but integers of 63 bits", whole)
			}
			return n, true, nil
		}
	}
	return x, true, nil
}

// bases are the radixes of #x, #d, #o and #b.
var bases = map[byte]int{'x': 16, 'd': 10, 'o': 8, 'b': 2}

// parseReal reads a number without prefixes. A fraction is a flonum if inexact.
func parseReal(s string, radix int, inexact bool) (any, bool, error) {
	switch s {
	case "+inf.0":
		return math.Inf(1), true, nil
	case "-inf.0":
		return math.Inf(-1), true, nil
	case "+nan.0", "-nan.0":
		return math.NaN(), true, nil
	}
	if s == "" || strings.Contains(s, "_") {
		return nil, false, nil
	}
	n, err := strconv.ParseInt(s, radix, 64)
	if errors.Is(err, strconv.ErrRange) || err == nil && !isFixnum(n) {
		return nil, false, fmt.Errorf("%s: this Scheme has no integers of more than 63 bits", s)
	}
	if err == nil {
		return n, true, nil
	}
	if above, below, ok := strings.Cut(s, "/"); ok {
		a, err1 := strconv.ParseInt(above, radix, 64)
		b, err2 := strconv.ParseUint(below, radix, 62)
		if err1 != nil || err2 != nil || b == 0 {
			return nil, false, nil
		}
		if inexact {
			return float64(a) / float64(b), true, nil
		}
		if a%int64(b) != 0 || !isFixnum(a) {
			return nil, false, fmt.Errorf("%s: this Scheme has no exact fractions: write it as a decimal", s)
		}
		return a / int64(b), true, nil
	}
	if radix != 10 || strings.IndexFunc(s, func(c rune) bool { return !strings.ContainsRune("0123456789+-.e", c) }) >= 0 {
		return nil, false, nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return nil, false, nil
	}
	return f, true, nil
}

func formatNumber(x number, radix int) string {
	if !x.inexact {
		return strconv.FormatInt(x.i, radix)
	}
	switch {
	case math.IsNaN(x.f):
		return "+nan.0"
	case math.IsInf(x.f, 0):
		return fmt.Sprintf("%+.0f", x.f)[:1] + "inf.0"
	}
	format := byte('f')
	if abs := math.Abs(x.f); abs != 0 && (abs < 1e-7 || abs >= 1e21) {
		format = 'e'
	}
	s := strconv.FormatFloat(x.f, format, -1, 64)
	if format == 'e' {
		mantissa, exponent, _ := strings.Cut(s, "e")
		n, _ := strconv.Atoi(exponent)
		return fmt.Sprintf("%se%d", mantissa, n)
	}
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}
