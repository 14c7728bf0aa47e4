package blockalloc_test

import (
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/blockalloc/guard"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
)

// TestNilAllocator: each function that needs an allocator panics without one, and says
// what to pass.
func TestNilAllocator(t *testing.T) {
	var heap blockalloc.Heap
	vec := typed.NewVec[int](&heap)
	var text typed.String
	for call, try := range map[string]func(){
		"blockalloc: NewBump(nil)":                func() { _, _ = blockalloc.NewBump(nil, 0) },
		"blockalloc: NewFallback(nil, second)":    func() { blockalloc.NewFallback(nil, &heap) },
		"blockalloc: NewFallback(first, nil)":     func() { blockalloc.NewFallback(&heap, nil) },
		"blockalloc: NewFreeList(nil)":            func() { _, _ = blockalloc.NewFreeList(nil, blockalloc.Layout{}, -1) },
		"blockalloc: NewLimit(nil)":               func() { blockalloc.NewLimit(nil, 1) },
		"blockalloc: NewLocked(nil)":              func() { blockalloc.NewLocked(nil) },
		"blockalloc: NewScoped(nil)":              func() { _, _ = blockalloc.NewScoped(nil, 0) },
		"blockalloc: NewSegregate(nil, large)":    func() { blockalloc.NewSegregate(nil, &heap, 8) },
		"blockalloc: NewSegregate(small, nil)":    func() { blockalloc.NewSegregate(&heap, nil, 8) },
		"blockalloc: NewSlab(nil)":                func() { _, _ = blockalloc.NewSlab(nil, 0) },
		"debug: New(nil)":                         func() { debug.New(nil, debug.Options{}) },
		"failing: After(nil)":                     func() { failing.After(nil, 1) },
		"failing: Every(nil)":                     func() { failing.Every(nil, 1) },
		"failing: If(nil)":                        func() { failing.If(nil, func(failing.Call) bool { return true }) },
		"guard: New(nil)":                         func() { guard.New(nil, guard.Options{}) },
		"blockalloc/typed: NewBox(nil)":           func() { _, _ = typed.NewBox(nil, 1) },
		"blockalloc/typed: NewBoxFunc(nil)":       func() { _, _ = typed.NewBoxFunc(nil, func(*int) error { return nil }) },
		"blockalloc/typed: NewBuffer(nil)":        func() { typed.NewBuffer(nil) },
		"blockalloc/typed: NewBytesMap(nil)":      func() { typed.NewBytesMap[int](nil) },
		"blockalloc/typed: NewBytesMapFunc(nil)":  func() { typed.NewBytesMapFunc[int](nil, func([]byte) uint64 { return 0 }) },
		"blockalloc/typed: NewMap(nil)":           func() { typed.NewMap[int, int](nil) },
		"blockalloc/typed: NewMapFunc(nil)":       func() { typed.NewMapFunc[int, int](nil, func(int) uint64 { return 0 }) },
		"blockalloc/typed: NewString(nil)":        func() { _, _ = typed.NewString(nil, "a") },
		"blockalloc/typed: NewVec(nil)":           func() { typed.NewVec[int](nil) },
		"blockalloc/typed: String.Free(nil)":      func() { _ = text.Free(nil) },
		"blockalloc/typed: Vec.SetAllocator(nil)": func() { vec.SetAllocator(nil) },
	} {
		wantPanic(t, call+": pass an allocator, such as blockalloc.Default()", try)
	}
}
