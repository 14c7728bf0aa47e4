package vm

import (
	"fmt"
	"slices"
)

// The nodes that forms are expanded to.
type (
	node     any
	constant struct{ datum any }
	localRef struct{ v *variable }
	localSet struct {
		v *variable
		x node
	}
	globalRef struct{ g *global }
	globalSet struct {
		g      *global
		x      node
		define bool
	}
	branch struct{ test, then, otherwise node }
	block  []node // in turn; the last one is the value
	call   struct {
		f    node
		args []node
	}
	// A let has variables in the frame of its lambda. A nil init leaves one unassigned.
	let struct {
		vars  []*variable
		inits []node
		body  node
	}
	lambda struct {
		name   string
		params []*variable
		rest   bool // the last parameter takes all further arguments
		body   node
		outer  *lambda
		free   []*variable // of outer lambdas
	}
)

// A compiler expands and compiles one form of the top level.
type compiler struct {
	m          *Machine
	depth      int // how many steps are inside each other
	expansions int // of macros
}

// fail ends the compilation.
func (c *compiler) fail(format string, args ...any) {
	panic(&SyntaxError{Text: fmt.Sprintf(format, args...)})
}

// core is an identifier that means what name does to the prelude, whatever the program defines.
func (c *compiler) core(name string) *alias { return &alias{c.m.intern(name), c.m.system} }

// enter begins, and leave ends, a step of the compiler that may have others like it inside. They bound the Go stack.
func (c *compiler) enter() {
	if c.depth++; c.depth > maxDepth {
		c.fail("expressions are nested more than %d deep, or a macro never ends", maxDepth)
	}
}

func (c *compiler) leave() { c.depth-- }

// expr expands an expression.
func (c *compiler) expr(x any, env *scope, fn *lambda) node {
	c.enter()
	defer c.leave()
	switch x := x.(type) {
	case *symbol, *alias:
		return c.reference(x, env, fn)
	case *pair:
		if isIdentifier(x.car) {
			switch b := c.m.lookup(x.car, env).(type) {
			case *macro:
				return c.expr(c.use(b, x, env), env, fn)
			case *special:
				return b.expand(c, c.form(x), env, fn)
			}
		}
		form := c.form(x)
		n := call{f: c.expr(form[0], env, fn)}
		for _, a := range form[1:] {
			n.args = append(n.args, c.expr(a, env, fn))
		}
		return n
	case null:
		c.fail("() is no expression: quote it")
	}
	return constant{c.strip(x, make(map[any]any))}
}

func (c *compiler) form(x *pair) []any {
	form, ok := items(x)
	if !ok {
		c.fail("a form must be a proper list: %s", show(x))
	}
	return form
}

func (c *compiler) reference(id any, env *scope, fn *lambda) node {
	switch b := c.m.lookup(id, env).(type) {
	case *variable:
		capture(b, fn)
		return localRef{b}
	case *global:
		return globalRef{b}
	}
	c.fail("%s is syntax, and no variable", show(id))
	return nil
}

// capture makes v a free variable of fn and of the lambdas between fn and that of v.
func capture(v *variable, fn *lambda) {
	for ; fn != v.fn; fn = fn.outer {
		if slices.Contains(fn.free, v) {
			return
		}
		fn.free = append(fn.free, v)
	}
}

func (c *compiler) bind(env *scope, id any, fn *lambda) *variable {
	if !isIdentifier(id) {
		c.fail("%s cannot be a variable: use a symbol", show(id))
	}
	if _, ok := env.names[id]; ok {
		c.fail("%s is bound twice", show(id))
	}
	v := &variable{name: baseName(id).name, fn: fn}
	env.names[id] = v
	return v
}

func (c *compiler) lambda(name string, formals any, body []any, env *scope, outer *lambda) node {
	fn := &lambda{name: name, outer: outer}
	inner := newScope(env)
	for p, ok := formals.(*pair); ok; p, ok = formals.(*pair) {
		fn.params = append(fn.params, c.bind(inner, p.car, fn))
		formals = p.cdr
	}
	if _, end := formals.(null); !end {
		fn.params, fn.rest = append(fn.params, c.bind(inner, formals, fn)), true
	}
	fn.body = c.body(body, inner, fn)
	return fn
}

