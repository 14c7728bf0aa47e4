package debugpage

import (
	"errors"
	"maps"
	"net/http/httptest"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/internal/page"
)

// TestStacked: Proxies that allocate from each other, a child, and one that is passed twice are counted once, and each is shown where its memory
// comes from.
func TestStacked(t *testing.T) {
	const size = 1 << 10
	inner := alloctest.New(t, alloctest.WithAllocator(new(blockalloc.Heap)), alloctest.WithProxy(alloctrace.WithName("inner")))
	child := inner.Child("child")
	outer := alloctrace.Wrap(blockalloc.NewLimit(inner, 16*size), alloctrace.WithName("child"))
	upper := alloctrace.Wrap(blockalloc.NewLocked(outer), alloctrace.WithName("upper"))
	above := alloctrace.Wrap(child, alloctrace.WithName("above"))
	other := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithName("upper"))
	for p, blocks := range map[*alloctrace.Proxy]int{inner: 2, child: 3, outer: 4, upper: 12, above: 6, other: 7} {
		for range blocks {
			b, err := p.Allocate(blockalloc.Layout{Size: size, Align: 8})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := p.Free(b); err != nil {
					t.Error(err)
				}
			}()
		}
	}
	const failures = 5
	for range failures {
		if _, err := upper.Allocate(blockalloc.Layout{Size: size, Align: 8}); !errors.Is(err, blockalloc.ErrLimit) {
			t.Fatalf("one block more than the limit: %v", err)
		}
	}
	server := httptest.NewServer(Handler(Options{}, upper, child, outer, above, other, inner, upper))
	defer server.Close()
	s := get[page.Snapshot](t, server.URL, "/api/snapshot")
	name := names{get[page.Tables](t, server.URL, "/api/tables")}
	got := make(map[string]int64)
	for row, node := range s.Nodes.Node {
		got[name.node(node)] = s.Nodes.Live[row] / size
	}
	want := map[string]int64{"inner": 27, "inner/child": 9, "inner/child#2": 16, "inner/child#2/upper": 12, "inner/child/above": 6, "upper#2": 7}
	if !maps.Equal(got, want) || len(s.Nodes.Node) != len(want) {
		t.Errorf("blocks are shown as %v, want %v", got, want)
	}
	if s.Total.Live != 34*size || s.Total.LiveBlocks != 34 || s.Total.FailedAllocations != failures {
		t.Errorf("%d blocks of %d bytes are live, and %d allocations have failed, want 34 and %d", s.Total.LiveBlocks, s.Total.Live, s.Total.FailedAllocations, failures)
	}
}
