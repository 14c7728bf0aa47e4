// Package vm is a Scheme, the small language of R7RS without what README.md lists, on a
// heap of package immix. A form is expanded, compiled to instructions for a stack machine, and run. All
// objects and the stack are in blocks of a blockalloc.Allocator; code, symbols and the compiler's data are on
// the Go heap.
package vm

import (
	"bufio"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/examples/scheme/immix"
)

// Options of a [Machine].
type Options struct {
	// Memory returns the allocator that blocks come from, for a block that is allocated while the named procedure runs.
	// What is allocated there may be freed through any other that it returns.
	Memory func(procedure string) blockalloc.Allocator
	Heap   immix.Options // its Weak is set by New
	In     io.Reader     // nil for none
	Out    io.Writer
	Args   []string // of the procedure command-line
}

// A Machine runs Scheme. It is for one goroutine, but for Interrupt.
type Machine struct {
	o     Options
	began time.Time
	heap  *immix.Heap
	in    *bufio.Reader
	inErr error // of in, that is still to be raised
	out   *bufio.Writer

	symbols  []*symbol
	symbolOf map[string]*symbol
	syntax   map[*symbol]any // *special and *macro of the top level
	globalOf map[*symbol]*global
	system   *scope // what the names of the prelude mean to it, nil until it has run
	globals  []Value
	codes    []*code // nil where one has died
	dead     []int   // numbers of those
	depth    int     // of fromHeap

	stack   []Value // in block
	block   blockalloc.Block
	sp      int
	current *code // that runs
	low     bool  // the stack could not grow: what handles that may use the reserve

	// The other roots.
	pins []Value
	pair [2]Value
	reg  [regs]Value

	attention  atomic.Bool // the machine is to look at the next two
	interrupts atomic.Bool
	collected  bool  // since the stack was looked at
	oom        error // what the allocator said last
}

// The registers that are roots.
const (
	regHandlers = iota // list of the handlers of with-exception-handler
	regWinders         // list of what dynamic-wind is inside of
	regPending         // the condition of an error that is being raised
	regNoMemory        // the condition of being out of memory
	regRaise           // the procedure raise, Nil until the prelude has run
	regs
)

//go:embed prelude.scm
var prelude string

const (
	minStack = 2048 // slots
	slack    = 16   // slots that are always left, to raise an error in
	reserve  = 512  // slots that are left unless the stack cannot grow, to handle that in
)

