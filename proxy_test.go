package alloctrace_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// TestProxyConformance: with no Debug, for the suite misuses memory on purpose.
func TestProxyConformance(t *testing.T) {
	blocktest.Run(t, blocktest.Config{
		New: func(t testing.TB) blockalloc.Allocator {
			observer := newLedger(t)
			p := alloctest.New(t, alloctest.WithAllocator(&blockalloc.Heap{}), alloctest.WithProxy(alloctrace.WithHooks(observer)))
			t.Cleanup(observer.empty)
			return p
		},
		MaxSize: 16 << 20,
		Zeroed:  true,
	})
}

// TestEvents checks each event of each operation, in order. There is no Debug, which
// would fail it for the block that is freed when it is gone.
func TestEvents(t *testing.T) {
	var observed recorder
	p := alloctrace.Wrap(alloctest.New(t, alloctest.WithAllocator(&blockalloc.Heap{})), alloctrace.WithHooks(&observed))
	take := func() []observation {
		events := observed.events
		observed.events = nil
		return events
	}
	expect := func(what string, want ...observation) {
		t.Helper()
		if got := take(); !slices.Equal(got, want) {
			t.Errorf("%s delivers %v\nwant %v", what, got, want)
		}
	}
	event := func(k alloctrace.Kind, b blockalloc.Block, err error) observation {
		return observation{alloctrace.Event{Kind: k, Addr: b.Addr(), Size: b.Size(), Align: b.Align()}, err}
	}

	b := allocate(t, p, page)
	expect("Allocate", event(alloctrace.Allocated, b, nil))

	_, err := p.Allocate(blockalloc.BlockLayout(999))
	expect("Allocate of a bad layout", observation{alloctrace.Event{Kind: alloctrace.AllocateFailed, Size: 999, Align: 999}, err})

	n, err := p.Reallocate(b, 8<<10)
	if err != nil {
		t.Fatal(err)
	}
	expect("Reallocate", event(alloctrace.Reallocating, b, nil), event(alloctrace.Reallocated, n, nil))

	_, err = p.Reallocate(n, ^uintptr(0))
	expect("Reallocate to too much", event(alloctrace.Reallocating, n, nil), event(alloctrace.ReallocateFailed, n, err))

	_, err = p.Reallocate(blockalloc.Block{}, 8)
	expect("Reallocate of the empty block", event(alloctrace.ReallocateFailed, blockalloc.Block{}, err))

	err = p.Free(b)
	expect("Free of a block that is gone", event(alloctrace.Freeing, b, nil), event(alloctrace.FreeFailed, b, err))

	if _, err = p.Reallocate(n, 0); err != nil {
		t.Fatal(err)
	}
	expect("Reallocate to zero", event(alloctrace.Reallocating, n, nil))

	if _, err = p.Allocate(blockalloc.Layout{Size: 0, Align: 8}); err != nil {
		t.Fatal(err)
	}
	if err = p.Free(blockalloc.Block{}); err != nil {
		t.Fatal(err)
	}
	expect("the empty block")

	s := p.Stats()
	if s.Allocations != 1 || s.Reallocations != 2 || s.Frees != 0 || s.FailedAllocations != 1 || s.FailedReallocations != 2 || s.FailedFrees != 1 {
		t.Errorf("operations: %+v", s)
	}
	if s.AllocatedBytes != 12<<10 || s.LiveBytes != 0 || s.LiveBlocks != 0 {
		t.Errorf("bytes: %+v", s)
	}
}

func TestKind(t *testing.T) {
	for k, want := range map[alloctrace.Kind][2]string{
		0:                           {"unknown", "unknown"},
		alloctrace.Allocated:        {"allocated", "allocate"},
		alloctrace.ReallocateFailed: {"reallocate failed", "reallocate"},
		alloctrace.Freeing:          {"freeing", "free"},
		99:                          {"unknown", "unknown"},
	} {
		if k.String() != want[0] || k.Op() != want[1] {
			t.Errorf("Kind(%d) is %q of %q, want %q of %q", k, k, k.Op(), want[0], want[1])
		}
	}
}

