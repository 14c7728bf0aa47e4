package blockalloc

import (
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"
)

// A Rewrapper is a wrapper that can make views of itself over other inner allocators.
// Proxy.WithContext uses it to pass a request's context to the proxies below. All
// wrappers of this package are Rewrappers.
//
// Rewrap returns a view of the wrapper with f(inner) in place of each inner allocator.
// The view shares the wrapper's state, such as counts, bounds and locks. What f returns
// must hand out and take back the same blocks as inner. The wrapper itself does not
// change.
//
// An allocator that cuts another's memory into blocks of its own is no Rewrapper: its
// requests to the parent belong to no single caller.
type Rewrapper interface {
	Rewrap(f func(inner Allocator) Allocator) Allocator
}

// Tree returns a drawing of a composition of allocators, one on each line, without a
// newline at the end:
//
//	Fallback
//	├── Heap
//	└── Limit 1.0 GiB
//	    └── System
//
// Below an allocator are those that [Inner] yields. A line is the allocator's String,
// or else the name of its type. An allocator that is reached twice is drawn twice.
func Tree(a Allocator) string {
	var t strings.Builder
	draw(&t, a, "")
	return strings.TrimSuffix(t.String(), "\n")
}

// draw completes a's line, which has been begun, and writes the lines below it, each
// after indent.
func draw(t *strings.Builder, a Allocator, indent string) {
	t.WriteString(nodeText(a))
	t.WriteByte('\n')
	inner := slices.Collect(Inner(a))
	for i, b := range inner {
		fork, next := "├── ", "│   "
		if i == len(inner)-1 {
			fork, next = "└── ", "    "
		}
		t.WriteString(indent + fork)
		draw(t, b, indent+next)
	}
}

// Inner yields the allocators directly below a: those that its Unwrap method returns,
// or else the one that its Parent method returns. It yields none if a is nil.
func Inner(a Allocator) iter.Seq[Allocator] {
	return func(yield func(Allocator) bool) {
		if isNil(a) {
			return
		}
		switch a := a.(type) {
		case interface{ Unwrap() Allocator }:
			yield(a.Unwrap())
		case interface{ Unwrap() []Allocator }:
			for _, inner := range a.Unwrap() {
				if !yield(inner) {
					return
				}
			}
		case interface{ Parent() Allocator }:
			yield(a.Parent())
		}
	}
}

func nodeText(a Allocator) string {
	if isNil(a) {
		return "nil"
	}
	if s, ok := a.(fmt.Stringer); ok {
		return s.String()
	}
	return strings.TrimPrefix(strings.TrimPrefix(fmt.Sprintf("%T", a), "*"), "blockalloc.")
}

// isNil reports whether a is nil or a nil pointer, on which methods panic.
func isNil(a Allocator) bool {
	v := reflect.ValueOf(a)
	return !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil()
}

// sizeText returns, for example, "4096 B" or "1.5 GiB".
func sizeText(size int64) string {
	if size < 10<<10 {
		return fmt.Sprintf("%d B", size)
	}
	n, unit := float64(size), 0
	for n >= 1024 {
		n, unit = n/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", n, " KMGTPE"[unit])
}
