//go:build cgo && unix

// Package ccall calls Go from C that uses the frame pointer for something else, as code
// compiled with -fomit-frame-pointer does.
package ccall

// void call(unsigned long long frame_pointer);
import "C"

var callback func()

//export goCallback
func goCallback() { callback() }

// Call has C code call f while the frame pointer is what is given. It is for one
// goroutine at a time.
func Call(framePointer uint64, f func()) {
	callback = f
	C.call(C.ulonglong(framePointer))
}