// TestErrorsUntouched checks that the inner allocator's errors come back as they
// are.
func TestErrorsUntouched(t *testing.T) {
	mem := alloctest.New(t)
	p := alloctrace.Wrap(blockalloc.Null{})
	b := allocate(t, mem, page)
	defer free(t, mem, b)
	if err := p.Free(b); !errors.Is(err, blockalloc.ErrNotOwned) {
		t.Errorf("Free: error %v, want ErrNotOwned", err)
	}
	want := errors.New("refused")
	p = alloctrace.Wrap(refusing{want})
	if _, err := p.Allocate(page); err != want {
		t.Errorf("Allocate: error %v, want %v itself", err, want)
	}
	if n, err := p.Reallocate(b, 1); err != want || n != b {
		t.Errorf("Reallocate = %v, %v; want the block and %v itself", n, err, want)
	}
	if err := p.Free(b); err != want {
		t.Errorf("Free: error %v, want %v itself", err, want)
	}
}

// roomy is an allocator that grants twice what it is asked for, and that takes
// the reallocation of an empty block as an allocation.
type roomy struct{ blockalloc.Allocator }

func (r *roomy) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	l.Size *= 2
	return r.Allocator.Allocate(l)
}

func (r *roomy) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if b.IsZero() {
		return r.Allocate(blockalloc.Layout{Size: size, Align: 8})
	}
	return r.Allocator.Reallocate(b, 2*size)
}

// TestGrantedAndRequested: events and bytes are of what was granted, and what was
// asked for is counted beside.
func TestGrantedAndRequested(t *testing.T) {
	var observed recorder
	p := alloctrace.Wrap(&roomy{alloctest.New(t)}, alloctrace.WithHooks(&observed))
	b, err := p.Reallocate(blockalloc.Block{}, 50)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = p.Reallocate(b, 300); err != nil {
		t.Fatal(err)
	}
	c := allocate(t, p, page)
	for i, want := range []uintptr{100, 100, 600, 8192} {
		if got := observed.events[i].Size; got != want {
			t.Errorf("event %d (%v) has size %d, want %d", i, observed.events[i].Kind, got, want)
		}
	}
	s := p.Stats()
	if s.RequestedBytes != 50+300+4096 || s.AllocatedBytes != 100+600+8192 || s.LiveBytes != int64(b.Size()+c.Size()) || s.LiveBlocks != 2 || s.Allocations != 2 {
		t.Errorf("%+v", s)
	}
	free(t, p, b, c)
}

// TestDoubleFreeHidesNoLeak: a second free must not be booked against another
// block.
func TestDoubleFreeHidesNoLeak(t *testing.T) {
	p := alloctrace.Wrap(alloctest.New(t, alloctest.WithAllocator(&blockalloc.Heap{}))) // a Debug would fail it
	leaked, b := allocate(t, p, page), allocate(t, p, page)
	for range 3 {
		_ = p.Free(b)
	}
	if s := p.Stats(); s.LiveBytes != int64(leaked.Size()) || s.LiveBlocks != 1 || s.FailedFrees != 2 {
		t.Errorf("%v; want one live block and two failed frees", s)
	}
	free(t, p, leaked)
}