// New returns a Machine. Close it to give its memory back.
func New(o Options) (*Machine, error) {
	if o.Memory == nil || o.Out == nil {
		panic("vm: New: pass Options.Memory and Options.Out")
	}
	m := &Machine{
		o: o, began: time.Now(), out: bufio.NewWriter(o.Out),
		symbolOf: make(map[string]*symbol), syntax: make(map[*symbol]any), globalOf: make(map[*symbol]*global),
	}
	if o.In == nil {
		o.In = strings.NewReader("")
	}
	m.in = bufio.NewReader(o.In)
	m.reg = [regs]Value{Nil, Nil, Nil, Nil, Nil}
	o.Heap.Weak = m.weak
	m.heap = immix.New(m.memory, m.roots, o.Heap)
	for name, expand := range specials {
		m.syntax[m.intern(name)] = &special{name, expand}
	}
	for i, p := range primitives {
		g := m.global(m.intern(p.name)) // which may move m.globals
		m.globals[g.index] = immediate(tagPrim, i)
	}
	err := m.growStack(minStack)
	if err == nil {
		err = m.boot()
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func (m *Machine) boot() error {
	text, err := m.stringValue("out of memory")
	if err != nil {
		return err
	}
	m.pair[0] = text
	irritants, kind := Nil, immediate(tagSymbol, m.intern("memory").id)
	if m.reg[regNoMemory], err = m.object(kindCondition, &m.pair[0], &irritants, &kind); err != nil {
		return err
	}
	if err := m.Run(strings.NewReader(prelude), nil); err != nil {
		return fmt.Errorf("vm: the prelude: %w", err)
	}
	m.seal()
	return nil
}

// seal gives the program variables of its own, so that what it defines changes neither the prelude nor what the
// compiler's forms call. The names that begin with % stay the prelude's.
func (m *Machine) seal() {
	m.system = newScope(nil)
	m.reg[regRaise] = m.globals[m.global(m.intern("raise")).index]
	for _, s := range m.symbols {
		g, isVariable := m.globalOf[s]
		b, isSyntax := m.syntax[s]
		if isVariable {
			m.system.names[s] = g
			delete(m.globalOf, s)
		}
		if isSyntax {
			m.system.names[s] = b
		}
		if mac, ok := b.(*macro); ok {
			mac.env = m.system
		}
		if strings.HasPrefix(s.name, "%") {
			delete(m.syntax, s)
		} else if isVariable {
			own := m.global(s)
			m.globals[own.index] = m.globals[g.index]
		}
	}
}

// Close gives all memory back, but for blocks that the allocator does not take: a second Close tries those again. The Machine
// cannot be used afterwards.
func (m *Machine) Close() error {
	err := m.out.Flush()
	if !m.block.IsZero() {
		e := m.memory().Free(m.block)
		if err = errors.Join(err, e); e == nil {
			m.block, m.stack, m.sp = blockalloc.Block{}, nil, 0
		}
	}
	return errors.Join(err, m.heap.Close())
}

// Heap is the machine's heap. Its references change with each allocation.
func (m *Machine) Heap() *immix.Heap { return m.heap }

// Interrupt ends what the machine runs, soon. It may be called by any goroutine.
func (m *Machine) Interrupt() {
	m.interrupts.Store(true)
	m.attention.Store(true)
}

func (m *Machine) memory() blockalloc.Allocator {
	name := ""
	if m.current != nil {
		name = m.current.name
	}
	return m.o.Memory(name)
}

func (m *Machine) roots(visit func([]Value)) {
	visit(m.globals)
	visit(m.stack[:m.sp])
	visit(m.pins)
	visit(m.pair[:])
	visit(m.reg[:])
	m.collected = true
	m.attention.Store(true)
}

// weak forgets the codes that no closure has any more.
func (m *Machine) weak(moved func(Value) (Value, bool)) {
	for i, k := range m.codes {
		if k == nil {
			continue
		}
		if w, ok := moved(k.object); ok {
			k.object = w
		} else {
			m.codes[i] = nil
			m.dead = append(m.dead, i)
		}
	}
}

func (m *Machine) intern(name string) *symbol {
	s := m.symbolOf[name]
	if s == nil {
		s = m.newSymbol(name)
		m.symbolOf[name] = s
	}
	return s
}

func (m *Machine) newSymbol(name string) *symbol {
	s := &symbol{name, len(m.symbols)}
	m.symbols = append(m.symbols, s)
	return s
}

func (m *Machine) global(s *symbol) *global {
	g := m.globalOf[s]
	if g == nil {
		g = &global{s, len(m.globals)}
		m.globalOf[s] = g
		m.globals = append(m.globals, unbound)
	}
	return g
}

// isPlainPrimitive reports whether g is a primitive that only computes a value.
func (m *Machine) isPlainPrimitive(g *global) bool {
	v := m.globals[g.index]
	return isTag(v, tagPrim) && primitives[payload(v)].fn != nil
}

// addCode makes the code's object, and pins it.
func (m *Machine) addCode(k *code, constants []any) error {
	none := False
	w, err := m.heap.NewWords(kindCode, 1+len(constants), &none)
	if err != nil {
		return err
	}
	pin := m.pin(w)
	if n := len(m.dead); n > 0 {
		k.index = m.dead[n-1]
		m.dead = m.dead[:n-1]
		m.codes[k.index] = k
	} else {
		k.index = len(m.codes)
		m.codes = append(m.codes, k)
	}
	k.object = w
	m.heap.Set(w, 0, fixnum(int64(k.index)))
	for i, x := range constants {
		if child, ok := x.(*code); ok {
			m.heap.Set(m.pins[pin], 1+i, child.object)
			continue
		}
		v, err := m.toHeap(x)
		if err != nil {
			return err
		}
		m.heap.Set(m.pins[pin], 1+i, v)
	}
	return nil
}

// compile returns a closure without parameters that does what x says.
func (m *Machine) compile(x any) (v Value, err error) {
	before := len(m.pins)
	defer func() {
		err = caught(recover(), err)
		m.pins = m.pins[:before]
	}()
	c := &compiler{m: m}
	fn := &lambda{name: "top level"}
	fn.body = c.expr(x, nil, fn)
	k, err := c.generate(fn)
	if err != nil {
		return 0, err
	}
	object := m.pin(k.object)
	return m.object(kindClosure, &m.pins[object])
}

// caught returns the error that a compiler has panicked with, or err if it has not.
func caught(panicked any, err error) error {
	if e, ok := panicked.(*SyntaxError); ok {
		return e
	} else if panicked != nil {
		panic(panicked)
	}
	return err
}

// growStack makes room for at least size slots, and keeps those in use.
func (m *Machine) growStack(size int) error {
	n := max(minStack, len(m.stack))
	for n < size {
		n *= 2
	}
	err := m.resizeStack(n)
	if errors.Is(err, blockalloc.ErrOutOfMemory) && m.heap.Held() > 0 { // a collection may give something back
		if err := m.heap.Collect(); err != nil {
			return err
		}
		err = m.resizeStack(n)
	}
	return err
}

// shrinkStack makes the stack smaller, if it is nearly empty. Without memory for the smaller one, the
// larger one stays.
func (m *Machine) shrinkStack() error {
	n := len(m.stack)
	for n > minStack && m.sp+reserve < n/8 {
		n /= 2
	}
	if n == len(m.stack) {
		return nil
	}
	if err := m.resizeStack(n); !errors.Is(err, blockalloc.ErrOutOfMemory) {
		return err
	}
	return nil
}

func (m *Machine) resizeStack(n int) error {
	b, err := m.memory().Allocate(blockalloc.Layout{Size: uintptr(n) * 8, Align: 8})
	if err != nil {
		return err
	}
	stack := unsafe.Slice((*Value)(b.Pointer()), n)
	copy(stack, m.stack[:m.sp])
	if !m.block.IsZero() {
		if err := m.memory().Free(m.block); err != nil {
			return errors.Join(err, m.memory().Free(b))
		}
	}
	m.block, m.stack = b, stack
	return nil
}

// An Uncaught is what a program has raised and not handled.
type Uncaught struct {
	Text string
	Err  error // of the allocator, if the program is out of memory
}

func (e *Uncaught) Error() string { return e.Text }
func (e *Uncaught) Unwrap() error { return e.Err }

// ErrInterrupted is the error after [Machine.Interrupt].
var ErrInterrupted = errors.New("interrupted")

// An Exit is the error after the procedure exit.
type Exit int

func (e Exit) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// Run reads forms, and calls each, if it is not nil, with the text of the value of each but definitions. The error is a
// *SyntaxError, *Uncaught or Exit, ErrInterrupted, or one of the allocator, at the first form
// that fails.
func (m *Machine) Run(in io.RuneScanner, each func(text string)) (err error) {
	defer func() {
		if e := m.out.Flush(); err == nil {
			err = e
		}
	}()
	r := newReader(in, m.intern)
	for {
		x, err := r.read()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		v, err := m.eval(x)
		if err != nil {
			return err
		}
		if each != nil && v != Unspecified {
			m.out.Flush()
			each(m.show(v, true))
		}
	}
}

// eval runs one form. The stack is empty before and after.
func (m *Machine) eval(x any) (Value, error) {
	m.sp, m.pins, m.low = 0, m.pins[:0], false
	m.reg[regHandlers], m.reg[regWinders] = Nil, Nil
	if err := m.shrinkStack(); err != nil {
		return 0, err
	}
	closure, err := m.compile(x)
	if errors.Is(err, blockalloc.ErrOutOfMemory) {
		m.oom = err
		return 0, m.uncaught(m.reg[regNoMemory])
	} else if err != nil {
		return 0, err
	}
	copy(m.stack, []Value{bottom, fixnum(0), fixnum(0), closure})
	m.sp = frameSize + 1
	v, err := m.run(frameSize, 0)
	m.sp, m.current = 0, nil
	return v, err
}
