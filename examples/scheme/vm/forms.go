package vm

// specials are the forms that the compiler knows, by name.
var specials map[string]func(c *compiler, form []any, env *scope, fn *lambda) node

func init() {
	specials = map[string]func(c *compiler, form []any, env *scope, fn *lambda) node{
		"quote":              expandQuote,
		"quasiquote":         expandQuasiquote,
		"lambda":             expandLambda,
		"define":             expandDefine,
		"define-values":      expandDefineValues,
		"define-record-type": expandRecordType,
		"define-syntax":      expandDefineSyntax,
		"syntax-rules":       expandOnlyInside,
		"set!":               expandSet,
		"if":                 expandIf,
		"begin":              expandBegin,
		"let":                expandLet,
		"let*":               expandLetStar,
		"letrec":             expandLetrec,
		"letrec*":            expandLetrec,
		"let-syntax":         expandLetSyntax,
		"letrec-syntax":      expandLetSyntax,
		"and":                expandAnd,
		"or":                 expandOr,
		"when":               expandWhen,
		"unless":             expandWhen,
		"cond":               expandCond,
		"case":               expandCase,
		"do":                 expandDo,
		"cond-expand":        expandCondExpand,
		"import":             expandImport,
		"syntax-error":       expandSyntaxError,
		"else":               expandOnlyInside,
		"=>":                 expandOnlyInside,
		"unquote":            expandOnlyInside,
		"unquote-splicing":   expandOnlyInside,
		"...":                expandOnlyInside,
		"_":                  expandOnlyInside,
	}
}

func expandOnlyInside(c *compiler, form []any, _ *scope, _ *lambda) node {
	c.fail("%s makes no sense here: %s", show(form[0]), show(list(form...)))
	return nil
}

// expandDefine and those after it are for the top level: body has those inside.
func expandDefine(c *compiler, form []any, env *scope, fn *lambda) node {
	c.wantTop(form, env)
	id, value := c.definition(form)
	sym := baseName(id)
	delete(c.m.syntax, sym)
	return globalSet{c.m.global(sym), value(env, fn), true}
}

func (c *compiler) wantTop(form []any, env *scope) {
	if env != nil {
		c.fail("%s belongs to the top level or to the beginning of a body: %s", show(form[0]), show(list(form...)))
	}
}

func expandDefineValues(c *compiler, form []any, env *scope, fn *lambda) node {
	c.wantTop(form, env)
	var b block
	x := c.defineValues(form, func(id any) { b = append(b, expandDefine(c, []any{form[0], id, false}, env, fn)) })
	return append(b, c.expr(x, env, fn))
}

func expandRecordType(c *compiler, form []any, env *scope, fn *lambda) node {
	c.wantTop(form, env)
	return c.sequence(c.recordType(form), env, fn)
}

func expandDefineSyntax(c *compiler, form []any, env *scope, _ *lambda) node {
	c.wantTop(form, env)
	id, mac := c.defineSyntax(form, env)
	c.m.syntax[baseName(id)] = mac
	return constant{unspecified{}}
}

// defineSyntax returns the name that a define-syntax form defines, and what the name means.
func (c *compiler) defineSyntax(form []any, env *scope) (any, *macro) {
	c.want(form, 2, 2, "(define-syntax NAME (syntax-rules ...))")
	if !isIdentifier(form[1]) {
		c.fail("define-syntax: %s is no name", show(form[1]))
	}
	return form[1], c.syntaxRules(form[2], env)
}

func expandQuote(c *compiler, form []any, _ *scope, _ *lambda) node {
	c.want(form, 1, 1, "(quote DATUM)")
	return constant{c.strip(form[1], make(map[any]any))}
}

func expandLambda(c *compiler, form []any, env *scope, fn *lambda) node {
	c.want(form, 2, -1, "(lambda (PARAMETER ...) BODY ...)")
	return c.lambda("", form[1], form[2:], env, fn)
}

func expandSet(c *compiler, form []any, env *scope, fn *lambda) node {
	c.want(form, 2, 2, "(set! NAME VALUE)")
	if !isIdentifier(form[1]) {
		c.fail("set!: %s is no variable", show(form[1]))
	}
	x := c.expr(form[2], env, fn)
	switch b := c.m.lookup(form[1], env).(type) {
	case *variable:
		b.set = true
		capture(b, fn)
		return localSet{b, x}
	case *global:
		return globalSet{b, x, false}
	}
	c.fail("set!: %s is syntax, and no variable", show(form[1]))
	return nil
}

