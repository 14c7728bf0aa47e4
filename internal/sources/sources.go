// Package sources has what exporters of metrics do with a [counter.Source] alike: find the
// allocators below it, and read it whatever happens.
package sources

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
)

// Below is what there is to know of the allocators below a source.
type Below struct {
	Backend  string // the type of the last one, as "Pool"; "" if the source is no allocator
	pool     *blockalloc.Pool
	limits   []*blockalloc.Limit
	spanners []blockalloc.Spanner
}

// LookBelow goes down as long as there is one inner allocator, and not several.
func LookBelow(s counter.Source) Below {
	var b Below
	a, _ := s.(blockalloc.Allocator)
	for a != nil {
		b.Backend = strings.TrimPrefix(strings.TrimPrefix(fmt.Sprintf("%T", a), "*"), "blockalloc.")
		switch a := a.(type) {
		case *blockalloc.Limit:
			b.limits = append(b.limits, a)
		case *blockalloc.Pool:
			b.pool = a
		}
		if s, ok := a.(blockalloc.Spanner); ok {
			b.spanners = append(b.spanners, s)
		}
		inner := slices.Collect(blockalloc.Inner(a))
		if len(inner) != 1 {
			break
		}
		a = inner[0]
	}
	return b
}

// Limit returns a function that returns the lowest bound of a Limit on the way down, in
// bytes, and nil if there is none.
func (b *Below) Limit() func() int64 {
	if len(b.limits) == 0 {
		return nil
	}
	limits := b.limits
	return func() int64 {
		bytes := limits[0].Max()
		for _, l := range limits[1:] {
			bytes = min(bytes, l.Max())
		}
		return bytes
	}
}

// Reserved returns a function that returns the address space that the Pool below has
// reserved, in bytes, and nil if there is none. A call costs one of [blockalloc.Pool.Stats].
func (b *Below) Reserved() func() int64 {
	pool := b.pool
	if pool == nil {
		return nil
	}
	return func() int64 { return pool.Stats().Reserved }
}

// Pinned returns a function that returns how many bytes of the spans of the allocators below are free, and nil if none has
// spans. A call costs a walk through them, see [blockalloc.Spanner].
func (b *Below) Pinned() func() int64 {
	if len(b.spanners) == 0 {
		return nil
	}
	spanners := b.spanners
	return func() (bytes int64) {
		for _, s := range spanners {
			for span := range s.Spans {
				bytes += int64(span.Free)
			}
		}
		return bytes
	}
}

// Require panics if one of sources is nil. call names the function that they were passed to.
func Require(call string, sources ...counter.Source) {
	if i := slices.Index(sources, nil); i >= 0 {
		panic(fmt.Sprintf("%s: source %d is nil: pass a Proxy or another counter.Source", call, i))
	}
}

// Try calls f and returns its error, or one that says that it panicked. A metric is not
// worth a program: an exporter leaves out what it could not read, and counts it.
func Try(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("it panicked: %v", r)
		}
	}()
	return f()
}

// Readable returns those of sources whose numbers can be read, and how many cannot. It
// costs a snapshot of each.
func Readable(sources []counter.Source) (readable []counter.Source, failed int64) {
	for _, s := range sources {
		if Try(func() error { s.Stats(); return nil }) != nil {
			failed++
			continue
		}
		readable = append(readable, s)
	}
	return readable, failed
}
