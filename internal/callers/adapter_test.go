package callers_test

import (
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/adapter.v2"
	"github.com/alloctrace/alloctrace/internal/callers"
)

// taking remembers who allocated last.
type taking struct {
	blockalloc.Heap
	pcs []uintptr
}

func (a *taking) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	pcs := make([]uintptr, 32)
	a.pcs = pcs[1:callers.Stack(pcs)] // the first is this function
	return a.Heap.Allocate(l)
}

// names returns the functions of a stack.
func names(frames []runtime.Frame) string {
	var list []string
	for _, f := range frames {
		list = append(list, f.Function[strings.LastIndexByte(f.Function, '/')+1:])
	}
	return strings.Join(list, " ")
}

// TestSkipAdapter: real stacks, of generics, closures, methods and functions that are inlined.
func TestSkipAdapter(t *testing.T) {
	const path = "github.com/alloctrace/alloctrace/internal/adapter.v2"
	a := new(taking)
	for name, c := range map[string]struct {
		allocate func()
		whole    string // with the names that Go 1.26 and 1.27 have for closures
	}{
		"new":      {func() { adapter.New(a, 64) }, `inner.Allocate adapter%2\S+\.func1 adapter%2ev2.call adapter%2ev2.\(\*builder\[...\]\).block adapter%2ev2.build\[...\] adapter%2ev2.New`},
		"returned": {func() { adapter.Maker(a)(64) }, `inner.Allocate \S*Maker.(func)?\d+`},
		"iterator": {func() {
			for range adapter.Blocks(a, 64) {
				break
			}
		}, `inner.Allocate \S*Blocks.(func)?\d+`},
	} {
		c.allocate()
		const here = ` callers_test\.TestSkipAdapter\.func\d+ callers_test\.TestSkipAdapter`
		for of, want := range map[string]string{
			"":                      c.whole + here,
			path:                    c.whole + here, // for inner is the innermost
			path + "/inner":         strings.TrimPrefix(c.whole, "inner.Allocate ") + here,
			path + "/...":           here[1:],
			"github.com/...":        here[1:],
			"github.com/apache/...": c.whole + here,
		} {
			var packages []string
			if of != "" {
				packages = []string{of}
			}
			s, err := callers.NewSkip(packages)
			if err != nil {
				t.Fatal(err)
			}
			if got := names(s.Frames(a.pcs)); !regexp.MustCompile("^" + want + "$").MatchString(got) {
				t.Errorf("%s without %q:\n%s\nwant\n%s", name, of, got, want)
			}
		}
	}
}

// TestSkipAll: what would leave nothing leaves all.
func TestSkipAll(t *testing.T) {
	a := new(taking)
	adapter.Started(a, 64)
	s, err := callers.NewSkip([]string{"github.com/alloctrace/alloctrace/internal/adapter.v2/..."})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := names(s.Frames(a.pcs)), regexp.MustCompile(`^inner.Allocate adapter%2\S+Started.func1$`); !want.MatchString(got) {
		t.Errorf("%s, want %s", got, want)
	}
	if got := s.Frames(nil); got != nil {
		t.Errorf("of no stack: %v", got)
	}
}
