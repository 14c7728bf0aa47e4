// Package adapter allocates through five calls of its own, as adapters do, for tests of what reports
// show. Its path has a dot, as that of gopkg.in/yaml.v3 has, which the names of its functions escape.
package adapter

import (
	"iter"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/adapter.v2/inner"
)

// New returns a block of size bytes, and panics if there is none. It is inlined.
func New(a blockalloc.Allocator, size uintptr) blockalloc.Block { return build(a, size) }

//go:noinline
func build[S ~uintptr](a blockalloc.Allocator, size S) blockalloc.Block {
	b := builder[S]{a, size}
	return b.block()
}

type builder[S ~uintptr] struct {
	a    blockalloc.Allocator
	size S
}

//go:noinline
func (b *builder[S]) block() (made blockalloc.Block) {
	call(func() { made = inner.Allocate(b.a, uintptr(b.size)) })
	return made
}

//go:noinline
func call(f func()) { f() }

// Maker returns a function that returns blocks. It is inlined, so that the function is one of the
// caller's.
func Maker(a blockalloc.Allocator) func(size uintptr) blockalloc.Block {
	return func(size uintptr) blockalloc.Block { return inner.Allocate(a, size) }
}

// Blocks returns the blocks of an endless loop, and is inlined likewise.
func Blocks(a blockalloc.Allocator, size uintptr) iter.Seq[blockalloc.Block] {
	return func(yield func(blockalloc.Block) bool) {
		for yield(inner.Allocate(a, size)) {
		}
	}
}

// Started returns a block that a goroutine allocates which nobody else's functions run in.
func Started(a blockalloc.Allocator, size uintptr) blockalloc.Block {
	made := make(chan blockalloc.Block)
	go func() { made <- inner.Allocate(a, size) }()
	return <-made
}

// Free frees a block, and returns the error.
//
//go:noinline
func Free(a blockalloc.Allocator, b blockalloc.Block) (err error) {
	call(func() { err = inner.Free(a, b) })
	return err
}
