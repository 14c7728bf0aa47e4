package vm

import (
	"fmt"
	"slices"
)

// An op is what an instruction does. The stack grows upwards; a frame has, from fp on, the arguments
// of a call and then what its code has pushed, and below fp the closure and where to return to.
type op int32

const (
	opConst     op = iota // push the immediate v
	opConstant            // push constant a of the code
	opLocal               // push slot a of the frame
	opLocalBox            // push what is in the box in slot a
	opFree                // push free variable a of the closure
	opFreeBox             // push what is in the box in it
	opGlobal              // push global a
	opSetLocal            // pop into the box in slot a
	opSetFree             // pop into the box in free variable a
	opSetGlobal           // pop into global a, which must be defined
	opDefine              // pop into global a
	opBox                 // put slot a of the frame into a box
	opPop                 // drop the top
	opSlide               // drop a values below the top
	opJump                // go on at a
	opBranch              // pop, and go on at a if it is false
	opClosure             // pop v free variables, push a closure of the code in constant a
	opFrame               // push where to return to: this closure, instruction a, and this frame
	opCall                // call what is below a arguments
	opTailCall            // the same in place of this frame
	opPrim                // call the primitive that is in global v with a arguments, without a frame
	opPrimTail            // the same, and return
	opReturn              // pop, drop the frame, push it again
)

type instr struct {
	op op
	a  int32
	v  Value
}

// A code is a compiled lambda. Its constants are in the heap, in an object of kindCode.
type code struct {
	name   string
	instrs []instr
	params int
	rest   bool
	stack  int   // how many slots the frame takes at most
	object Value // a weak reference
	index  int   // in Machine.codes
}

// A generator generates the instructions of one lambda.
type generator struct {
	c         *compiler
	fn        *lambda
	code      *code
	constants []any // datum or *code
	depth     int   // slots of the frame in use
}

// generate compiles fn and makes its code object, which it pins.
func (c *compiler) generate(fn *lambda) (*code, error) {
	g := &generator{c: c, fn: fn, code: &code{name: fn.name, params: len(fn.params), rest: fn.rest}}
	if fn.rest {
		g.code.params--
	}
	for i, v := range fn.params {
		v.slot = i
		if v.set {
			g.emit(opBox, i, 0)
		}
	}
	g.depth = len(fn.params)
	g.code.stack = g.depth
	if err := g.gen(fn.body, true); err != nil {
		return nil, err
	}
	return g.code, c.m.addCode(g.code, g.constants)
}

func (g *generator) emit(o op, a int, v Value) int {
	g.code.instrs = append(g.code.instrs, instr{o, int32(a), v})
	return len(g.code.instrs) - 1
}

func (g *generator) patch(at int) { g.code.instrs[at].a = int32(len(g.code.instrs)) }

// push emits an instruction that pushes a value.
func (g *generator) push(o op, a int, v Value) {
	g.emit(o, a, v)
	g.grow(1)
}

func (g *generator) grow(n int) {
	g.depth += n
	g.code.stack = max(g.code.stack, g.depth)
}

// gen emits what pushes the value of x. If tail, what it does last is to return.
func (g *generator) gen(x node, tail bool) error {
	switch x := x.(type) {
	case call:
		return g.call(x, tail)
	case branch:
		return g.branch(x, tail)
	case let:
		return g.let(x, tail)
	case block:
		for i, y := range x {
			last := i == len(x)-1
			if err := g.gen(y, tail && last); err != nil {
				return err
			}
			if !last {
				g.emit(opPop, 0, 0)
				g.depth--
			}
		}
		return nil
	case constant:
		_, isObject := x.datum.(opaque)
		if v, ok := g.c.m.simple(x.datum); ok && !isObject {
			g.push(opConst, 0, v)
		} else {
			g.constant(x.datum)
		}
	case localRef:
		g.local(x.v, true)
	case globalRef:
		g.push(opGlobal, x.g.index, 0)
	case localSet:
		if err := g.gen(x.x, false); err != nil {
			return err
		}
		if x.v.fn == g.fn {
			g.emit(opSetLocal, x.v.slot, 0)
		} else {
			g.emit(opSetFree, g.freeIndex(x.v), 0)
		}
		g.depth--
		g.push(opConst, 0, Unspecified)
	case globalSet:
		if err := g.gen(x.x, false); err != nil {
			return err
		}
		o := opSetGlobal
		if x.define {
			o = opDefine
		}
		g.emit(o, x.g.index, 0)
		g.depth--
		g.push(opConst, 0, Unspecified)
	case *lambda:
		if err := g.closure(x); err != nil {
			return err
		}
	default:
		panic(fmt.Sprintf("vm: a node of type %T", x))
	}
	if tail {
		g.emit(opReturn, 0, 0)
	}
	return nil
}