// TestHooksRunInOrder: each event is delivered to all hooks in the order given, of a child too, and
// by a quiet view to none.
func TestHooksRunInOrder(t *testing.T) {
	var order []string
	hook := func(name string) alloctrace.Hook {
		return alloctrace.HookFunc(func(_ context.Context, e alloctrace.Event, _ error) { order = append(order, name+" "+e.Kind.String()) })
	}
	p := alloctrace.Wrap(alloctest.New(t), alloctrace.WithHooks(hook("a"), nil, hook("b")), alloctrace.WithHooks(hook("c")))
	observed := func(p *alloctrace.Proxy, names ...string) {
		t.Helper()
		order = nil
		b := allocate(t, p, page)
		grown, err := p.Reallocate(b, 2*page.Size)
		if err != nil {
			t.Fatal(err)
		}
		free(t, p, grown)
		waited, err := p.AllocateContext(t.Context(), page)
		if err != nil {
			t.Fatal(err)
		}
		free(t, p, waited)
		if _, err := p.Allocate(blockalloc.Layout{Size: 1, Align: 3}); err == nil {
			t.Error("a bad layout is taken")
		}
		var want []string
		for _, kind := range []alloctrace.Kind{
			alloctrace.Allocated, alloctrace.Reallocating, alloctrace.Reallocated, alloctrace.Freeing,
			alloctrace.Allocated, alloctrace.Freeing, alloctrace.AllocateFailed,
		} {
			for _, name := range names {
				want = append(want, name+" "+kind.String())
			}
		}
		if !slices.Equal(order, want) {
			t.Errorf("hooks have observed\n%q, want\n%q", order, want)
		}
	}
	observed(p, "a", "b", "c")
	observed(p.Child("child", alloctrace.WithHooks(hook("d"))), "a", "b", "c", "d")
	observed(p.Quiet())
	observed(alloctrace.Wrap(alloctest.New(t), alloctrace.WithHooks(hook("a"))), "a")
}

func TestWithContext(t *testing.T) {
	type key struct{}
	var seen []any
	hook := alloctrace.HookFunc(func(ctx context.Context, _ alloctrace.Event, _ error) { seen = append(seen, ctx.Value(key{})) })
	inner := alloctrace.Wrap(alloctest.New(t), alloctrace.WithHooks(&recorder{}, hook))
	outer := alloctrace.Wrap(inner, alloctrace.WithHooks(hook))
	view := outer.WithContext(context.WithValue(t.Context(), key{}, 1))
	b, other := allocate(t, view, page), allocate(t, outer, page)
	if want := []any{1, 1, nil, nil}; !slices.Equal(seen, want) {
		t.Errorf("hooks saw the context values %v, want %v", seen, want)
	}
	free(t, outer, b)
	for _, p := range []*alloctrace.Proxy{view, outer, inner} {
		if s := p.Stats(); s.LiveBlocks != 1 || s.Allocations != 2 {
			t.Errorf("%v; want all views to count as one", s)
		}
	}
	free(t, outer, other)
}

func TestQuiet(t *testing.T) {
	var observed recorder
	inner := alloctrace.Wrap(alloctest.New(t), alloctrace.WithHooks(&observed))
	p := alloctrace.Wrap(inner, alloctrace.WithHooks(&observed))
	free(t, p.Quiet(), allocate(t, p.Quiet(), page))
	if len(observed.events) != 0 {
		t.Errorf("hooks have observed %v", observed.events)
	}
	if s := p.Stats(); s.Allocations != 1 || s.Frees != 1 {
		t.Errorf("%v; want one allocation and one free", s)
	}
}

func TestChild(t *testing.T) {
	var parentTold, childTold recorder
	p := alloctrace.Wrap(alloctest.New(t), alloctrace.WithName("db"), alloctrace.WithHooks(&parentTold))
	type key struct{}
	p = p.WithContext(context.WithValue(t.Context(), key{}, 1))
	var inherited any
	c := p.Child("cache", alloctrace.WithHooks(&childTold, alloctrace.HookFunc(func(ctx context.Context, _ alloctrace.Event, _ error) {
		inherited = ctx.Value(key{})
	})))
	b, parents := allocate(t, c, page), allocate(t, p, page)
	if inherited != 1 {
		t.Errorf("the child's hooks see %v in the context, want the parent's 1", inherited)
	}
	if c.Name() != "cache" || p.Name() != "db" || !slices.Equal(p.Children(), []*alloctrace.Proxy{c}) {
		t.Errorf("names %q and %q, children %v", c.Name(), p.Name(), p.Children())
	}
	if got := c.Stats().LiveBlocks; got != 1 {
		t.Errorf("the child has %d live blocks, want 1", got)
	}
	if got := p.Stats().LiveBlocks; got != 2 {
		t.Errorf("the parent has %d live blocks, want 2", got)
	}
	if len(parentTold.events) != 2 || len(childTold.events) != 1 {
		t.Errorf("%d events for the parent's hook and %d for the child's, want 2 and 1", len(parentTold.events), len(childTold.events))
	}
	if !c.Owns(b) || !p.Owns(b) {
		t.Error("Owns is not forwarded")
	}
	free(t, c, b)
	free(t, p, parents)
}

