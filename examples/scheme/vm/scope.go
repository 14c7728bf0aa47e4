package vm

import "fmt"

// An identifier is a *symbol or an *alias. An alias is a symbol that a macro has inserted: unless something
// binds the alias itself, it means what its name means where the macro was defined. So
// neither the macro's names nor those of its user capture the other's.
type alias struct {
	name any // an identifier
	in   *scope
}

// base is the symbol that x was at first.
func (x *alias) base() *symbol {
	for {
		switch name := x.name.(type) {
		case *symbol:
			return name
		case *alias:
			x = name
		}
	}
}

func isIdentifier(x any) bool {
	switch x.(type) {
	case *symbol, *alias:
		return true
	}
	return false
}

func baseName(x any) *symbol {
	if a, ok := x.(*alias); ok {
		return a.base()
	}
	return x.(*symbol)
}

// strip makes plain data of syntax: aliases become the symbols that they were.
func (c *compiler) strip(x any, seen map[any]any) any {
	c.enter()
	defer c.leave()
	switch x := x.(type) {
	case *alias:
		return x.base()
	case *vector:
		if v, ok := seen[x]; ok {
			return v
		}
		v := &vector{make([]any, len(x.items))}
		seen[x] = v
		for i, item := range x.items {
			v.items[i] = c.strip(item, seen)
		}
		return v
	case *pair:
		if v, ok := seen[x]; ok {
			return v
		}
		first := &pair{}
		for v := first; ; {
			seen[x] = v
			v.car = c.strip(x.car, seen)
			next, ok := x.cdr.(*pair)
			if !ok || seen[next] != nil {
				v.cdr = c.strip(x.cdr, seen)
				return first
			}
			n := &pair{}
			v.cdr, v, x = n, n, next
		}
	}
	return x
}

// A scope binds identifiers inside a form: to a *variable or to syntax. The global scope is nil.
type scope struct {
	outer *scope
	names map[any]any
}

func newScope(outer *scope) *scope { return &scope{outer, make(map[any]any)} }

// A variable is local. All that is set after its beginning is in a box, because continuations
// copy the stack and closures copy variables.
type variable struct {
	name string
	fn   *lambda // whose frame it is in
	set  bool
	slot int
}

// A global is a variable of the top level. There is one for each symbol.
type global struct {
	sym   *symbol
	index int // in Machine.globals
}

// A special is syntax that the compiler knows.
type special struct {
	name   string
	expand func(c *compiler, form []any, env *scope, fn *lambda) node
}

// lookup returns what id is bound to in env: *variable, *macro, *special or *global.
func (m *Machine) lookup(id any, env *scope) any {
	for {
		for s := env; s != nil; s = s.outer {
			if b, ok := s.names[id]; ok {
				return b
			}
		}
		switch x := id.(type) {
		case *alias:
			id, env = x.name, x.in
		case *symbol:
			if b, ok := m.syntax[x]; ok {
				return b
			}
			return m.global(x)
		}
	}
}

// A macro is what syntax-rules makes.
type macro struct {
	ellipsis any // nil for ...
	literals []any
	rules    [][2]any // pattern, template
	env      *scope
}

func (c *compiler) syntaxRules(spec any, env *scope) *macro {
	form, ok := items(spec)
	if !ok || len(form) < 2 || !c.isCore(form[0], "syntax-rules", env) {
		c.fail("syntax is defined by (syntax-rules (LITERAL ...) (PATTERN TEMPLATE) ...), not by %s", show(spec))
	}
	mac := &macro{env: env}
	rest := form[1:]
	if isIdentifier(rest[0]) {
		mac.ellipsis, rest = rest[0], rest[1:]
	}
	if len(rest) == 0 {
		c.fail("syntax-rules without literals: %s", show(spec))
	}
	if mac.literals, ok = items(rest[0]); !ok {
		c.fail("syntax-rules: the literals are no list: %s", show(rest[0]))
	}
	for _, r := range rest[1:] {
		rule, ok := items(r)
		if !ok || len(rule) != 2 {
			c.fail("syntax-rules: a rule is (PATTERN TEMPLATE), not %s", show(r))
		}
		if _, ok := rule[0].(*pair); !ok {
			c.fail("syntax-rules: a pattern is a list, not %s", show(rule[0]))
		}
		mac.rules = append(mac.rules, [2]any{rule[0], rule[1]})
	}
	return mac
}