// An item of a body is a definition, or an expression if v is nil.
type item struct {
	v    *variable
	make func() node // what its value is; nil if another item sets it
}

// maxExpansions bounds the uses of macros in one form of the top level.
const maxExpansions = 1_000_000

// use expands a form that uses a macro.
func (c *compiler) use(mac *macro, form *pair, env *scope) any {
	if c.expansions++; c.expansions > maxExpansions {
		c.fail("a macro never ends: more than %d uses, the last in %s", maxExpansions, show(form))
	}
	return mac.expand(c, form, env)
}

// body expands definitions and expressions, in the sense of letrec*.
func (c *compiler) body(forms []any, outer *scope, fn *lambda) node {
	env := newScope(outer)
	var all []item
	for len(forms) > 0 {
		x := forms[0]
		forms = forms[1:]
		p, ok := x.(*pair)
		if ok && isIdentifier(p.car) {
			switch b := c.m.lookup(p.car, env).(type) {
			case *macro:
				forms = append([]any{c.use(b, p, env)}, forms...)
				continue
			case *special:
				switch b.name {
				case "begin":
					forms = append(c.form(p)[1:], forms...)
					continue
				case "define":
					id, value := c.definition(c.form(p))
					all = append(all, item{v: c.bind(env, id, fn), make: func() node { return value(env, fn) }})
					continue
				case "define-values":
					x := c.defineValues(c.form(p), func(id any) { all = append(all, item{v: c.bind(env, id, fn)}) })
					all = append(all, item{make: func() node { return c.expr(x, env, fn) }})
					continue
				case "define-record-type":
					forms = append(c.recordType(c.form(p)), forms...)
					continue
				case "cond-expand":
					forms = append(c.chosen(c.form(p)), forms...)
					continue
				case "define-syntax":
					id, mac := c.defineSyntax(c.form(p), env)
					env.names[id] = mac
					continue
				}
			}
		}
		all = append(all, item{make: func() node { return c.expr(x, env, fn) }})
	}
	if len(all) == 0 {
		c.fail("a body without an expression")
	}
	var l let
	var b block
	for _, i := range all {
		if i.v != nil {
			i.v.set = true
			l.vars, l.inits = append(l.vars, i.v), append(l.inits, nil)
		}
	}
	for _, i := range all {
		switch {
		case i.make == nil:
		case i.v == nil:
			b = append(b, i.make())
		default:
			b = append(b, localSet{i.v, i.make()})
		}
	}
	if all[len(all)-1].v != nil {
		b = append(b, constant{unspecified{}})
	}
	if len(l.vars) == 0 {
		return single(b)
	}
	l.body = single(b)
	return l
}

func single(b block) node {
	if len(b) == 1 {
		return b[0]
	}
	return b
}

// definition returns the name that a define form defines, and what makes its value.
func (c *compiler) definition(form []any) (id any, value func(env *scope, fn *lambda) node) {
	c.enter()
	defer c.leave()
	c.want(form, 1, -1, "(define NAME VALUE) or (define (NAME PARAMETER ...) BODY ...)")
	target, body := form[1], form[2:]
	if p, ok := target.(*pair); ok {
		if inner, ok := p.car.(*pair); ok { // (define ((f a) b) ...) defines a function that returns one
			return c.definition([]any{form[0], inner, list(append([]any{c.core("lambda"), p.cdr}, body...)...)})
		}
		if !isIdentifier(p.car) {
			c.fail("define: %s is no name", show(p.car))
		}
		return p.car, func(env *scope, fn *lambda) node { return c.lambda(baseName(p.car).name, p.cdr, body, env, fn) }
	}
	if !isIdentifier(target) || len(body) > 1 {
		c.fail("define: use (define NAME VALUE), not %s", show(list(form...)))
	}
	return target, func(env *scope, fn *lambda) node {
		if len(body) == 0 {
			return constant{unspecified{}}
		}
		return named(c.expr(body[0], env, fn), baseName(target).name)
	}
}

