package typed_test

import (
	"errors"
	"strings"
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
	refused := map[string]func() error{
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
		"NewBox of *int: ": func() error { _, err := typed.NewBox(a, new(int)); return err },
		"NewBoxFunc of string: ": func() error {
			_, err := typed.NewBoxFunc(a, func(*string) error { panic("filled") })
			return err
		},
	}
	for text, construct := range refused {
		for range 2 { // the second answer comes from the cache
			err := construct()
			if !errors.Is(err, typed.ErrPointers) || !strings.HasPrefix(err.Error(), "blockalloc/typed: "+text) {
				t.Errorf("error %q, want %q", err, text)
			}
		}
	}
	if a.calls > 0 {
		t.Errorf("%d allocations for what is refused", a.calls)
	}
	for name, construct := range map[string]func() error{
		"flat":        vecOf[flat](a),
		"[0]string":   vecOf[[0]string](a),
		"struct{}":    vecOf[struct{}](a),
		"uintptr":     vecOf[uintptr](a),
		"String":      vecOf[typed.String](a),
		"Duration":    vecOf[time.Duration](a),
		"[3][2]int32": vecOf[[3][2]int32](a),
	} {
		if err := construct(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func vecOf[T any](a blockalloc.Allocator) func() error {
	return func() error {
		_, err := typed.NewVec[T](a)
		return err
	}
}

func TestNilAllocator(t *testing.T) {
	for name, construct := range map[string]func(){
		"NewVec":     func() { typed.NewVec[int](nil) },
		"NewBox":     func() { typed.NewBox(nil, 1) },
		"NewBoxFunc": func() { typed.NewBoxFunc(nil, func(*int) error { return nil }) },
		"NewString":  func() { typed.NewString(nil, "a") },
		"NewBuffer":  func() { typed.NewBuffer(nil) },
	} {
		wantPanic(t, "blockalloc/typed: "+name+": the allocator is nil: pass one", construct)
	}
}
