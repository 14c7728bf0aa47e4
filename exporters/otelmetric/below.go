package otelmetric

import (
	"fmt"
	"strings"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// below is what there is to know of the allocators below a source.
type below struct {
	backend string // "" if the source is no allocator
	pool    *blockalloc.Pool
	limits  []*blockalloc.Limit
}

// lookBelow follows Unwrap and Parent as far as they lead to one allocator.
func lookBelow(source any) below {
	var b below
	a, _ := source.(blockalloc.Allocator)
	for a != nil {
		b.backend = strings.TrimPrefix(strings.TrimPrefix(fmt.Sprintf("%T", a), "*"), "blockalloc.")
		switch a := a.(type) {
		case *blockalloc.Limit:
			b.limits = append(b.limits, a)
		case *blockalloc.Pool:
			b.pool = a
		}
		switch w := a.(type) {
		case interface{ Unwrap() blockalloc.Allocator }:
			a = w.Unwrap()
		case interface{ Parent() blockalloc.Allocator }:
			a = w.Parent()
		default:
			a = nil
		}
	}
	return b
}

// limit returns the lowest bound.
func (b *below) limit() (bytes int64) {
	bytes = b.limits[0].Max()
	for _, l := range b.limits[1:] {
		bytes = min(bytes, l.Max())
	}
	return bytes
}
