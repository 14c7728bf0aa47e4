// Package expvars shows how allocators stand at /debug/vars, beside Go's own
// memstats:
//
//	err := expvars.Publish("offheap", mem)
//
// Nothing is published by importing the package. But package expvar, which it imports,
// then serves /debug/vars on http.DefaultServeMux, as it does whoever imports it.
package expvars

import (
	"errors"
	"expvar"
	"fmt"
	"sync"

	"github.com/alloctrace/alloctrace/counter"
)

// Func returns a variable whose value is a snapshot of s, in JSON as
// [counter.Stats] is marshalled. Reading it costs that snapshot, and some ten
// microseconds for the JSON; until then it costs nothing. It can be set in an
// expvar.Map, to take it away again later. Func panics if s is nil.
func Func(s counter.Source) expvar.Func {
	if s == nil {
		panic("expvars: Func(nil): pass a Proxy or another counter.Source")
	}
	return func() any { return s.Stats() }
}

// publishing is held between looking whether a name is taken and taking it.
var publishing sync.Mutex

// Publish publishes a snapshot of s, as [Func] has it, as the variable name, for as
// long as the program runs: package expvar takes none back. It returns an error if
// s is nil, or name is empty or taken, where expvar.Publish would panic; which that
// does still if somebody else takes the name by expvar at the same moment.
func Publish(name string, s counter.Source) error {
	if s == nil {
		return fmt.Errorf("expvars: Publish(%q, nil): pass a Proxy or another counter.Source", name)
	}
	if name == "" {
		return errors.New(`expvars: Publish(""): pass a name, which /debug/vars shows`)
	}
	publishing.Lock()
	defer publishing.Unlock()
	if expvar.Get(name) != nil {
		return fmt.Errorf("expvars: Publish(%q): this name is taken: choose another", name)
	}
	expvar.Publish(name, Func(s))
	return nil
}
