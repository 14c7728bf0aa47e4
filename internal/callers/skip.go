package callers

import (
	"errors"
	"fmt"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// A Skip is packages that a report leaves out of its stacks where they are the innermost. They
// say how memory was asked for, and who reads it wants to know by whom. This library is one of
// them in any case.
type Skip struct{ packages []string }

// NewSkip returns the Skip of packages, each an import path, or one with "/..." after it for all
// packages below as well.
func NewSkip(packages []string) (Skip, error) {
	for _, p := range packages {
		if why := wrong(p); why != nil {
			return Skip{}, fmt.Errorf("Skip has %q: %w: use import paths, such as %q, or %q for all packages below as well",
				p, why, "example.com/adapter", "example.com/adapter/...")
		}
	}
	return Skip{slices.Clone(packages)}, nil
}

// wrong says what keeps p from being an import path, nil if nothing does.
func wrong(p string) error {
	of := strings.TrimSuffix(p, "/...")
	switch {
	case of == "":
		return errors.New("it is empty")
	case strings.Contains(of, "..."):
		return errors.New(`"..." stands after a slash, at the end`)
	case strings.HasPrefix(of, "./"), strings.HasPrefix(of, "../"), of == ".", strings.HasPrefix(of, "/"):
		return errors.New("it is a folder")
	case strings.Contains(of, "@"):
		return errors.New("it has a version")
	case path.Clean(of) != of, strings.ContainsAny(of, "!\"#$%&'()*,:;<=>?[\\]^`{|} \t\r\n"):
		return errors.New("no package has that path")
	}
	return nil
}

// Frames returns what [Frames] does, without the frames at the inner end that are of s. If
// nothing would remain, it leaves out none. Frames of tests remain, whatever their package is.
func (s Skip) Frames(pcs []uintptr) []runtime.Frame {
	all := Frames(pcs)
	rest := all
	for len(rest) > 0 && (goes(rest[0]) || s.skips(rest[0], all)) {
		rest = rest[1:]
	}
	if len(rest) == 0 {
		return all
	}
	return rest
}

// skips reports whether f, of a stack, is of s.
func (s Skip) skips(f runtime.Frame, stack []runtime.Frame) bool {
	if strings.HasSuffix(f.File, "_test.go") {
		return false
	}
	of, name := cut(f.Function)
	if !closure(name) {
		return s.has(of)
	}
	if in := packageIn(path.Dir(f.File), roots(stack)); in != "" {
		return s.has(in)
	}
	return s.has(of) || s.hasFolder(path.Dir(f.File))
}

// has reports whether a package is of s.
func (s Skip) has(of string) bool {
	if library(of) {
		return true
	}
	for _, p := range s.packages {
		below, all := strings.CutSuffix(p, "/...")
		if of == below || all && strings.HasPrefix(of, below+"/") {
			return true
		}
	}
	return false
}

// hasFolder reports whether the package in a folder is of s, as far as the folder says: one of the
// module cache, of a vendor folder, or of a program that was built with -trimpath. The path of a
// single element says too little.
func (s Skip) hasFolder(folder string) bool {
	at := "/" + unversioned(folder) + "/"
	for _, p := range s.packages {
		below, all := strings.CutSuffix(p, "/...")
		of := "/" + below + "/"
		if strings.Contains(below, "/") && (strings.HasSuffix(at, of) || all && strings.Contains(at, of)) {
			return true
		}
	}
	return false
}

// unversioned returns a folder of the module cache as an import path has it: without the version
// of the module, and with capital letters for "!a".
func unversioned(folder string) string {
	elements := strings.Split(folder, "/")
	for i, e := range elements {
		elements[i], _, _ = strings.Cut(e, "@")
	}
	parts := strings.Split(strings.Join(elements, "/"), "!")
	for i, p := range parts[1:] {
		if p != "" {
			parts[i+1] = strings.ToUpper(p[:1]) + p[1:]
		}
	}
	return strings.Join(parts, "")
}

// library reports whether a package is of this library: of its module or one below, but for the
// examples, what is internal, some of which are programs, and the suite that tests allocators.
func library(of string) bool {
	below, inModule := strings.CutPrefix(of+"/", module+"/")
	for _, other := range []string{"examples/", "blockalloc/blocktest/"} {
		if strings.HasPrefix(below, other) {
			return false
		}
	}
	return inModule && !strings.Contains("/"+below, "/internal/")
}

// roots returns folders with the import paths that they stand for, as far as functions say. Closures
// are left out: where the compiler has inlined the function that makes one into another package, Go
// 1.26 names it after that, and not after its own.
func roots(frames []runtime.Frame) map[string]string {
	list := make(map[string]string)
	for _, f := range frames {
		of, name := cut(f.Function)
		if closure(name) || strings.HasSuffix(f.File, "_test.go") {
			continue
		}
		folder := path.Dir(f.File)
		for path.Base(folder) == path.Base(of) && strings.Contains(of, "/") {
			folder, of = path.Dir(folder), path.Dir(of)
		}
		list[folder] = of
	}
	return list
}

// packageIn returns the import path of a folder, "" if it is below no root.
func packageIn(folder string, roots map[string]string) string {
	for below := ""; ; {
		if of := roots[folder]; of != "" {
			return path.Join(of, below)
		}
		outer := path.Dir(folder)
		if outer == folder {
			return ""
		}
		folder, below = outer, path.Join(path.Base(folder), below)
	}
}

// closure reports whether a function may be one inside another one, such as F.func1 or F.1, or the body
// of a loop over one, F-range1.
func closure(name string) bool {
	for _, part := range strings.Split(name, ".") {
		if number := strings.TrimPrefix(part, "func"); number != "" && number[0] >= '0' && number[0] <= '9' || strings.Contains(part, "-range") {
			return true
		}
	}
	return false
}

// cut cuts the name of a function into the import path of its package and the rest. The linker
// escapes dots in the last element of a path, and Go 1.27 does it twice for some closures.
func cut(function string) (of, name string) {
	end := len(function)
	if i := strings.IndexAny(function, "[("); i >= 0 { // type arguments and receivers may have paths
		end = i
	}
	slash := strings.LastIndexByte(function[:end], '/') + 1
	dot := strings.IndexByte(function[slash:end], '.')
	if dot < 0 {
		return "", function
	}
	of, name = function[:slash+dot], function[slash+dot:]
	for plain := ""; of != plain; { // no path has a %
		plain, of = of, unescape(of)
	}
	return of, name
}

// unescape replaces each %xx by its byte.
func unescape(s string) string {
	parts := strings.Split(s, "%")
	for i, p := range parts[1:] {
		code, err := strconv.ParseUint(p[:min(2, len(p))], 16, 8)
		if err != nil || len(p) < 2 {
			return s
		}
		parts[i+1] = string([]byte{byte(code)}) + p[2:]
	}
	return strings.Join(parts, "")
}

// Lines returns a line for each frame, without a newline at the end: the file's base name, the
// line, and the function after its package's name, as in "cache_test.go:31 cache.TestEvict".
func Lines(frames []runtime.Frame) string {
	var lines []string
	for _, f := range frames {
		lines = append(lines, path.Base(f.File)+":"+strconv.Itoa(f.Line)+" "+path.Base(f.Function))
	}
	return strings.Join(lines, "\n")
}
