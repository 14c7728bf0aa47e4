package alloctrace_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// limited gives a Proxy a limit of its own.
func limited(max int64) alloctrace.Option {
	return alloctrace.WithInner(func(inner blockalloc.Allocator) blockalloc.Allocator { return blockalloc.NewLimit(inner, max) })
}

// TestInnerOfAChild: a child has a limit of its own, which its counts, its hooks and its children see reached, and its sibling
// does not have.
func TestInnerOfAChild(t *testing.T) {
	var failed []error
	p := alloctrace.Wrap(alloctest.New(t), alloctrace.WithHooks(alloctrace.HookFunc(func(_ context.Context, e alloctrace.Event, err error) {
		if e.Kind.Failed() {
			failed = append(failed, err)
		}
	})))
	limit := int64(2 * page.Size)
	greedy, other := p.Child("greedy", limited(limit), alloctrace.WithInner(nil)), p.Child("other")
	grandchild := greedy.Child("part")
	b, c := allocate(t, greedy, page), allocate(t, grandchild.WithContext(t.Context()), page)
	for _, a := range []*alloctrace.Proxy{greedy, grandchild, greedy.Quiet()} {
		if _, err := a.Allocate(page); !errors.Is(err, blockalloc.ErrLimit) {
			t.Errorf("%v beyond the limit: %v", a, err)
		}
	}
	d := allocate(t, other, page)
	if !greedy.Owns(d) || !greedy.Owns(b) {
		t.Error("the child does not own what the parent's allocator does")
	}
	if s := p.ChildStats(); s["greedy"].FailedAllocations != 3 || s["greedy"].LiveBytes != limit || s["other"].FailedAllocations != 0 {
		t.Errorf("the children have %v", s)
	}
	if len(failed) != 2 || !errors.Is(failed[1], blockalloc.ErrLimit) {
		t.Errorf("hooks observed the failures %v, want two", failed)
	}
	free(t, greedy, b)
	free(t, grandchild, c)
	free(t, greedy, allocate(t, greedy, page))
	free(t, other, d)
}

// TestInner: of several wrappers, the last is outermost; Proxies below are given the context.
func TestInner(t *testing.T) {
	var hook contextHook
	below := alloctrace.Wrap(alloctest.New(t), alloctrace.WithHooks(&hook))
	p := alloctrace.Wrap(below, alloctrace.WithName("p"), limited(1<<20), limited(2<<20))
	if got, want := blockalloc.Tree(p), "Proxy \"p\"\n└── Limit 2.0 MiB\n    └── Limit 1.0 MiB\n        └── Proxy\n"; !strings.HasPrefix(got, want) {
		t.Errorf("the tree is\n%s", got)
	}
	c := alloctrace.Wrap(new(blockalloc.Heap)).Child("c", alloctrace.WithInner(func(blockalloc.Allocator) blockalloc.Allocator { return below }))
	view := c.WithContext(context.WithValue(t.Context(), contextKey{}, 1))
	free(t, view, allocate(t, view, page))
	if len(hook.seen) != 2 || hook.seen[0] != 1 {
		t.Errorf("below, the context values are %v", hook.seen)
	}
}

func TestInnerReturnsNil(t *testing.T) {
	defer func() {
		if r := recover(); r != "alloctrace: WithInner: the function returned nil: have it return a wrapper of its argument, such as a blockalloc.Limit" {
			t.Errorf("it panics with %q", r)
		}
	}()
	alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithInner(func(blockalloc.Allocator) blockalloc.Allocator { return nil }))
}
