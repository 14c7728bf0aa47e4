// Package expvars publishes the counts of allocators at /debug/vars, beside Go's own
// memstats:
//
//	err := expvars.Publish(mem, "offheap")
//
// Importing the package publishes no allocator. But it imports package expvar, which serves
// /debug/vars on http.DefaultServeMux from then on.
package expvars

import (
	"errors"
	"expvar"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/sources"
	"github.com/alloctrace/alloctrace/internal/text"
)

// Func returns a variable whose value is a snapshot of s: a [counter.Stats] in JSON. Reading
// the variable costs the snapshot and some ten microseconds for the JSON. A variable in an
// expvar.Map can be deleted again. If the Stats method of s panics, the value is how often it
// has, {"read_failures":1}, so that /debug/vars still has all other variables. Func panics if
// s is nil.
func Func(s counter.Source) expvar.Func {
	if s == nil {
		panic("expvars: Func(nil): pass a Proxy or another counter.Source")
	}
	var unread atomic.Int64
	return func() any {
		var stats counter.Stats
		if sources.Try(func() error { stats = s.Stats(); return nil }) != nil {
			return map[string]int64{"read_failures": unread.Add(1)}
		}
		return stats
	}
}

// publishing is locked from the check that a name is free until the name is taken.
var publishing sync.Mutex

// Publish publishes the variable of [Func] under name until the program ends, because package
// expvar cannot remove variables. Each byte of name that is not valid UTF-8 becomes U+FFFD. A
// name of more than 1 KiB is cut and ends in "…". Publish returns an error if the name is empty
// or taken. It panics if s is nil, and if other code publishes the same name through package
// expvar at the same moment.
func Publish(s counter.Source, name string) error {
	if s == nil {
		panic(fmt.Sprintf("expvars: Publish(nil, %q): pass a Proxy or another counter.Source", name))
	}
	name = text.Name(name)
	if name == "" {
		return errors.New(`expvars: Publish: the name is "": pass one, which /debug/vars shows`)
	}
	publishing.Lock()
	defer publishing.Unlock()
	if expvar.Get(name) != nil {
		return fmt.Errorf("expvars: Publish: the name %q is taken: choose another", name)
	}
	expvar.Publish(name, Func(s))
	return nil
}
