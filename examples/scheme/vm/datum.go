package vm

// What the reader makes and the compiler reads is on the Go heap: int64, float64, bool, char,
// string, []byte, *symbol, null, *pair, *vector and unspecified. So the compiler need not know of collections.
// Constants are copied into the machine's heap at the end.
type (
	char        rune
	null        struct{}
	unspecified struct{}
	pair        struct{ car, cdr any }
	vector      struct{ items []any }
	symbol      struct {
		name string
		id   int // in Machine.symbols
	}
	// An opaque is an object of the machine's heap that eval was given: the number of a pin.
	opaque struct{ pin int }
)

// list returns a list of items.
func list(items ...any) any { return listWithTail(items, null{}) }

// listWithTail returns a list of items that ends in tail.
func listWithTail(items []any, tail any) any {
	for i := len(items) - 1; i >= 0; i-- {
		tail = &pair{items[i], tail}
	}
	return tail
}

// items returns the elements of a proper list.
func items(x any) (all []any, ok bool) {
	all, tail, _ := split(x)
	_, ok = tail.(null)
	return all, ok
}

// split returns the elements of a list and what it ends in. It is not ok if the list has no end.
func split(x any) (all []any, tail any, ok bool) {
	slow := x // goes half as fast: a list that they meet on has no end
	for n := 0; ; n++ {
		p, isPair := x.(*pair)
		if !isPair {
			return all, x, true
		}
		if n > 0 && n%2 == 0 {
			if slow = slow.(*pair).cdr; slow == x {
				return nil, x, false
			}
		}
		all = append(all, p.car)
		x = p.cdr
	}
}
