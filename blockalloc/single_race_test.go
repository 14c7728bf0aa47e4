//go:build race

package blockalloc_test

import (
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/process"
)

// misuses are operations that two goroutines must not do at once and that hardly touch
// memory, so that the guard is reported, not an accident.
func misuses(t testing.TB) map[string]func() {
	all := make(map[string]func())
	add := func(name string, a blockalloc.Allocator) {
		all[name+".Allocate"] = func() { _, _ = a.Allocate(blockalloc.Layout{Size: 0, Align: 1}) }
		all[name+".Reallocate"] = func() { _, _ = a.Reallocate(blockalloc.Block{}, 1) }
		all[name+".Free"] = func() { _ = a.Free(blockalloc.Block{}) }
		all[name+".Owns"] = func() { a.(blockalloc.Owner).Owns(blockalloc.Block{}) }
		if b, ok := a.(bumping); ok {
			all[name+".Mark"] = func() { b.Mark() }
			all[name+".Release"] = func() { _ = b.Release(blockalloc.Mark{}) }
			all[name+".Reset"] = b.Reset
		}
		if s, ok := a.(interface {
			Used() uintptr
			Size() uintptr
		}); ok {
			all[name+".Used"] = func() { s.Used() }
			all[name+".Size"] = func() { s.Size() }
		}
		if c, ok := a.(interface{ Close() error }); ok {
			_ = c.Close()
			all[name+".Close"] = func() { _ = c.Close() }
		}
	}
	add("Bump", newBump(t, alloctest.New(t), 64))
	add("Fixed", newFixed(t, make([]byte, 64)))
	list := newFreeList(t, alloctest.New(t), blockalloc.BlockLayout(64), 0)
	add("FreeList", list)
	all["FreeList.Reserve"] = func() { _ = list.Reserve(0) }
	all["FreeList.Trim"] = func() { _ = list.Trim() }
	root := newScoped(t, alloctest.New(t), 64)
	add("Scoped", root)
	all["Scoped.Scope"] = func() { _ = root.Scope(nil) } // refused: it is closed
	return all
}

// TestMisuseIsReported has two goroutines do the same operation, in a process of
// its own for each, and expects a report of the race detector on the guard.
func TestMisuseIsReported(t *testing.T) {
	all := misuses(t)
	for name := range all {
		t.Run(name, func(t *testing.T) { reportsMisuse(t, all[name], all[name]) })
	}
}

// TestMisuseOfScopes: an inner and an outer scope are one allocator.
func TestMisuseOfScopes(t *testing.T) {
	scope(t, newScoped(t, alloctest.New(t), 64), func(inner *blockalloc.Scoped) {
		outer := inner.Parent().(*blockalloc.Scoped)
		reportsMisuse(t, func() { outer.Owns(blockalloc.Block{}) }, func() { inner.Owns(blockalloc.Block{}) })
	})
}

// reportsMisuse runs the test in a process of its own, and there a and b at once.
func reportsMisuse(t *testing.T, a, b func()) {
	const variable = "ALLOCTRACE_TEST_MISUSE"
	if os.Getenv(variable) != "" {
		var both sync.WaitGroup
		both.Go(a)
		both.Go(b)
		both.Wait()
		return
	}
	out, err := process.Again(t, variable+"=1", "GORACE=atexit_sleep_ms=0").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "DATA RACE") || !strings.Contains(string(out), "(*single).use") {
		t.Errorf("%v: no race on the guard was reported:\n%s", err, out)
	}
}
