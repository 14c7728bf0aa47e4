package typed_test

import (
	"testing"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
)

type item struct {
	ID   uint64
	Name string
}

type order struct {
	Number int
	Items  [4]item
}

type flat struct {
	A     [3]int16
	B     struct{ X, Y float32 }
	C     complex128
	D     bool
	Where uintptr
	None  [0]*int
	_     [0]func()
	E     struct{}
	Text  typed.String
}

func TestPointersAreRefused(t *testing.T) {
	a := newChecked(t)
	refused := map[string]func(){
		"NewVec of typed_test.order: type holds Go pointers: Items[].Name is a string: ": vecOf[order](a),
		"NewVec of string: type holds Go pointers: the garbage":                          vecOf[string](a),
		"NewVec of [2]string: type holds Go pointers: [] is a string: ":                  vecOf[[2]string](a),
		"NewVec of [2][3]chan int: type holds Go pointers: [][] is a chan int: ":         vecOf[[2][3]chan int](a),
		"NewVec of *int: type holds Go pointers: the garbage":                            vecOf[*int](a),
		"NewVec of []uint8: ":        vecOf[[]byte](a),
		"NewVec of map[int]int: ":    vecOf[map[int]int](a),
		"NewVec of func(): ":         vecOf[func()](a),
		"NewVec of interface {}: ":   vecOf[any](a),
		"NewVec of error: ":          vecOf[error](a),
		"NewVec of unsafe.Pointer: ": vecOf[unsafe.Pointer](a),
		"NewVec of time.Time: type holds Go pointers: loc is a *time.Location: ": vecOf[time.Time](a),
		"NewVec of struct { A int; _ *int }: type holds Go pointers: _ is a *int: ": vecOf[struct {
			A int
			_ *int
		}](a),
		"NewVec of typed.Box[int]: type holds Go pointers: mem is a blockalloc.Allocator: ": vecOf[typed.Box[int]](a),
		"NewBox of *int: ":       func() { _, _ = typed.NewBox(a, new(int)) },
		"NewBoxFunc of string: ": func() { _, _ = typed.NewBoxFunc(a, func(*string) error { panic("filled") }) },
	}
	for text, construct := range refused {
		for range 2 { // the second answer comes from the cache
			wantPanic(t, "blockalloc/typed: "+text, construct)
		}
	}
	if a.calls > 0 {
		t.Errorf("%d allocations for what is refused", a.calls)
	}
	for _, construct := range []func(){
		vecOf[flat](a),
		vecOf[[0]string](a),
		vecOf[struct{}](a),
		vecOf[uintptr](a),
		vecOf[typed.String](a),
		vecOf[time.Duration](a),
		vecOf[[3][2]int32](a),
	} {
		construct() // panics if it refuses
	}
}

func vecOf[T any](a blockalloc.Allocator) func() {
	return func() { typed.NewVec[T](a) }
}
