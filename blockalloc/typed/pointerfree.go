package typed

import (
	"fmt"
	"reflect"
	"sync"
)

// needPointerFree panics if values of type T hold Go pointers: the garbage collector
// does not look into blocks, and would free what they point to. function names the
// caller, and which of its type parameters T is: "NewMap with keys". A type costs about
// a microsecond the first time and 15 ns from then on.
func needPointerFree[T any](function string) {
	t := reflect.TypeFor[T]()
	known, ok := checkedTypes.Load(t)
	if !ok {
		path, pointer := findPointer(t)
		known, _ = checkedTypes.LoadOrStore(t, checkedType{path, pointer})
	}
	c := known.(checkedType)
	if c.pointer == nil {
		return
	}
	part := ""
	if c.path != "" {
		part = fmt.Sprintf("%s is a %v: ", c.path, c.pointer)
	}
	panic(fmt.Sprintf("blockalloc/typed: %s of %v: type holds Go pointers: %sthe garbage collector does not look into blocks: store an index, an offset or a typed.String", function, t, part))
}

// checkedTypes holds the checkedType of every reflect.Type that was asked about.
var checkedTypes sync.Map

// A checkedType says where in a type the first Go pointer is: pointer is nil if there
// is none, and path is empty if it is the type itself.
type checkedType struct {
	path    string
	pointer reflect.Type
}

// findPointer returns the first part of t that is or contains a Go pointer, and the
// path to it: "Items[].Name". Kinds that are not known to be free of pointers count as
// pointers.
func findPointer(t reflect.Type) (path string, pointer reflect.Type) {
	switch t.Kind() {
	case reflect.Bool,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr,
		reflect.Float32, reflect.Float64, reflect.Complex64, reflect.Complex128:
		return "", nil
	case reflect.Array:
		if t.Len() == 0 {
			return "", nil // holds nothing: [0]func() only makes a struct incomparable
		}
		path, pointer = findPointer(t.Elem())
		return join("[]", path), pointer
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if path, pointer = findPointer(f.Type); pointer != nil {
				return join(f.Name, path), pointer
			}
		}
		return "", nil
	}
	return "", t
}

// join puts a step in front of a path: "Items" and "[].Name" are "Items[].Name".
func join(step, path string) string {
	if path == "" || path[0] == '[' {
		return step + path
	}
	return step + "." + path
}