// TestSeveralHooks: hooks, given together or one after the other, observe the same events.
func TestSeveralHooks(t *testing.T) {
	var first, second, last recorder
	p := alloctrace.Wrap(failing.After(alloctest.New(t), 2), alloctrace.WithHooks(&first, &second), alloctrace.WithHooks(nil, &last))
	b := allocate(t, p, page)
	c, err := p.Reallocate(b, page.Size/2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Allocate(page); !errors.Is(err, failing.ErrInjected) {
		t.Fatal(err)
	}
	free(t, p, c)
	if len(first.events) != 5 || !errors.Is(first.events[3].err, failing.ErrInjected) {
		t.Fatalf("%d events, want 5: %v", len(first.events), first.events)
	}
	for name, r := range map[string]*recorder{"second": &second, "last": &last} {
		if !slices.Equal(r.events, first.events) {
			t.Errorf("the %s observes %v, want %v", name, r.events, first.events)
		}
	}
}

// attacher is a Hook that says of each event whose it is.
type attacher func(to alloctrace.Attachment, ctx context.Context, e alloctrace.Event)

func (f attacher) Observe(context.Context, alloctrace.Event, error) {
	panic("it is observed without being attached")
}

func (f attacher) Attach(to *alloctrace.Attachment) alloctrace.Hook {
	of := *to
	return alloctrace.HookFunc(func(ctx context.Context, e alloctrace.Event, _ error) { f(of, ctx, e) })
}

// TestAttachment: hooks know whose events they observe, whatever the context and the order of
// options.
func TestAttachment(t *testing.T) {
	var seen []string
	ids := make(map[uint32]int)
	hook := alloctrace.WithHooks(nil, attacher(func(to alloctrace.Attachment, _ context.Context, e alloctrace.Event) {
		if e.Kind == alloctrace.Allocated {
			seen = append(seen, to.Proxy+"/"+to.Child)
			ids[to.ID]++
		}
	}))
	p := alloctrace.Wrap(alloctest.New(t), hook, alloctrace.WithName("db"))
	c := p.Child("cache")
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, 1)
	for _, a := range []*alloctrace.Proxy{
		p, p.WithContext(ctx), p.Child(""),
		c, c.WithContext(ctx), p.WithContext(ctx).Child("index"),
		c.Child("pages"), p.Child("other", alloctrace.WithName("its name")),
		p.Quiet(), c.Quiet(), alloctrace.Wrap(alloctest.New(t), hook),
	} {
		free(t, a, allocate(t, a, page))
	}
	want := []string{"db/", "db/", "db/", "db/cache", "db/cache", "db/index", "db/pages", "db/its name", "/"}
	if !slices.Equal(seen, want) {
		t.Errorf("allocations of %q, want %q", seen, want)
	}
	if n := slices.Sorted(maps.Values(ids)); !slices.Equal(n, []int{1, 8}) {
		t.Errorf("%v allocations of Proxies of one number each, want 1 and 8", n)
	}
}

