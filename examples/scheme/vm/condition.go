package vm

import (
	"errors"
	"fmt"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// arityError is the error of a call with n arguments, of what wants params, or more if open.
func arityError(name string, params int, open bool, n int) error {
	if name == "" {
		name = "a procedure without a name"
	}
	least, plural := "", "s"
	if open {
		least = "at least "
	}
	if params == 1 {
		plural = ""
	}
	return fmt.Errorf("%s: wants %s%d argument%s, got %d", name, least, params, plural, n)
}

// condition makes what is raised of a Go error. The error is that of an allocator which takes no blocks back.
func (m *Machine) condition(err error) (Value, error) {
	var syntax *SyntaxError
	switch {
	case err == errPending || errors.Is(err, blockalloc.ErrOutOfMemory):
	case errors.As(err, &syntax):
		err = m.raise("read", err.Error())
	default:
		err = m.raise("error", err.Error())
	}
	switch {
	case err == errPending:
		return m.reg[regPending], nil
	case errors.Is(err, blockalloc.ErrOutOfMemory):
		m.oom = err
		return m.reg[regNoMemory], nil
	}
	return 0, err
}

// errPending says that the condition in regPending is to be raised.
var errPending = errors.New("a condition is pending")

// errorf returns the error that raises an error object with the message and irritants.
func (m *Machine) errorf(message string, irritants ...Value) error {
	return m.raise("error", message, irritants...)
}

// raise puts the condition of an error into regPending, and returns errPending, or that there is no memory.
func (m *Machine) raise(kind, message string, irritants ...Value) error {
	before := len(m.pins)
	defer func() { m.pins = m.pins[:before] }()
	for _, v := range irritants {
		m.pin(v)
	}
	list := Nil
	for i := len(irritants) - 1; i >= 0; i-- {
		var err error
		if list, err = m.cons(m.pins[before+i], list); err != nil {
			return err
		}
	}
	at := m.pin(list)
	text, err := m.stringValue(message)
	if err != nil {
		return err
	}
	m.pin(text)
	symbol := immediate(tagSymbol, m.intern(kind).id)
	c, err := m.object(kindCondition, &m.pins[at+1], &m.pins[at], &symbol)
	if err != nil {
		return err
	}
	m.reg[regPending] = c
	return errPending
}

func (m *Machine) uncaught(v Value) error {
	e := &Uncaught{Text: "uncaught: " + m.show(v, true)}
	if m.is(v, kindCondition) {
		e.Text = m.conditionText(v)
	}
	if v == m.reg[regNoMemory] {
		e.Err = m.oom
		if m.oom != nil {
			e.Text += ": " + m.oom.Error()
		}
	}
	return e
}
