package vm

import (
	"errors"
	"fmt"
	"runtime"
)

// run calls what is in stack[base] with the n arguments above it, and returns what that returns to bottom.
//
// All values are on the machine's stack while something may allocate: m.sp says up to where. The Go
// variables that hold values are v and callee, which nothing is allocated between setting and using.
func (m *Machine) run(base, n int) (Value, error) {
	var (
		k      *code
		instrs []instr
		pc, fp int
		v      Value
		callee Value
		err    error
		in     *instr

		stack = m.stack
		sp    = base + 1 + n
		heap  = m.heap
	)
	goto call

next:
	in = &instrs[pc]
	pc++
	switch in.op {
	case opConst:
		stack[sp] = in.v
		sp++
		goto next
	case opConstant:
		stack[sp] = heap.Get(heap.Get(stack[fp-1], 0), 1+int(in.a))
		sp++
		goto next
	case opLocal:
		stack[sp] = stack[fp+int(in.a)]
		sp++
		goto next
	case opLocalBox:
		v = heap.Get(stack[fp+int(in.a)], 0)
		goto pushAssigned
	case opFree:
		stack[sp] = heap.Get(stack[fp-1], 1+int(in.a))
		sp++
		goto next
	case opFreeBox:
		v = heap.Get(heap.Get(stack[fp-1], 1+int(in.a)), 0)
		goto pushAssigned
	case opGlobal:
		v = m.globals[in.a]
		if v == unbound {
			err = fmt.Errorf("unbound variable: %s", m.globalName(int(in.a)))
			goto fail
		}
		stack[sp] = v
		sp++
		goto next
	case opSetLocal:
		sp--
		heap.Set(stack[fp+int(in.a)], 0, stack[sp])
		goto next
	case opSetFree:
		sp--
		heap.Set(heap.Get(stack[fp-1], 1+int(in.a)), 0, stack[sp])
		goto next
	case opSetGlobal:
		if m.globals[in.a] == unbound {
			err = fmt.Errorf("set!: unbound variable: %s", m.globalName(int(in.a)))
			goto fail
		}
		sp--
		m.globals[in.a] = stack[sp]
		goto next
	case opDefine:
		sp--
		m.globals[in.a] = stack[sp]
		goto next
	case opBox:
		m.sp = sp
		if v, err = m.object(kindBox, &stack[fp+int(in.a)]); err != nil {
			goto fail
		}
		stack[fp+int(in.a)] = v
		goto next
	case opPop:
		sp--
		goto next
	case opSlide:
		sp -= int(in.a)
		stack[sp-1] = stack[sp-1+int(in.a)]
		goto next
	case opJump:
		pc = int(in.a)
		goto next
	case opBranch:
		sp--
		if stack[sp] == False {
			pc = int(in.a)
		}
		goto next
	case opClosure:
		m.sp = sp
		n = int(in.v)
		if v, err = heap.NewWords(kindClosure, 1+n, &stack[fp-1]); err != nil {
			goto fail
		}
		heap.Set(v, 0, heap.Get(heap.Get(stack[fp-1], 0), 1+int(in.a)))
		copy(heap.Words(v)[1:], stack[sp-n:sp])
		sp -= n
		stack[sp] = v
		sp++
		goto next
	case opFrame:
		stack[sp], stack[sp+1], stack[sp+2] = stack[fp-1], fixnum(int64(in.a)), fixnum(int64(fp))
		sp += frameSize
		goto next
	case opCall:
		n = int(in.a)
		base = sp - 1 - n
		goto call
	case opTailCall:
		n = int(in.a)
		base = fp - 1
		copy(stack[base:], stack[sp-1-n:sp])
		sp = fp + n
		goto call
	case opPrim, opPrimTail:
		n = int(in.a)
		v = m.globals[in.v]
		m.sp = sp
		if !isTag(v, tagPrim) || primitives[payload(v)].fn == nil {
			goto redefined
		}
		if v, err = m.callPrimitive(payload(v), stack[sp-n:sp]); err != nil {
			goto fail
		}
		if in.op == opPrimTail {
			base = fp - 1
			goto ret
		}
		sp -= n
		stack[sp] = v
		sp++
		goto next
	case opReturn:
		v = stack[sp-1]
		base = fp - 1
		goto ret
	}
	panic(fmt.Sprintf("vm: instruction %d", in.op))

pushAssigned:
	if v == unassigned {
		err = errors.New("a variable of letrec, or of a body, is used before it is defined")
		goto fail
	}
	stack[sp] = v
	sp++
	goto next

redefined: // what was a primitive is none any more: make the call that it is
	if v == unbound {
		err = fmt.Errorf("unbound variable: %s", m.globalName(int(in.v)))
		goto fail
	}
	base = sp - n
	if in.op == opPrim {
		copy(stack[base+frameSize+1:], stack[base:sp])
		stack[base], stack[base+1], stack[base+2] = stack[fp-1], fixnum(int64(pc)), fixnum(int64(fp))
		base += frameSize
	} else {
		copy(stack[fp:], stack[base:sp])
		base = fp - 1
	}
	stack[base] = v
	sp = base + 1 + n

call: // stack[base] with n arguments, and a return address below
	callee = stack[base]
	m.sp = sp
	if m.attention.Load() {
		if err = m.attend(); err == ErrInterrupted {
			return 0, err
		} else if err != nil {
			goto fail
		}
		stack, callee = m.stack, m.stack[base]
	}
	switch {
	case isTag(callee, tagPrim):
		p := &primitives[payload(callee)]
		if p.fn == nil {
			goto special
		}
		if v, err = m.callPrimitive(payload(callee), stack[sp-n:sp]); err != nil {
			goto fail
		}
		goto ret
	case m.is(callee, kindClosure):
	case m.is(callee, kindCases):
		for i, c := range heap.Words(callee) {
			if k := m.codeOf(c); n == k.params || n > k.params && k.rest {
				stack[base] = heap.Words(callee)[i]
				goto call
			}
		}
		err = fmt.Errorf("case-lambda: no clause takes %d arguments", n)
		goto fail
	case m.is(callee, kindContinuation):
		goto resume
	default:
		err = m.errorf("not a procedure", callee)
		goto fail
	}
	k = m.codeOf(callee)
	m.current = k
	instrs, pc, fp = k.instrs, 0, base+1
	if n != k.params || k.rest {
		if n < k.params || n > k.params && !k.rest {
			err = arityError(k.name, k.params, k.rest, n)
			goto fail
		}
		if v, err = m.restList(stack[fp+k.params : sp]); err != nil {
			goto fail
		}
		sp = fp + k.params
		stack[sp] = v
		sp++
		m.sp = sp
	}
	if fp+k.stack+reserve > len(stack) && !(m.low && fp+k.stack+slack <= len(stack)) {
		if err = m.growStack(fp + k.stack + reserve); err != nil && m.low {
			m.oom = err
			return 0, m.uncaught(m.reg[regNoMemory])
		} else if err != nil {
			m.low = true
			goto fail
		}
		stack = m.stack
	}
	goto next

special: // a primitive that changes what runs
	switch id := primitives[payload(callee)].special; id {
	case specialApply:
		if n < 2 {
			err = arityError("apply", 2, true, n)
			goto fail
		}
		v = stack[sp-1]
		extra, ok := m.isList(v)
		if !ok {
			err = m.errorf("apply: the last argument is no list", v)
			goto fail
		}
		if sp+extra+slack > len(stack) {
			if err = m.growStack(sp + extra + slack); err != nil {
				goto fail
			}
			stack = m.stack
			v = stack[sp-1]
		}
		copy(stack[base:], stack[base+1:sp-1])
		sp -= 2
		for ; v != Nil; v = m.cdr(v) {
			stack[sp] = m.car(v)
			sp++
		}
		n = sp - base - 1
		goto call
	case specialValues: // of call-with-values: the consumer, and what the producer has returned
		v = stack[sp-1]
		callee = stack[sp-2]
		if n != 2 {
			err = arityError("%apply-values", 2, false, n)
			goto fail
		}
		stack[base] = callee
		sp = base + 1
		if !m.is(v, kindValues) {
			stack[sp] = v
			sp++
		} else {
			extra := heap.Len(v)
			if sp+extra+slack > len(stack) {
				if err = m.growStack(sp + extra + slack); err != nil {
					goto fail
				}
				stack = m.stack
				v = stack[base+2]
			}
			sp += copy(stack[sp:], heap.Words(v))
		}
		n = sp - base - 1
		goto call
	case specialCapture:
		if n != 1 {
			err = arityError("call/cc", 1, false, n)
			goto fail
		}
		if v, err = heap.NewWords(kindContinuation, 1+base, &m.reg[regHandlers]); err != nil {
			goto fail
		}
		copy(heap.Words(v)[1:], stack[:base])
		stack[base], stack[base+1] = stack[base+1], v
		goto call
	case specialEval:
		if n < 1 || n > 2 {
			err = arityError("eval", 1, true, n)
			goto fail
		}
		if v, err = m.evalClosure(base + 1); err != nil {
			goto fail
		}
		stack[base] = v
		sp, n = base+1, 0
		goto call
	case specialUncaught:
		return 0, m.uncaught(stack[sp-1])
	case specialExit:
		v = Unspecified
		if n > 0 {
			v = stack[base+1]
		}
		return 0, m.exit(v)
	}
	panic("vm: an unknown special primitive")

resume: // the continuation callee
	if n == 1 {
		v = stack[base+1]
	} else if v, err = m.tuple(kindValues, stack[base+1:sp]); err != nil {
		goto fail
	}
	callee = stack[base]
	n = heap.Len(callee) - 1
	if n+slack > len(stack) {
		m.pair[0] = v
		if err = m.growStack(n + slack); err != nil {
			goto fail
		}
		stack = m.stack
		v, callee = m.pair[0], stack[base]
	}
	m.low = false
	m.reg[regHandlers] = heap.Get(callee, 0)
	copy(stack, heap.Words(callee)[1:])
	base = n

ret: // v to the frame whose return address is below base
	sp = base - frameSize
	callee = stack[sp]
	if callee == bottom {
		m.sp = sp
		return v, nil
	}
	pc, fp = int(fixOf(stack[sp+1])), int(fixOf(stack[sp+2]))
	stack[sp] = v
	sp++
	k = m.codeOf(callee)
	m.current = k
	instrs = k.instrs
	if fp+k.stack+slack > len(stack) { // the stack has shrunk since this frame called
		m.sp = sp
		if err = m.growStack(fp + k.stack + slack); err != nil {
			goto fail
		}
		stack = m.stack
	}
	goto next

fail: // err is raised, in place of what has failed
	m.sp = sp
	m.pins = m.pins[:0]
	if v, err = m.condition(err); err != nil {
		return 0, err
	}
	if callee = m.reg[regRaise]; callee == Nil {
		return 0, m.uncaught(v)
	}
	stack[sp], stack[sp+1], stack[sp+2] = stack[max(fp-1, 0)], fixnum(int64(pc)), fixnum(int64(fp))
	base = sp + frameSize
	stack[base], stack[base+1] = callee, v
	n = 1
	sp = base + 2
	goto call
}

