package hooks

import (
	"context"

	"github.com/alloctrace/alloctrace"
)

// A Predicate chooses events. It is called synchronously and concurrently, as a
// Hook is.
type Predicate func(alloctrace.Event) bool

// Filter returns a Hook that hands on to next the events that all predicates choose.
func Filter(next alloctrace.Hook, predicates ...Predicate) alloctrace.Hook {
	return &filter{next, predicates}
}

type filter struct {
	next       alloctrace.Hook
	predicates []Predicate
}

func (f *filter) Observe(ctx context.Context, e alloctrace.Event, err error) {
	if f.chosen(e) {
		f.next.Observe(ctx, e, err)
	}
}

func (f *filter) chosen(e alloctrace.Event) bool {
	for _, p := range f.predicates {
		if !p(e) {
			return false
		}
	}
	return true
}

// Attach implements [alloctrace.Attacher].
func (f *filter) Attach(to *alloctrace.Attachment) alloctrace.Hook {
	return &filter{to.Attach(f.next, f.chosen), f.predicates}
}

// Failures chooses the events that are failures.
func Failures(e alloctrace.Event) bool { return e.Kind.Failed() }

// Kinds returns a Predicate that chooses events of the given kinds.
func Kinds(kinds ...alloctrace.Kind) Predicate {
	var set uint64
	for _, k := range kinds {
		set |= 1 << k
	}
	return func(e alloctrace.Event) bool { return set>>e.Kind&1 == 1 }
}

// MinSize returns a Predicate that chooses events of blocks of at least size
// bytes.
func MinSize(size uintptr) Predicate {
	return func(e alloctrace.Event) bool { return e.Size >= size }
}
