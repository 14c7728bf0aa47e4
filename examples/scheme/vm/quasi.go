package vm

func expandQuasiquote(c *compiler, form []any, env *scope, fn *lambda) node {
	c.want(form, 1, 1, "(quasiquote TEMPLATE)")
	x, _ := c.quasi(form[1], 1, env)
	return c.expr(x, env, fn)
}

// quasi makes an expression of a template that depth quasiquotes are around. It reports whether
// that is a constant.
func (c *compiler) quasi(x any, depth int, env *scope) (any, bool) {
	c.enter()
	defer c.leave()
	quoted := func() (any, bool) { return list(c.core("quote"), x), true }
	nested := func(p *pair, inner any, depth int) any {
		x, _ := c.quasi(inner, depth, env)
		return list(c.core("list"), list(c.core("quote"), p.car), x)
	}
	switch x := x.(type) {
	case *vector:
		all, isConstant := c.quasi(list(x.items...), depth, env)
		if isConstant {
			return quoted()
		}
		return list(c.core("list->vector"), all), false
	case *pair:
		if inner, ok := c.unquoted(x, "unquote", env); ok {
			if depth == 1 {
				return inner, false
			}
			return nested(x, inner, depth-1), false
		}
		if inner, ok := c.unquoted(x, "quasiquote", env); ok {
			return nested(x, inner, depth+1), false
		}
		rest, restConstant := c.quasi(x.cdr, depth, env)
		if p, ok := x.car.(*pair); ok {
			if inner, ok := c.unquoted(p, "unquote-splicing", env); ok {
				if depth == 1 {
					return list(c.core("append"), inner, rest), false
				}
				return list(c.core("cons"), nested(p, inner, depth-1), rest), false
			}
		}
		first, firstConstant := c.quasi(x.car, depth, env)
		if firstConstant && restConstant {
			return quoted()
		}
		return list(c.core("cons"), first, rest), false
	}
	return quoted()
}

// unquoted returns X if x is (name X).
func (c *compiler) unquoted(x *pair, name string, env *scope) (any, bool) {
	rest, ok := x.cdr.(*pair)
	if !ok || !c.isCore(x.car, name, env) {
		return nil, false
	}
	_, end := rest.cdr.(null)
	return rest.car, end
}