func expandIf(c *compiler, form []any, env *scope, fn *lambda) node {
	c.want(form, 2, 3, "(if TEST THEN ELSE)")
	b := branch{c.expr(form[1], env, fn), c.expr(form[2], env, fn), constant{unspecified{}}}
	if len(form) == 4 {
		b.otherwise = c.expr(form[3], env, fn)
	}
	return b
}

func (c *compiler) sequence(forms []any, env *scope, fn *lambda) node {
	if len(forms) == 0 {
		return constant{unspecified{}}
	}
	var b block
	for _, x := range forms {
		b = append(b, c.expr(x, env, fn))
	}
	return single(b)
}

func expandBegin(c *compiler, form []any, env *scope, fn *lambda) node {
	return c.sequence(form[1:], env, fn)
}

// bindings returns the names and values of ((NAME VALUE) ...).
func (c *compiler) bindings(form []any, at int) (names, values []any) {
	all, ok := items(form[at])
	for _, x := range all {
		b, isList := items(x)
		if !isList || len(b) != 2 {
			ok = false
			break
		}
		names, values = append(names, b[0]), append(values, b[1])
	}
	if !ok {
		c.fail("%s: the bindings are ((NAME VALUE) ...), not %s", show(form[0]), show(form[at]))
	}
	return names, values
}

func expandLet(c *compiler, form []any, env *scope, fn *lambda) node {
	c.want(form, 2, -1, "(let ((NAME VALUE) ...) BODY ...)")
	if isIdentifier(form[1]) {
		return c.namedLet(form, env, fn)
	}
	names, values := c.bindings(form, 1)
	inner := newScope(env)
	var l let
	for i, name := range names {
		l.inits = append(l.inits, named(c.expr(values[i], env, fn), "let"))
		l.vars = append(l.vars, c.bind(inner, name, fn))
	}
	l.body = c.body(form[2:], inner, fn)
	if len(l.vars) == 0 {
		return l.body
	}
	return l
}

func (c *compiler) namedLet(form []any, env *scope, fn *lambda) node {
	c.want(form, 3, -1, "(let NAME ((NAME VALUE) ...) BODY ...)")
	names, values := c.bindings(form, 2)
	var args []node
	for _, v := range values {
		args = append(args, c.expr(v, env, fn))
	}
	inner := newScope(env)
	loop := c.bind(inner, form[1], fn)
	loop.set = true
	body := c.lambda(loop.name, list(names...), form[3:], inner, fn)
	return let{[]*variable{loop}, []node{nil}, block{localSet{loop, body}, call{localRef{loop}, args}}}
}

func expandLetStar(c *compiler, form []any, env *scope, fn *lambda) node {
	c.want(form, 2, -1, "(let* ((NAME VALUE) ...) BODY ...)")
	names, values := c.bindings(form, 1)
	var nest func(i int, env *scope) node
	nest = func(i int, env *scope) node {
		c.enter()
		defer c.leave()
		if i == len(names) {
			return c.body(form[2:], env, fn)
		}
		inner := newScope(env)
		init := named(c.expr(values[i], env, fn), "let*")
		v := c.bind(inner, names[i], fn)
		return let{[]*variable{v}, []node{init}, nest(i+1, inner)}
	}
	return nest(0, newScope(env))
}

func expandLetrec(c *compiler, form []any, env *scope, fn *lambda) node {
	c.want(form, 2, -1, "(letrec ((NAME VALUE) ...) BODY ...)")
	names, values := c.bindings(form, 1)
	inner := newScope(env)
	var l let
	for _, name := range names {
		v := c.bind(inner, name, fn)
		v.set = true
		l.vars, l.inits = append(l.vars, v), append(l.inits, nil)
	}
	var b block
	for i, v := range l.vars {
		b = append(b, localSet{v, named(c.expr(values[i], inner, fn), v.name)})
	}
	l.body = append(b, c.body(form[2:], inner, fn))
	return l
}

