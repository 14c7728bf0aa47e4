package typed

import "github.com/alloctrace/alloctrace/blockalloc"

// UncheckedVec is a Vec of any type, which NewVec would refuse if it holds Go
// pointers.
func UncheckedVec[T any](mem blockalloc.Allocator) *Vec[T] { return newVec[T](mem) }
