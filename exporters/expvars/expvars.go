// Package expvars shows how allocators stand at /debug/vars, beside Go's own
// memstats:
//
//	err := expvars.Publish(mem, "offheap")
//
// Nothing is published by importing the package. But package expvar, which it imports,
// then serves /debug/vars on http.DefaultServeMux, as it does whoever imports it.
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

// Func returns a variable whose value is a snapshot of s, in JSON as
// [counter.Stats] is marshalled. Reading it costs that snapshot, and some ten
// microseconds for the JSON; until then it costs nothing. It can be set in an
// expvar.Map, to take it away again later. While s panics, which would end the answer to
// whoever asked for all variables, its value is how often it did: {"read_failures":1}.
// Func panics if s is nil.
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

// publishing is held between looking whether a name is taken and taking it.
var publishing sync.Mutex

// Publish publishes a snapshot of s, as [Func] has it, as the variable name, for as
// long as the program runs: package expvar takes none back. In name each byte that is no
// part of a character becomes U+FFFD, and a name of more than 1 KiB is cut and ends in "…".
// Publish returns an error if s is nil, or name is empty or then taken, where
// expvar.Publish would panic; which that does still if somebody else takes the name by
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
