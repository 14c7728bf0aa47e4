package blockalloc

import (
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// A DebugStack is where a goroutine was: return addresses as [runtime.Callers] has
// them, the innermost first.
type DebugStack []uintptr

// stack returns where the caller's caller is.
func (d *Debug) stack() DebugStack {
	if d.options.Stack == 0 {
		return nil
	}
	var pcs [maxDebugStack]uintptr
	n := runtime.Callers(3, pcs[:d.options.Stack])
	return slices.Clone(pcs[:n])
}

// Frames returns the frames of s but for those of package blockalloc itself, and
// those of the Go runtime and of package testing at either end.
func (s DebugStack) Frames() []runtime.Frame {
	var all []runtime.Frame
	for frames := runtime.CallersFrames(s); len(s) > 0; {
		f, more := frames.Next()
		if f.Function != "" && !ownFrame(f) {
			all = append(all, f)
		}
		if !more {
			break
		}
	}
	for len(all) > 0 && runtimeFrame(all[0]) {
		all = all[1:]
	}
	for len(all) > 0 && runtimeFrame(all[len(all)-1]) {
		all = all[:len(all)-1]
	}
	return all
}

func ownFrame(f runtime.Frame) bool {
	return strings.HasPrefix(f.Function, "github.com/alloctrace/alloctrace/blockalloc.") && !strings.HasSuffix(f.File, "_test.go")
}

func runtimeFrame(f runtime.Frame) bool {
	return strings.HasPrefix(f.Function, "runtime.") || strings.HasPrefix(f.Function, "testing.")
}

// String returns a line for each of the Frames, without a newline at the end: the
// base name of the file, the line, and the function with the last element of its
// package's path, as "cache_test.go:31 cache.TestEvict".
func (s DebugStack) String() string {
	var lines []string
	for _, f := range s.Frames() {
		lines = append(lines, path.Base(f.File)+":"+strconv.Itoa(f.Line)+" "+path.Base(f.Function))
	}
	return strings.Join(lines, "\n")
}
