package blockalloc_test

import (
	"math"
	"testing"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
)

// several is a wrapper of any number, some of them nil.
type several struct {
	blockalloc.Null
	inner []blockalloc.Allocator
}

func (s several) Unwrap() []blockalloc.Allocator { return s.inner }

// carver takes its memory from a parent.
type carver struct {
	blockalloc.Null
	parent blockalloc.Allocator
}

func (c *carver) Parent() blockalloc.Allocator { return c.parent }
func (c *carver) String() string               { return "Carver of 64 B" }

func TestTree(t *testing.T) {
	heap := new(blockalloc.Heap)
	for want, a := range map[string]blockalloc.Allocator{
		"nil":  nil,
		"Null": blockalloc.Null{},
		"Heap": heap,
		`Locked
└── Limit 1.0 GiB
    └── Heap`: blockalloc.NewLocked(blockalloc.NewLimit(heap, 1<<30)),
		`Fallback
├── Segregate at 4096 B
│   ├── failing.After(3)
│   │   └── Heap
│   └── failing.Every(7)
│       └── Heap
└── Limit 1536 B
    └── failing.If
        └── Carver of 64 B
            └── Heap`: blockalloc.NewFallback(
			blockalloc.NewSegregate(failing.After(heap, 3), failing.Every(heap, 7), 4096),
			blockalloc.NewLimit(failing.If(&carver{parent: heap}, never), 1536),
		),
		`blockalloc_test.several
├── nil
├── nil
├── Carver of 64 B
│   └── nil
└── blockalloc_test.several`: several{inner: []blockalloc.Allocator{nil, (*blockalloc.Limit)(nil), &carver{}, several{}}},
	} {
		if got := blockalloc.Tree(a); got != want {
			t.Errorf("Tree:\n%s\nwant:\n%s", got, want)
		}
	}
}

// TestTreeFollowsTheBound: the picture is of the moment.
func TestTreeFollowsTheBound(t *testing.T) {
	l := blockalloc.NewLimit(blockalloc.Null{}, 0)
	for max, want := range map[int64]string{
		0: "0 B", 1: "1 B", 10_239: "10239 B", 10_240: "10.0 KiB", 64 << 20: "64.0 MiB", 3 << 29: "1.5 GiB", 1 << 40: "1.0 TiB", math.MaxInt64: "8.0 EiB",
	} {
		l.SetMax(max)
		if got := blockalloc.Tree(l); got != "Limit "+want+"\n└── Null" {
			t.Errorf("a limit of %d bytes is drawn\n%s\nwant Limit %s", max, got, want)
		}
	}
}

// TestRewrap: a view has other inner allocators and the same state, and the wrapper
// itself stays as it is.
func TestRewrap(t *testing.T) {
	one, two, foreign := alloctest.New(t), alloctest.New(t), borrow(t, 8, 8)
	view := func(a blockalloc.Allocator) blockalloc.Allocator {
		return failing.If(a, never) // hands out and takes back the same blocks
	}
	for _, a := range []blockalloc.Allocator{
		blockalloc.NewLimit(one, 1000),
		blockalloc.NewLocked(one),
		failing.After(one, 100),
		blockalloc.NewFallback(one, two),
		blockalloc.NewSegregate(one, two, 100),
	} {
		before := blockalloc.Tree(a)
		v := a.(blockalloc.Rewrapper).Rewrap(view)
		b, c := mustAllocate(t, v, 80, 8), mustAllocate(t, a, 200, 8)
		mustFree(t, a, b)
		mustFree(t, v, c)
		if blockalloc.Tree(a) != before {
			t.Errorf("Rewrap changed\n%s\nto\n%s", before, blockalloc.Tree(a))
		}
		switch v := v.(type) {
		case interface{ Unwrap() blockalloc.Allocator }:
			wrapped(t, v.Unwrap(), one, true)
		case interface{ Unwrap() []blockalloc.Allocator }:
			_, segregate := v.(*blockalloc.Segregate) // whose second has something to do here
			wrapped(t, v.Unwrap()[0], one, true)
			wrapped(t, v.Unwrap()[1], two, segregate)
		}
		if o, ok := blockalloc.OwnerOf(v); !ok || o.Owns(foreign) {
			t.Errorf("a view of\n%s\nis no Owner, or owns a foreign block", before)
		}
	}

	// What the view does counts for the wrapper.
	l := blockalloc.NewLimit(one, 1000)
	b := mustAllocate(t, l.Rewrap(view), 600, 8)
	if _, err := l.Allocate(blockalloc.Layout{Size: 600, Align: 8}); err == nil || l.Used() != 600 {
		t.Errorf("error %v with %d bytes used; want ErrLimit and 600", err, l.Used())
	}
	v := l.Rewrap(view).(*blockalloc.Limit)
	if l.SetMax(2000); v.Max() != 2000 {
		t.Errorf("the view's bound is %d, want 2000", v.Max())
	}
	mustFree(t, l, b)
	if v.Used() != 0 {
		t.Errorf("the view has %d bytes used, want none", v.Used())
	}
}

// wrapped checks that a is what TestRewrap's view makes of inner, and whether it
// has been called.
func wrapped(t *testing.T, a, inner blockalloc.Allocator, called bool) {
	t.Helper()
	f, ok := a.(*failing.Allocator)
	if !ok || f.Unwrap() != inner || called != (f.Calls() > 0) {
		t.Errorf("the view is around %v, want a view of the inner allocator, called: %t", a, called)
	}
}