func (g *generator) constant(datum any) {
	g.push(opConstant, len(g.constants), 0)
	g.constants = append(g.constants, datum)
}

func (g *generator) freeIndex(v *variable) int { return slices.Index(g.fn.free, v) }

// local pushes a variable: its value, or if not unboxed its box, where it has one.
func (g *generator) local(v *variable, unboxed bool) {
	boxed := v.set && unboxed
	switch {
	case v.fn == g.fn && boxed:
		g.push(opLocalBox, v.slot, 0)
	case v.fn == g.fn:
		g.push(opLocal, v.slot, 0)
	case boxed:
		g.push(opFreeBox, g.freeIndex(v), 0)
	default:
		g.push(opFree, g.freeIndex(v), 0)
	}
}

func (g *generator) closure(fn *lambda) error {
	k, err := g.c.generate(fn)
	if err != nil {
		return err
	}
	for _, v := range fn.free {
		g.local(v, false)
	}
	g.emit(opClosure, len(g.constants), Value(len(fn.free)))
	g.constants = append(g.constants, k)
	g.depth -= len(fn.free)
	g.grow(1)
	return nil
}

func (g *generator) branch(x branch, tail bool) error {
	if err := g.gen(x.test, false); err != nil {
		return err
	}
	otherwise := g.emit(opBranch, 0, 0)
	g.depth--
	if err := g.gen(x.then, tail); err != nil {
		return err
	}
	end := -1
	if !tail {
		end = g.emit(opJump, 0, 0)
	}
	g.depth--
	g.patch(otherwise)
	if err := g.gen(x.otherwise, tail); err != nil {
		return err
	}
	if end >= 0 {
		g.patch(end)
	}
	return nil
}

func (g *generator) let(x let, tail bool) error {
	for i, v := range x.vars {
		if x.inits[i] == nil {
			g.push(opConst, 0, unassigned)
		} else if err := g.gen(x.inits[i], false); err != nil {
			return err
		}
		v.slot = g.depth - 1
	}
	for _, v := range x.vars {
		if v.set {
			g.emit(opBox, v.slot, 0)
		}
	}
	if err := g.gen(x.body, tail); err != nil {
		return err
	}
	if !tail {
		g.emit(opSlide, len(x.vars), 0)
	}
	g.depth -= len(x.vars)
	return nil
}

func (g *generator) call(x call, tail bool) error {
	// What is a primitive now is called without a frame. Should it be defined anew, the call finds that.
	if f, ok := x.f.(globalRef); ok && g.c.m.isPlainPrimitive(f.g) {
		for _, a := range x.args {
			if err := g.gen(a, false); err != nil {
				return err
			}
		}
		o := opPrim
		if tail {
			o = opPrimTail
		}
		g.emit(o, len(x.args), Value(f.g.index))
		g.grow(frameSize + 1) // for the call that it may be
		g.depth -= frameSize + 1 + len(x.args)
		g.grow(1)
		return nil
	}
	frame := -1
	if !tail {
		frame = g.emit(opFrame, 0, 0)
		g.grow(frameSize)
	}
	if err := g.gen(x.f, false); err != nil {
		return err
	}
	for _, a := range x.args {
		if err := g.gen(a, false); err != nil {
			return err
		}
	}
	if tail {
		g.emit(opTailCall, len(x.args), 0)
		g.depth -= len(x.args) + 1
	} else {
		g.emit(opCall, len(x.args), 0)
		g.patch(frame)
		g.depth -= len(x.args) + 1 + frameSize
	}
	g.grow(1)
	return nil
}

// frameSize is how many slots opFrame pushes.
const frameSize = 3
