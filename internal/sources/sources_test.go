package sources_test

import (
	"errors"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/sources"
)

func TestBelow(t *testing.T) {
	pool := new(blockalloc.Pool)
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	high := blockalloc.NewLimit(pool, 2<<20)
	slab, err := blockalloc.NewSlab(high, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	low := blockalloc.NewLimit(slab, 1<<20)
	for _, test := range []struct {
		what     string
		source   counter.Source
		backend  string
		limit    int64 // -1 if there is none
		reserved bool
	}{
		{"no allocator", new(counter.Counter), "", -1, false},
		{"a Heap", alloctrace.Wrap(new(blockalloc.Heap)), "Heap", -1, false},
		{"a Pool", alloctrace.Wrap(pool), "Pool", -1, true},
		{"a Limit of a Slab of a Limit of a Pool", alloctrace.Wrap(low), "Pool", 1 << 20, true},
		{"a Proxy of a Proxy", alloctrace.Wrap(alloctrace.Wrap(high)), "Pool", 2 << 20, true},
		{"a child", alloctrace.Wrap(high).Child("a"), "Pool", 2 << 20, true},
		{"a fork", alloctrace.Wrap(blockalloc.NewLimit(blockalloc.NewFallback(high, pool), 3<<20)), "Fallback", 3 << 20, false},
	} {
		b := sources.LookBelow(test.source)
		limit := int64(-1)
		if f := b.Limit(); f != nil {
			limit = f()
		}
		reserved := b.Reserved()
		if b.Backend != test.backend || limit != test.limit || (reserved != nil) != test.reserved {
			t.Errorf("below %s is a %q with the limit %d and reserved %t, want %q, %d, %t", test.what, b.Backend, limit, reserved != nil, test.backend, test.limit, test.reserved)
		}
		if reserved != nil && reserved() != pool.Stats().Reserved {
			t.Errorf("below %s %d bytes are reserved, want %d", test.what, reserved(), pool.Stats().Reserved)
		}
		if pinned := b.Pinned(); (pinned != nil) != test.reserved || pinned != nil && pinned() != 0 {
			t.Errorf("below %s, where nothing is carved, something is pinned, or it is not known", test.what)
		}
	}
	b := sources.LookBelow(alloctrace.Wrap(low))
	limit := b.Limit()
	low.SetMax(9 << 20)
	if got := limit(); got != 2<<20 {
		t.Errorf("once the lower one was raised the limit is %d, want that of the other", got)
	}
}

// TestPinned: what is pinned is what the figures of a Pool, and of a Slab on it, say is free.
func TestPinned(t *testing.T) {
	pool := new(blockalloc.Pool)
	slab, err := blockalloc.NewSlab(pool, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	block, err := slab.Allocate(blockalloc.Layout{Size: 100, Align: 4})
	if err != nil {
		t.Fatal(err)
	}
	below := sources.LookBelow(alloctrace.Wrap(slab))
	carved, in := pool.Stats(), slab.Stats()
	if got, want := below.Pinned()(), carved.Carved-carved.LiveBytes+in.BlockBytes-in.LiveSlotBytes; got != want || want == 0 {
		t.Errorf("%d bytes are pinned, want %d", got, want)
	}
	if err := errors.Join(slab.Free(block), slab.Close(), pool.Close()); err != nil {
		t.Error(err)
	}
}

type failing struct{}

func (failing) Stats() counter.Stats { panic("no") }

func TestTry(t *testing.T) {
	no := errors.New("no")
	if err := sources.Try(func() error { return no }); err != no {
		t.Errorf("%v, want the error of the function", err)
	}
	if err := sources.Try(func() error { return nil }); err != nil {
		t.Error(err)
	}
	if err := sources.Try(func() error { panic("no") }); err == nil || err.Error() != "it panicked: no" {
		t.Errorf("%v of a function that panics", err)
	}
	c := new(counter.Counter)
	if readable, failed := sources.Readable([]counter.Source{failing{}, c, failing{}}); len(readable) != 1 || readable[0] != c || failed != 2 {
		t.Errorf("%v can be read and %d cannot", readable, failed)
	}
}