func expandLetSyntax(c *compiler, form []any, env *scope, fn *lambda) node {
	c.want(form, 2, -1, "(let-syntax ((NAME (syntax-rules ...)) ...) BODY ...)")
	names, values := c.bindings(form, 1)
	inner := newScope(env)
	of := env
	if baseName(form[0]).name == "letrec-syntax" {
		of = inner
	}
	for i, name := range names {
		if !isIdentifier(name) {
			c.fail("%s: %s is no name", show(form[0]), show(name))
		}
		inner.names[name] = c.syntaxRules(values[i], of)
	}
	return c.body(form[2:], inner, fn)
}

func expandAnd(c *compiler, form []any, env *scope, fn *lambda) node {
	c.enter()
	defer c.leave()
	switch len(form) {
	case 1:
		return constant{true}
	case 2:
		return c.expr(form[1], env, fn)
	}
	return branch{c.expr(form[1], env, fn), expandAnd(c, form[1:], env, fn), constant{false}}
}

func expandOr(c *compiler, form []any, env *scope, fn *lambda) node {
	c.enter()
	defer c.leave()
	switch len(form) {
	case 1:
		return constant{false}
	case 2:
		return c.expr(form[1], env, fn)
	}
	return c.unlessFalse(c.expr(form[1], env, fn), func() node { return expandOr(c, form[1:], env, fn) }, fn)
}

// unlessFalse is x, or what otherwise returns if x is false.
func (c *compiler) unlessFalse(x node, otherwise func() node, fn *lambda) node {
	v := &variable{name: "or", fn: fn}
	return let{[]*variable{v}, []node{x}, branch{localRef{v}, localRef{v}, otherwise()}}
}

func expandWhen(c *compiler, form []any, env *scope, fn *lambda) node {
	c.want(form, 2, -1, "(when TEST EXPRESSION ...) or (unless TEST EXPRESSION ...)")
	b := branch{c.expr(form[1], env, fn), c.sequence(form[2:], env, fn), constant{unspecified{}}}
	if c.isCore(form[0], "unless", env) {
		b.then, b.otherwise = b.otherwise, b.then
	}
	return b
}

// isCore reports whether x is an identifier that means what name does to the prelude.
func (c *compiler) isCore(x any, name string, env *scope) bool {
	return isIdentifier(x) && c.m.lookup(x, env) == c.m.lookup(c.m.intern(name), c.m.system)
}

func expandCond(c *compiler, form []any, env *scope, fn *lambda) node {
	return c.cond(form[1:], env, fn)
}

func (c *compiler) cond(clauses []any, env *scope, fn *lambda) node {
	c.enter()
	defer c.leave()
	if len(clauses) == 0 {
		return constant{unspecified{}}
	}
	clause, ok := items(clauses[0])
	if !ok || len(clause) == 0 {
		c.fail("cond: a clause is (TEST EXPRESSION ...), not %s", show(clauses[0]))
	}
	rest := func() node { return c.cond(clauses[1:], env, fn) }
	switch {
	case c.isCore(clause[0], "else", env):
		if len(clauses) > 1 || len(clause) == 1 {
			c.fail("cond: else is the last clause, with expressions")
		}
		return c.sequence(clause[1:], env, fn)
	case len(clause) == 1:
		return c.unlessFalse(c.expr(clause[0], env, fn), rest, fn)
	case len(clause) == 3 && c.isCore(clause[1], "=>", env):
		v := &variable{name: "cond", fn: fn}
		return let{[]*variable{v}, []node{c.expr(clause[0], env, fn)},
			branch{localRef{v}, call{c.expr(clause[2], env, fn), []node{localRef{v}}}, rest()}}
	}
	return branch{c.expr(clause[0], env, fn), c.sequence(clause[1:], env, fn), rest()}
}

