package hooks

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/alloctrace/alloctrace"
)

// Sample returns a Hook that hands on to next one in every events of each kind, the
// first of each included, and every failure. Kinds are counted apart, since of a program
// that allocates and frees in turns only the one or the other would be seen. So the free of a
// block whose allocation was handed on may not be, and the other way around. It panics if
// every is less than 1.
//
// An event that is not handed on costs one atomic addition.
func Sample(next alloctrace.Hook, every int) alloctrace.Hook {
	if every < 1 {
		panic(fmt.Sprintf("hooks: Sample of one in %d: use 1 or more", every))
	}
	return &sample{uint64(every), next, new(seen), new(seen)}
}

type sample struct {
	every uint64
	next  alloctrace.Hook
	seen  *seen // all parts have the same
	asked *seen // of what next asked for in Attach, which comes beside Observe
}

// seen counts events by kind.
type seen [8]struct {
	n atomic.Uint64
	_ [56]byte // one cache line each
}

func (s *sample) Observe(ctx context.Context, e alloctrace.Event, err error) {
	if s.seen.chosen(e, s.every) {
		s.next.Observe(ctx, e, err)
	}
}

// chosen counts e, and reports whether it is handed on.
func (s *seen) chosen(e alloctrace.Event, every uint64) bool {
	return e.Kind.Failed() || (s[e.Kind%8].n.Add(1)-1)%every == 0
}

// Attach implements [alloctrace.Attacher].
func (s *sample) Attach(to *alloctrace.Attachment) alloctrace.Hook {
	part := to.Attach(s.next, func(e alloctrace.Event) bool { return s.asked.chosen(e, s.every) })
	return &sample{s.every, part, s.seen, s.asked}
}