func (mac *macro) isEllipsis(x any) bool {
	if !isIdentifier(x) {
		return false
	}
	if mac.ellipsis == nil {
		return baseName(x).name == "..." && !mac.isLiteral(x)
	}
	return x == mac.ellipsis
}

func (mac *macro) isLiteral(x any) bool {
	for _, l := range mac.literals {
		if l == x {
			return true
		}
	}
	return false
}

// expand rewrites a form that uses the macro in env.
func (mac *macro) expand(c *compiler, form *pair, env *scope) any {
	for _, rule := range mac.rules {
		found := make(map[any]any)
		if mac.match(c, rule[0].(*pair).cdr, form.cdr, env, found) { // the macro's own name matches
			return mac.fill(c, rule[1], found, make(map[any]*alias))
		}
	}
	c.fail("no rule of the macro fits %s", show(form))
	return nil
}

// A sequence is what a pattern before an ellipsis has matched: one map for each.
type sequence []map[any]any

func (mac *macro) match(c *compiler, pattern, form any, env *scope, found map[any]any) bool {
	c.enter()
	defer c.leave()
	switch p := pattern.(type) {
	case *symbol, *alias:
		if mac.isLiteral(p) {
			return isIdentifier(form) && c.m.lookup(form, env) == c.m.lookup(p, mac.env)
		}
		if baseName(p).name != "_" {
			found[p] = form
		}
		return true
	case *pair:
		if next, ok := p.cdr.(*pair); ok && mac.isEllipsis(next.car) {
			return mac.matchMany(c, p.car, next.cdr, form, env, found)
		}
		f, ok := form.(*pair)
		return ok && mac.match(c, p.car, f.car, env, found) && mac.match(c, p.cdr, f.cdr, env, found)
	case *vector:
		f, ok := form.(*vector)
		return ok && mac.match(c, list(p.items...), list(f.items...), env, found)
	case []byte:
		f, ok := form.([]byte)
		return ok && string(p) == string(f)
	}
	return pattern == form
}

// matchMany matches pattern with as many forms as leave enough for what follows the ellipsis.
func (mac *macro) matchMany(c *compiler, pattern, after, form any, env *scope, found map[any]any) bool {
	forms, rest, ok := split(form)
	last, _, _ := split(after)
	n := len(forms) - len(last)
	if !ok || n < 0 {
		return false
	}
	var seq sequence
	for _, f := range forms[:n] {
		one := make(map[any]any)
		if !mac.match(c, pattern, f, env, one) {
			return false
		}
		seq = append(seq, one)
	}
	for _, id := range mac.variables(c, pattern, nil) {
		each := make(sequence, n)
		for i, one := range seq {
			each[i] = map[any]any{id: one[id]}
		}
		found[id] = each
	}
	return mac.match(c, after, listWithTail(forms[n:], rest), env, found)
}

// variables appends the pattern variables of a pattern.
func (mac *macro) variables(c *compiler, pattern any, ids []any) []any {
	c.enter()
	defer c.leave()
	switch p := pattern.(type) {
	case *symbol, *alias:
		if !mac.isLiteral(p) && !mac.isEllipsis(p) && baseName(p).name != "_" {
			ids = append(ids, p)
		}
	case *pair:
		ids = mac.variables(c, p.cdr, mac.variables(c, p.car, ids))
	case *vector:
		for _, item := range p.items {
			ids = mac.variables(c, item, ids)
		}
	}
	return ids
}