func expandCase(c *compiler, form []any, env *scope, fn *lambda) node {
	c.want(form, 1, -1, "(case KEY ((DATUM ...) EXPRESSION ...) ...)")
	key := &variable{name: "case", fn: fn}
	l := let{[]*variable{key}, []node{c.expr(form[1], env, fn)}, nil}
	then := func(clause []any) node {
		if len(clause) == 3 && c.isCore(clause[1], "=>", env) {
			return call{c.expr(clause[2], env, fn), []node{localRef{key}}}
		}
		return c.sequence(clause[1:], env, fn)
	}
	var nest func(clauses []any) node
	nest = func(clauses []any) node {
		c.enter()
		defer c.leave()
		if len(clauses) == 0 {
			return constant{unspecified{}}
		}
		clause, ok := items(clauses[0])
		if !ok || len(clause) < 2 {
			c.fail("case: a clause is ((DATUM ...) EXPRESSION ...), not %s", show(clauses[0]))
		}
		if c.isCore(clause[0], "else", env) {
			return then(clause)
		}
		data := constant{c.strip(clause[0], make(map[any]any))}
		if _, ok := items(clause[0]); !ok {
			c.fail("case: the data are a list, not %s", show(clause[0]))
		}
		memv := c.reference(c.core("memv"), nil, fn)
		return branch{call{memv, []node{localRef{key}, data}}, then(clause), nest(clauses[1:])}
	}
	l.body = nest(form[2:])
	return l
}

// expandDo makes a named let of a do.
func expandDo(c *compiler, form []any, env *scope, fn *lambda) node {
	const use = "(do ((NAME INIT [STEP]) ...) (TEST EXPRESSION ...) COMMAND ...)"
	c.want(form, 2, -1, use)
	specs, ok1 := items(form[1])
	end, ok2 := items(form[2])
	if !ok1 || !ok2 || len(end) == 0 {
		c.fail("do: use %s", use)
	}
	loop := &alias{c.m.intern("do"), nil}
	var vars []any
	again := []any{loop}
	for _, s := range specs {
		spec, ok := items(s)
		if !ok || len(spec) < 2 || len(spec) > 3 {
			c.fail("do: use %s, not %s", use, show(s))
		}
		vars = append(vars, list(spec[0], spec[1]))
		again = append(again, spec[len(spec)-1])
		if len(spec) == 2 {
			again[len(again)-1] = spec[0]
		}
	}
	begin := c.core("begin")
	return expandLet(c, []any{c.core("let"), loop, list(vars...),
		list(c.core("if"), end[0],
			list(append([]any{begin}, end[1:]...)...),
			list(append(append([]any{begin}, form[3:]...), list(again...))...))}, env, fn)
}

// features are what cond-expand and the procedure features know.
var features = []string{"r7rs", "full-unicode", "alloctrace"}

func expandCondExpand(c *compiler, form []any, env *scope, fn *lambda) node {
	return c.sequence(c.chosen(form), env, fn)
}

// chosen returns the forms of the first clause of a cond-expand whose feature there is.
func (c *compiler) chosen(form []any) []any {
	for _, x := range form[1:] {
		clause, ok := items(x)
		if !ok || len(clause) == 0 {
			c.fail("cond-expand: a clause is (FEATURE EXPRESSION ...), not %s", show(x))
		}
		if c.hasFeature(clause[0]) {
			return clause[1:]
		}
	}
	return nil
}

func (c *compiler) hasFeature(x any) bool {
	c.enter()
	defer c.leave()
	if isIdentifier(x) {
		name := baseName(x).name
		for _, f := range features {
			if f == name {
				return true
			}
		}
		return name == "else"
	}
	form, ok := items(x)
	if !ok || len(form) == 0 || !isIdentifier(form[0]) {
		c.fail("cond-expand: %s is no feature", show(x))
	}
	switch baseName(form[0]).name {
	case "and":
		for _, f := range form[1:] {
			if !c.hasFeature(f) {
				return false
			}
		}
		return true
	case "or":
		for _, f := range form[1:] {
			if c.hasFeature(f) {
				return true
			}
		}
		return false
	case "not":
		return len(form) == 2 && !c.hasFeature(form[1])
	case "library":
		p, ok := form[len(form)-1].(*pair)
		return ok && isIdentifier(p.car) && baseName(p.car).name == "scheme"
	}
	c.fail("cond-expand: %s is no feature", show(x))
	return false
}

// expandImport takes any import: what there is is there already.
func expandImport(c *compiler, _ []any, env *scope, _ *lambda) node {
	if env != nil {
		c.fail("import belongs to the top level")
	}
	return constant{unspecified{}}
}

func expandSyntaxError(c *compiler, form []any, _ *scope, _ *lambda) node {
	text := "syntax-error"
	for _, x := range form[1:] {
		if s, ok := x.(string); ok {
			text += " " + s
		} else {
			text += " " + show(x)
		}
	}
	c.fail("%s", text)
	return nil
}
