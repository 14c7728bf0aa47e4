package main

import (
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
)

// newVec is typed.NewVec for elements without Go pointers: others it would refuse.
func newVec[T byte | uint32 | uint64 | source](mem blockalloc.Allocator) *typed.Vec[T] {
	v, err := typed.NewVec[T](mem)
	if err != nil {
		panic(err)
	}
	return v
}