// TestHookOfChild: a hook given to a child observes it and its children alone, beside those of
// its parent.
func TestHookOfChild(t *testing.T) {
	var seen []string
	hook := func(name string) alloctrace.Option {
		return alloctrace.WithHooks(attacher(func(to alloctrace.Attachment, _ context.Context, e alloctrace.Event) {
			seen = append(seen, name+" "+to.Child+" "+e.Kind.String())
		}))
	}
	p := alloctrace.Wrap(alloctest.New(t), hook("first"))
	c := p.Child("a", hook("second"))
	var blocks []blockalloc.Block
	for _, a := range []*alloctrace.Proxy{p, c, c.Child("b")} {
		blocks = append(blocks, allocate(t, a, page))
	}
	want := []string{"first  allocated", "first a allocated", "second a allocated", "first b allocated", "second b allocated"}
	if !slices.Equal(seen, want) {
		t.Errorf("hooks observe %q, want %q", seen, want)
	}
	free(t, p.Quiet(), blocks...)
}

func TestOwnsWithoutOwner(t *testing.T) {
	p := alloctrace.Wrap(measure.NewInner())
	if _, ok := blockalloc.OwnerOf(alloctrace.Wrap(p)); ok {
		t.Error("a Proxy around an allocator that is no Owner counts as one")
	}
	if p.Owns(allocate(t, p, page)) {
		t.Error("Owns = true without an Owner")
	}
	if o, ok := blockalloc.OwnerOf(alloctrace.Wrap(alloctrace.Wrap(&blockalloc.Heap{}))); !ok || o == nil {
		t.Error("a Proxy around an Owner does not count as one")
	}
	if p.Unwrap() == nil {
		t.Error("Unwrap = nil")
	}
}

func TestClose(t *testing.T) {
	p := alloctrace.Wrap(alloctest.New(t), alloctrace.WithName("db"))
	c := p.Child("cache")
	b := allocate(t, c.WithContext(t.Context()), page)
	err := p.Close()
	if !errors.Is(err, alloctrace.ErrLive) || !strings.Contains(err.Error(), `"db"`) || !strings.Contains(err.Error(), "1 of them, 4096 bytes") {
		t.Errorf("Close with a live block: %v", err)
	}
	for _, closed := range []*alloctrace.Proxy{p, c, c.Quiet(), p.Child("late")} {
		if _, err := closed.Allocate(page); !errors.Is(err, blockalloc.ErrClosed) {
			t.Errorf("Allocate after Close: error %v, want ErrClosed", err)
		}
		if n, err := closed.Reallocate(b, 1); !errors.Is(err, blockalloc.ErrClosed) || n != b {
			t.Errorf("Reallocate after Close = %v, %v; want the block and ErrClosed", n, err)
		}
	}
	if err := c.Free(b); err != nil {
		t.Errorf("Free after Close: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("Close with no live block: %v", err)
	}
}

func TestWrapNil(t *testing.T) {
	defer func() {
		if r, _ := recover().(string); !strings.Contains(r, "alloctrace: Wrap(nil)") {
			t.Errorf("Wrap(nil) panics with %q", r)
		}
	}()
	alloctrace.Wrap(nil)
}

// TestHooks: a Proxy says which hooks it was given; a child has those of its parent too, and a quiet view none.
func TestHooks(t *testing.T) {
	first, second := alloctrace.HookFunc(func(context.Context, alloctrace.Event, error) {}), &contextHook{}
	p := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(first, nil, second))
	child := p.Child("child", alloctrace.WithHooks(&contextHook{}))
	if got := p.Hooks(); len(got) != 2 || got[1] != alloctrace.Hook(second) {
		t.Errorf("the hooks are %v", got)
	}
	if got := child.WithContext(t.Context()).Hooks(); len(got) != 3 || got[1] != alloctrace.Hook(second) {
		t.Errorf("those of a child are %v", got)
	}
	got := p.Hooks()
	got[0] = nil
	if p.Hooks()[0] == nil || len(p.Quiet().Hooks()) != 0 {
		t.Error("whoever asks for hooks can change them, or a quiet view has some")
	}
}
