package callers

import (
	"iter"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// both returns the functions that called it, by Stack and by runtime.Callers.
//
//go:noinline
func both() (followed, called []string) {
	var pcs [64]uintptr
	followed = functions(pcs[:Stack(pcs[:])])
	called = functions(pcs[:runtime.Callers(1, pcs[:])])
	return followed, called
}

// functions returns the functions of a stack but for what the compiler and the runtime
// put between them.
func functions(pcs []uintptr) (names []string) {
	for frames := runtime.CallersFrames(pcs); len(pcs) > 0; {
		f, more := frames.Next()
		if !made(f) && !strings.HasPrefix(f.Function, "runtime.") {
			names = append(names, f.Function)
		}
		if !more {
			break
		}
	}
	return names
}

type caller struct{ depth int }

func (c caller) method() (followed, called []string) {
	if c.depth > 0 {
		return caller{c.depth - 1}.method()
	}
	return both()
}

func inlined() (followed, called []string) { return both() }

func generic[T any](T) (followed, called []string) { return both() }

// TestStack: both ways find the same functions, whatever way the program takes.
func TestStack(t *testing.T) {
	if canFollow && !follows {
		t.Error("frame pointers lead elsewhere than runtime.Callers")
	}
	for name, call := range map[string]func() (followed, called []string){
		"directly":         both,
		"inlined":          inlined,
		"method":           caller{}.method,
		"deep":             caller{10}.method,
		"deeper than kept": caller{100}.method,
		"generic":          func() ([]string, []string) { return generic("") },
		"reflection": func() ([]string, []string) {
			results := reflect.ValueOf(caller{2}.method).Call(nil)
			return results[0].Interface().([]string), results[1].Interface().([]string)
		},
		"deferred": func() (followed, called []string) {
			defer func() { followed, called = both() }()
			return nil, nil
		},
		"panicking": func() (followed, called []string) {
			defer func() { _ = recover() }()
			defer func() { followed, called = both() }()
			panic("for the test")
		},
		"faulting": func() (followed, called []string) {
			defer func() { _ = recover() }()
			defer func() { followed, called = both() }()
			var nobody *caller
			return nil, []string{string(rune(nobody.depth))}
		},
		"goroutine": func() (followed, called []string) {
			done := make(chan bool)
			go func() {
				followed, called = both()
				close(done)
			}()
			<-done
			return followed, called
		},
		"iterator": func() (followed, called []string) {
			for range slices.Values([]int{1}) {
				followed, called = both()
			}
			return followed, called
		},
		"coroutine": func() (followed, called []string) {
			next, stop := iter.Pull(func(yield func(bool) bool) {
				followed, called = both()
				yield(true)
			})
			next()
			stop()
			return followed, called
		},
		"bubble": func() (followed, called []string) {
			synctest.Test(t, func(*testing.T) { followed, called = both() })
			return followed, called
		},
		"stack that grows": func() (followed, called []string) {
			var large [1 << 20]byte
			followed, called = both()
			large[len(called)]++
			return followed, called
		},
	} {
		followed, called := call()
		if len(called) < 2 || !slices.Equal(followed, called) {
			t.Errorf("%s: Stack finds\n%s\nand Callers\n%s", name, strings.Join(followed, "\n"), strings.Join(called, "\n"))
		}
	}
}

func TestStackIsBounded(t *testing.T) {
	pcs := []uintptr{7, 7, 7}
	if n := Stack(pcs[:2]); n != 2 || pcs[0] == 7 || pcs[1] == 7 || pcs[2] != 7 {
		t.Errorf("of two: %d, %v", n, pcs)
	}
	if n := Stack(nil); n != 0 {
		t.Errorf("of none: %d", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		var pcs [32]uintptr
		Stack(pcs[:])
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestStackWhileStacksMove: goroutines whose stacks grow and shrink, as the garbage
// collector has it, see their own callers.
func TestStackWhileStacksMove(t *testing.T) {
	done := make(chan string)
	const goroutines = 4
	for range goroutines {
		go func() {
			for i := range 2000 {
				if followed, called := (caller{i % 50}).method(); !slices.Equal(followed, called) {
					done <- strings.Join(followed, "\n") + "\nwant\n" + strings.Join(called, "\n")
					return
				}
			}
			done <- ""
		}()
	}
	for ended := 0; ended < goroutines; {
		select {
		case text := <-done:
			ended++
			if text != "" {
				t.Error(text)
			}
		default:
			runtime.GC()
		}
	}
}

func BenchmarkStack(b *testing.B) {
	var pcs [32]uintptr
	for name, stack := range map[string]func(){
		"Stack":           func() { Stack(pcs[:]) },
		"runtime.Callers": func() { runtime.Callers(1, pcs[:]) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var at func(depth int)
			at = func(depth int) {
				if depth > 0 {
					at(depth - 1)
					return
				}
				for b.Loop() {
					stack()
				}
			}
			at(16)
		})
	}
}