// fill makes a form of a template. Identifiers that are no pattern variables become aliases.
func (mac *macro) fill(c *compiler, template any, found map[any]any, aliases map[any]*alias) any {
	c.enter()
	defer c.leave()
	switch t := template.(type) {
	case *symbol, *alias:
		if v, ok := found[t]; ok {
			if _, many := v.(sequence); many {
				c.fail("syntax-rules: %s needs an ellipsis in the template", show(t))
			}
			return v
		}
		a := aliases[t]
		if a == nil {
			a = &alias{t, mac.env}
			aliases[t] = a
		}
		return a
	case *vector:
		all, _ := items(mac.fill(c, list(t.items...), found, aliases))
		return &vector{all}
	case *pair:
		if mac.isEllipsis(t.car) { // (... ...) is an ellipsis itself
			if next, ok := t.cdr.(*pair); ok {
				quoted := *mac
				quoted.ellipsis = new(int)
				return quoted.fill(c, next.car, found, aliases)
			}
		}
		depth, rest := 0, t.cdr
		for next, ok := rest.(*pair); ok && mac.isEllipsis(next.car); next, ok = rest.(*pair) {
			depth++
			rest = next.cdr
		}
		tail := func() any { return mac.fill(c, rest, found, aliases) }
		if depth == 0 {
			return &pair{mac.fill(c, t.car, found, aliases), tail()}
		}
		return listWithTail(mac.fillMany(c, t.car, depth, found, aliases), tail())
	}
	return template
}

// fillMany fills a template that depth ellipses follow, once for each of the forms that its variables have matched.
func (mac *macro) fillMany(c *compiler, template any, depth int, found map[any]any, aliases map[any]*alias) (all []any) {
	n := -1
	var many []any
	for _, id := range mac.variables(c, template, nil) {
		if seq, ok := found[id].(sequence); ok {
			if n >= 0 && len(seq) != n {
				c.fail("syntax-rules: %s has matched %d forms, and another variable before the ellipsis %d", show(id), len(seq), n)
			}
			n = len(seq)
			many = append(many, id)
		}
	}
	if n < 0 {
		c.fail("syntax-rules: nothing in %s can be repeated", show(template))
	}
	for i := range n {
		one := make(map[any]any, len(found))
		for id, v := range found {
			one[id] = v
		}
		for _, id := range many {
			one[id] = found[id].(sequence)[i][id]
		}
		if depth > 1 {
			all = append(all, mac.fillMany(c, template, depth-1, one, aliases)...)
		} else {
			all = append(all, mac.fill(c, template, one, aliases))
		}
	}
	return all
}

// show is a datum in an error message.
func show(x any) string {
	s := showDatum(x, 4)
	if len(s) > 200 {
		s = string([]rune(s)[:min(60, len([]rune(s)))]) + "…"
	}
	return s
}

func showDatum(x any, depth int) string {
	if depth == 0 {
		return "…"
	}
	switch x := x.(type) {
	case *symbol:
		return x.name
	case *alias:
		return x.base().name
	case null:
		return "()"
	case string:
		return fmt.Sprintf("%q", x)
	case bool:
		if x {
			return "#t"
		}
		return "#f"
	case char:
		return `#\` + string(rune(x))
	case *vector:
		return "#" + showDatum(list(x.items[:min(len(x.items), 8)]...), depth)
	case *pair:
		s := "("
		for n := 0; ; n++ {
			s += showDatum(x.car, depth-1)
			next, ok := x.cdr.(*pair)
			if !ok || n == 8 {
				if _, end := x.cdr.(null); ok {
					s += " …"
				} else if !end {
					s += " . " + showDatum(x.cdr, depth-1)
				}
				return s + ")"
			}
			s += " "
			x = next
		}
	}
	return fmt.Sprint(x)
}
