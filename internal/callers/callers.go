// Package callers tells who called this library.
package callers

import (
	"runtime"
	"strings"
)

const module = "github.com/alloctrace/alloctrace"

// own are the packages through which memory is asked for.
var own = []string{".", "/hooks.", "/blockalloc.", "/blockalloc/typed.", "/alloctest."}

// Frames returns the frames of a stack that [runtime.Callers] has filled, but for those of
// this library, its tests excepted, and those of the Go runtime and of package testing at
// either end. If nothing remains it returns all.
func Frames(pcs []uintptr) []runtime.Frame {
	var all, theirs []runtime.Frame
	for frames := runtime.CallersFrames(pcs); len(pcs) > 0; {
		f, more := frames.Next()
		if f.Function != "" {
			all = append(all, f)
			if !ours(f) {
				theirs = append(theirs, f)
			}
		}
		if !more {
			break
		}
	}
	for len(theirs) > 0 && goes(theirs[0]) {
		theirs = theirs[1:]
	}
	for len(theirs) > 0 && goes(theirs[len(theirs)-1]) {
		theirs = theirs[:len(theirs)-1]
	}
	if len(theirs) == 0 {
		return all
	}
	return theirs
}

func ours(f runtime.Frame) bool {
	if strings.HasSuffix(f.File, "_test.go") {
		return false
	}
	name, inModule := strings.CutPrefix(f.Function, module)
	if !inModule {
		return false
	}
	for _, of := range own {
		if strings.HasPrefix(name, of) {
			return true
		}
	}
	return false
}

// goes reports whether f is Go's: of the runtime, or of package testing.
func goes(f runtime.Frame) bool {
	return strings.HasPrefix(f.Function, "runtime.") || strings.HasPrefix(f.Function, "testing.")
}
