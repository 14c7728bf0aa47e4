package hooks

import "testing"

// TestLiveTable: what is released can be taken back, once, and only as what it was; and it cannot
// once the end of the release was delivered.
func TestLiveTable(t *testing.T) {
	for proxy := range uint32(2) {
		var table liveTable[string]
		want := func(what, wantOf string, wantOk, wantKept bool) func(string, bool, bool) {
			return func(of string, ok, kept bool) {
				t.Helper()
				if of != wantOf || ok != wantOk || kept != wantKept {
					t.Errorf("%s: %q, %t, %t, want %q, %t, %t", what, of, ok, kept, wantOf, wantOk, wantKept)
				}
			}
		}
		table.add(4096, 100, 8, proxy, "page")
		if !table.mayContain(4096) {
			t.Error("what was added cannot be there")
		}
		want("released with another size", "", false, false)(table.release(4096, 99, proxy))
		want("failed while it is live", "", false, false)(table.failed(4096, 100, proxy))
		want("released", "page", true, true)(table.release(4096, 100, proxy))
		want("released again", "", false, true)(table.release(4096, 100, proxy))
		want("failed with another size", "", false, false)(table.failed(4096, 99, proxy))
		want("failed for another Proxy", "", false, false)(table.failed(4096, 100, proxy+1))
		want("the second release failed", "", false, true)(table.failed(4096, 100, proxy))
		want("the first release failed", "page", true, true)(table.failed(4096, 100, proxy))
		want("released by another Proxy", "page", true, true)(table.release(4096, 100, 7))
		want("which failed", "page", true, true)(table.failed(4096, 100, 7))
		want("released once more", "page", true, true)(table.release(4096, 100, proxy))
		if !table.ended(4096, 100, proxy) || table.ended(4096, 100, proxy) {
			t.Error("the end of the release is not delivered once")
		}
		want("failed after its end", "", false, false)(table.failed(4096, 100, proxy))
		if table.mayContain(4096) {
			t.Error("what was released may be there")
		}
		table.add(4096, 100, 8, 2, "lower")
		table.add(4096, 100, 8, 3, "upper")
		table.add(4096, 64, 8, 3, "inside")
		want("released by nobody who has it", "upper", true, true)(table.release(4096, 100, 9))
		if was, ok := table.add(4096, 100, 8, 2, "again"); was != "lower" || !ok {
			t.Errorf("instead of %q, %t", was, ok)
		}
		n := 0
		table.each(func(addr uintptr, l *live[string]) {
			n++
			if addr != 4096 || l.of != map[uintptr]string{100: "again", 64: "inside"}[l.size] {
				t.Errorf("at %d there is %+v", addr, l)
			}
		})
		if n != 2 {
			t.Errorf("%d blocks are there, want 2", n)
		}
		table.add(0, 7, 8, proxy, "nothing") // an empty block, which no Proxy delivers
		want("no address is one, too", "nothing", true, true)(table.release(0, 7, proxy))
	}
}