// named gives a lambda the name of what it is the value of.
func named(x node, name string) node {
	if f, ok := x.(*lambda); ok && f.name == "" {
		f.name = name
	}
	return x
}

// defineValues calls define for each name of a define-values form, and returns the expression that sets them.
func (c *compiler) defineValues(form []any, define func(id any)) any {
	c.want(form, 2, 2, "(define-values FORMALS VALUES)")
	names, tail, ok := split(form[1])
	if !ok {
		c.fail("define-values: the list of names has no end: %s", show(form[1]))
	}
	var sets []any
	temp := func(id any) any {
		if !isIdentifier(id) {
			c.fail("define-values: %s is no name", show(id))
		}
		define(id)
		t := &alias{id, nil}
		sets = append(sets, list(c.core("set!"), id, t))
		return t
	}
	for i, id := range names {
		names[i] = temp(id)
	}
	if _, end := tail.(null); !end {
		tail = temp(tail)
	}
	return list(c.core("call-with-values"), list(c.core("lambda"), null{}, form[2]),
		listWithTail([]any{c.core("lambda"), listWithTail(names, tail)}, listWithTail(sets, list(unspecified{}))))
}

// recordType rewrites a define-record-type form to definitions.
func (c *compiler) recordType(form []any) []any {
	const use = "(define-record-type NAME (CONSTRUCTOR FIELD ...) PREDICATE (FIELD ACCESSOR [MODIFIER]) ...)"
	c.want(form, 3, -1, use)
	name := form[1]
	if p, ok := name.(*pair); ok {
		name = p.car
	}
	if !isIdentifier(name) {
		c.fail("define-record-type: use %s", use)
	}
	define, quote, fn := c.core("define"), c.core("quote"), c.core("lambda")
	var fields []any
	var specs [][]any
	for _, f := range form[4:] {
		spec := []any{f}
		if p, ok := f.(*pair); ok {
			spec = c.form(p)
		}
		if !isIdentifier(spec[0]) || len(spec) > 3 {
			c.fail("define-record-type: a field is (FIELD ACCESSOR [MODIFIER]), not %s", show(f))
		}
		fields, specs = append(fields, spec[0]), append(specs, spec)
	}
	kind := c.m.newSymbol(baseName(name).name) // stays when the program gives the name to something else
	out := []any{list(define, kind, list(c.core("%record-type"), list(quote, name), list(quote, list(fields...)))), list(define, name, kind)}

	constructor, params := form[2], fields
	if p, ok := constructor.(*pair); ok {
		all := c.form(p)
		constructor, params = all[0], all[1:]
	}
	if isIdentifier(constructor) {
		values := []any{c.core("%record"), kind}
		for _, f := range fields {
			if slices.Contains(params, f) {
				values = append(values, f)
			} else {
				values = append(values, false)
			}
		}
		for _, p := range params {
			if !slices.Contains(fields, p) {
				c.fail("define-record-type: the constructor's %s is no field", show(p))
			}
		}
		out = append(out, list(define, constructor, list(fn, list(params...), list(values...))))
	}
	o, v := &alias{c.m.intern("record"), nil}, &alias{c.m.intern("value"), nil}
	if isIdentifier(form[3]) {
		out = append(out, list(define, form[3], list(fn, list(o), list(c.core("%record?"), o, kind))))
	}
	for i, spec := range specs {
		if len(spec) > 1 {
			out = append(out, list(define, spec[1], list(fn, list(o),
				list(c.core("%record-ref"), o, kind, int64(i), list(quote, spec[1])))))
		}
		if len(spec) > 2 {
			out = append(out, list(define, spec[2], list(fn, list(o, v),
				list(c.core("%record-set!"), o, kind, int64(i), v, list(quote, spec[2])))))
		}
	}
	return out
}

// want checks how many forms follow the first: at least min, and at most max unless that is negative.
func (c *compiler) want(form []any, min, max int, use string) {
	if n := len(form) - 1; n < min || max >= 0 && n > max {
		c.fail("%s: use %s", show(list(form...)), use)
	}
}