func (m *Machine) codeOf(closure Value) *code {
	return m.codes[fixOf(m.heap.Get(m.heap.Get(closure, 0), 0))]
}

func (m *Machine) globalName(index int) string {
	for _, g := range m.globalOf {
		if g.index == index {
			return g.sym.name
		}
	}
	return "?"
}

func (m *Machine) callPrimitive(i int, args []Value) (Value, error) {
	p := &primitives[i]
	switch {
	case len(args) < p.min:
		return 0, arityError(p.name, p.min, p.max != p.min, len(args))
	case p.max >= 0 && len(args) > p.max:
		return 0, arityError(p.name, p.max, false, len(args))
	}
	return p.fn(m, args)
}

// restList makes a list of arguments on the stack.
func (m *Machine) restList(args []Value) (Value, error) {
	tail := Nil
	for i := len(args) - 1; i >= 0; i-- {
		var err error
		if tail, err = m.cons(args[i], tail); err != nil {
			return 0, err
		}
	}
	return tail, nil
}

// attend looks at what has come up since the last call: an interrupt, or a collection, after which a
// stack that is nearly empty shrinks.
func (m *Machine) attend() error {
	m.attention.Store(false)
	runtime.Gosched() // who would interrupt may be waiting: nothing else stops a program on WebAssembly
	if m.interrupts.Swap(false) {
		return ErrInterrupted
	}
	if !m.collected {
		return nil
	}
	m.collected = false
	return m.shrinkStack()
}

// evalClosure compiles the datum at slot i of the stack.
func (m *Machine) evalClosure(i int) (v Value, err error) {
	before := len(m.pins)
	defer func() { m.pins = m.pins[:before] }()
	x, err := m.datum(m.stack[i])
	if err != nil {
		return 0, err
	}
	return m.compile(x)
}

// datum makes a datum of a value, with pins for what is none.
func (m *Machine) datum(v Value) (x any, err error) {
	defer func() { err = caught(recover(), err) }()
	m.depth = 0
	return m.fromHeap(v, make(map[Value]any)), nil
}

func (m *Machine) exit(v Value) error {
	switch {
	case isFix(v):
		return Exit(fixOf(v) & 0xff)
	case v == False:
		return Exit(1)
	}
	return Exit(0)
}
