package blockalloc

import (
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"
)

// A Rewrapper is a wrapper that can be had a second time around other views of
// what it wraps. So a Proxy on top reaches the Proxies below with the context of a
// request, as all wrappers of this package let it.
//
// Rewrap returns a view of the wrapper that shares its state, such as counts,
// bounds and locks, with f(inner) in the place of each inner allocator. What f
// returns hands out and takes back the same blocks as inner, so whether it owns a
// block need not be found out again. The wrapper itself does not change.
//
// An allocator that makes blocks of its own out of another's memory is no
// Rewrapper: what it asks of its parent serves no one caller.
type Rewrapper interface {
	Rewrap(f func(inner Allocator) Allocator) Allocator
}

// Tree returns a picture of a composition of allocators, of one line each, without
// a newline at the end:
//
//	Fallback
//	├── Heap
//	└── Limit 1.0 GiB
//	    └── System
//
// Below an allocator are those that [Inner] yields. An allocator's line is what its String method
// returns, or else the name of its type. One that is reached twice is drawn twice.
func Tree(a Allocator) string {
	var t strings.Builder
	draw(&t, a, "")
	return strings.TrimSuffix(t.String(), "\n")
}

// draw writes a's line, the beginning of which has been written, and the lines
// below it, each of which begins with indent.
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

// Inner yields the allocators right below a: those that it wraps, by its Unwrap method,
// or the one that it takes memory from, by its Parent method. It yields none of nil.
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
