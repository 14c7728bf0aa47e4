package hooks

import (
	"errors"
	"fmt"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// TestLiveTable: what is released can be taken back, once, and only as what it was.
func TestLiveTable(t *testing.T) {
	var table liveTable[string]
	failure := errors.New("not today")
	want := func(what, wantOf string, wantWas bool) func(string, bool) {
		return func(of string, was bool) {
			t.Helper()
			if of != wantOf || was != wantWas {
				t.Errorf("%s: %q, %t, want %q, %t", what, of, was, wantOf, wantWas)
			}
		}
	}
	table.add(4096, 100, "page")
	if !table.mayHave(4096) {
		t.Error("what was added cannot be there")
	}
	want("released with another size", "", false)(table.release(4096, 99))
	want("failed while it is live", "", false)(table.failed(4096, 100, failure))
	want("released", "page", true)(table.release(4096, 100))
	if table.mayHave(4096) {
		t.Error("what was released may be there")
	}
	want("released again", "", false)(table.release(4096, 100))
	want("failed with another size", "", false)(table.failed(4096, 99, failure))
	want("failed as a double free", "", false)(table.failed(4096, 100, fmt.Errorf("b: %w", blockalloc.ErrDoubleFree)))
	want("failed as not owned", "", false)(table.failed(4096, 100, fmt.Errorf("b: %w", blockalloc.ErrNotOwned)))
	want("failed", "page", true)(table.failed(4096, 100, failure))
	want("released once more", "page", true)(table.release(4096, 100))
	table.add(4096, 200, "other")
	want("failed at the address of another", "", false)(table.failed(4096, 100, failure))
	n := 0
	table.each(func(addr, size uintptr, of string) {
		n++
		want("each", "other", true)(of, addr == 4096 && size == 200)
	})
	if n != 1 {
		t.Errorf("%d blocks are there, want 1", n)
	}
	table.add(0, 7, "nothing") // an empty block, which no Proxy tells of
	table.release(0, 7)
	want("failed at no address", "", false)(table.failed(0, 7, failure))
}
