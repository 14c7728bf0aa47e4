//go:build cgo && linux

// Shared is built with -buildmode=c-shared, and loaded by main.c.
package main

import "C"

import (
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/peers/modes/work"
)

var counted counter.Counter

// AlloctraceCount counts n blocks on the thread that calls it, and returns what is wrong.
//
//export AlloctraceCount
func AlloctraceCount(n C.int) *C.char { return text(work.Count(&counted, int(n))) }

// AlloctraceDo counts 4 n blocks on goroutines, and returns what is wrong.
//
//export AlloctraceDo
func AlloctraceDo(n C.int) *C.char { return text(work.Do(&counted, int(n))) }

// AlloctraceCheck returns the ways if n blocks were counted in all, or what is wrong.
//
//export AlloctraceCheck
func AlloctraceCheck(n C.longlong) *C.char {
	ways, err := work.Check(&counted, int64(n))
	if err != nil {
		return text(err)
	}
	return C.CString(ways)
}

func text(err error) *C.char {
	if err == nil {
		return nil
	}
	return C.CString(err.Error())
}

func main() {}
