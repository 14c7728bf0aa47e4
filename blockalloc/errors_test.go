package blockalloc_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
)

var errorTypes = map[string]struct {
	err  error
	want string
}{
	"ErrOutOfMemory":      {blockalloc.ErrOutOfMemory, "out_of_memory"},
	"ErrBadLayout":        {blockalloc.ErrBadLayout, "bad_layout"},
	"ErrUnsupportedAlign": {blockalloc.ErrUnsupportedAlign, "unsupported_align"},
	"ErrNotOwned":         {blockalloc.ErrNotOwned, "not_owned"},
	"ErrDoubleFree":       {blockalloc.ErrDoubleFree, "double_free"},
	"ErrLimit":            {blockalloc.ErrLimit, "limit"},
	"ErrScoped":           {blockalloc.ErrScoped, "scoped"},
	"ErrClosed":           {blockalloc.ErrClosed, "closed"},
	"ErrWouldMove":        {blockalloc.ErrWouldMove, "would_move"},
	"ErrLive":             {blockalloc.ErrLive, "live"},
	"failing.ErrInjected": {failing.ErrInjected, "injected"},
	"ErrOverrun":          {blockalloc.ErrOverrun, "overrun"},
	"ErrUnderrun":         {blockalloc.ErrUnderrun, "underrun"},
	"ErrUseAfterFree":     {blockalloc.ErrUseAfterFree, "use_after_free"},
	"ErrNotZeroed":        {blockalloc.ErrNotZeroed, "not_zeroed"},
}

// TestErrorType: each error of the package has a type, whatever wraps it, and whatever more
// general error is wrapped beside it.
func TestErrorType(t *testing.T) {
	for name, c := range errorTypes {
		for how, err := range map[string]error{
			"bare":                   c.err,
			"wrapped":                fmt.Errorf("load: %w", fmt.Errorf("page 7: %w", c.err)),
			"after out of memory":    fmt.Errorf("%w: %w", blockalloc.ErrOutOfMemory, c.err),
			"before out of memory":   errors.Join(c.err, blockalloc.ErrOutOfMemory),
			"beside a foreign one":   errors.Join(errors.New("foreign"), c.err),
			"with a context's cause": fmt.Errorf("%w; waited until %w", c.err, context.DeadlineExceeded),
		} {
			if got := blockalloc.ErrorType(err); got != c.want {
				t.Errorf("%s %s: %q, want %q", name, how, got, c.want)
			}
		}
	}
	if got := blockalloc.ErrorType(context.Canceled); got != blockalloc.ErrorTypeOther {
		t.Errorf("of a foreign error: %q, want %q", got, blockalloc.ErrorTypeOther)
	}
	if got := blockalloc.ErrorType(nil); got != "" {
		t.Errorf("of no error: %q", got)
	}
}

// TestErrorTypeOfAllocators: what real allocators return.
func TestErrorTypeOfAllocators(t *testing.T) {
	page := blockalloc.BlockLayout(4096)
	full := blockalloc.NewLimit(new(blockalloc.Heap), 4096)
	b, err := full.Allocate(page)
	if err != nil {
		t.Fatal(err)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	check := func(what string, err error, want string) {
		t.Helper()
		if got := blockalloc.ErrorType(err); got != want {
			t.Errorf("%s: %q for %v, want %q", what, got, err, want)
		}
	}
	_, err = full.Allocate(page)
	check("Limit.Allocate at the bound", err, "limit")
	_, err = full.Reallocate(b, 8192)
	check("Limit.Reallocate at the bound", err, "limit")
	_, err = full.AllocateContext(done, page)
	check("Limit.AllocateContext until its context ended", err, "limit")
	_, err = full.AllocateContext(t.Context(), blockalloc.BlockLayout(1<<20))
	check("Limit.AllocateContext of what never fits", err, "limit")
	_, err = full.Allocate(blockalloc.Layout{Size: 8, Align: 3})
	check("Limit.Allocate of a bad layout", err, "bad_layout")
	_, err = blockalloc.NewLimit(blockalloc.Null{}, 1<<20).Allocate(page)
	check("Null below a Limit that it fits", err, "out_of_memory")
	check("Null.Free", blockalloc.Null{}.Free(b), "not_owned")
	_, err = failing.After(new(blockalloc.Heap), 0).Allocate(page)
	check("failing.After", err, "injected")
	if err := full.Free(b); err != nil {
		t.Fatal(err)
	}
	check("Limit.Free again", full.Free(b), "double_free")
}

// TestErrorTypesAreWhole: an error that the package declares has a row above.
func TestErrorTypesAreWhole(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		if allModes {
			t.Fatal("the sources are not here: run the test in the package's folder")
		}
		t.Skip("the sources are not here: run the test in the package's folder")
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if d, ok := d.(*ast.GenDecl); ok && d.Tok == token.VAR {
				for _, s := range d.Specs {
					for _, name := range s.(*ast.ValueSpec).Names {
						if _, listed := errorTypes[name.Name]; !listed && strings.HasPrefix(name.Name, "Err") {
							t.Errorf("%s has no row in errorTypes, nor ErrorType perhaps a name for it", name)
						}
					}
				}
			}
		}
	}
}
