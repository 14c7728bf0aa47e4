package ring

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
)

// TestChildren: records have the name of the child, and so have the events that a Drainer
// delivers, also of those that do not fit into a record.
func TestChildren(t *testing.T) {
	r := New(256, nil)
	var delivered []string
	d := NewDrainer(r, attacher(func(child string, e alloctrace.Event, err error) {
		delivered = append(delivered, fmt.Sprint(child, " ", e.Kind, " ", err))
	}), 1<<40)
	refuse := failing.If(new(blockalloc.Heap), func(c failing.Call) bool { return c.Layout.Size == 77 })
	p := alloctrace.Wrap(refuse, alloctrace.WithHooks(r))
	cache := p.Child("cache")
	var want []string
	for _, a := range []*alloctrace.Proxy{p, cache, p.Child("index"), p.Child("cache"), cache.Child("pages")} {
		b, err := a.Allocate(blockalloc.BlockLayout(64))
		if err != nil {
			t.Fatal(err)
		}
		_, failure := a.Allocate(blockalloc.Layout{Size: 77, Align: 1})
		if err := a.Free(b); err != nil {
			t.Fatal(err)
		}
		name := a.Name()
		want = append(want, name+" allocated <nil>", fmt.Sprint(name, " allocate failed ", failure), name+" freeing <nil>")
	}
	var kept []string
	for _, rec := range r.Records() {
		if rec.Err == nil && (rec.Size != 64 || rec.Align != 64) {
			t.Errorf("the record is %+v, of a block of 64 bytes", rec)
		}
		kept = append(kept, fmt.Sprint(rec.Child, " ", rec.Kind, " ", rec.Err))
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	for what, got := range map[string][]string{"kept": kept, "delivered": delivered} {
		if !slices.Equal(got, want) {
			t.Errorf("%s are %q, want %q", what, got, want)
		}
	}
}

// TestManyChildren: names beyond the numbers that a record has room for are kept with the last events.
func TestManyChildren(t *testing.T) {
	r := New(1<<15, nil)
	const names = 1<<childBits + 10
	for i := range names {
		child := r.Attach(&alloctrace.Attachment{Child: fmt.Sprint(i)})
		child.Observe(t.Context(), alloctrace.Event{Kind: alloctrace.Allocated, Addr: uintptr(i + 1), Size: 1<<31 - 1, Align: 1}, nil)
	}
	records := r.Records()
	if len(records) != names {
		t.Fatalf("%d records, want %d", len(records), names)
	}
	for i, rec := range records {
		if rec.Child != fmt.Sprint(i) || rec.Addr != uintptr(i+1) || rec.Kind != alloctrace.Allocated || rec.Align != 1 || rec.Size == 0 {
			t.Fatalf("record %d is %+v", i, rec)
		}
	}
	if n := r.Attach(&alloctrace.Attachment{Child: "7"}).(*childRing).number; n != 8 {
		t.Errorf("a name that is known has number %d, want 8", n)
	}
}

// TestLargeSizes: an event whose size has no room in a record is kept whole.
func TestLargeSizes(t *testing.T) {
	r := New(64, nil)
	var want []alloctrace.Event
	for _, size := range []uint64{0, 1, 1<<40 - 1, 1 << 40, 1<<48 + 1, math.MaxUint64} {
		if uint64(uintptr(size)) != size {
			continue
		}
		for _, align := range []uintptr{1, 4096, 3} {
			e := alloctrace.Event{Kind: alloctrace.Freeing, Addr: 4096, Size: uintptr(size), Align: align}
			r.Observe(t.Context(), e, nil)
			want = append(want, e)
		}
	}
	for i, rec := range r.Records() {
		if rec.Event != want[i] || rec.Err != nil {
			t.Errorf("%+v was kept as %+v", want[i], rec)
		}
	}
}

type attacher func(child string, e alloctrace.Event, err error)

func (f attacher) Observe(context.Context, alloctrace.Event, error) {}

func (f attacher) Attach(to *alloctrace.Attachment) alloctrace.Hook {
	child := to.Child
	return alloctrace.HookFunc(func(_ context.Context, e alloctrace.Event, err error) { f(child, e, err) })
}
