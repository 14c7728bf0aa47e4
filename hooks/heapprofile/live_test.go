package heapprofile

import "testing"

// TestLiveTable: what is released can be taken back, once, and only as what it was; and it cannot
// once the end of the release was delivered.
func TestLiveTable(t *testing.T) {
	const page, lower, upper, inside, again, nothing = 1, 2, 3, 4, 5, 6 // serial numbers
	for id := range uint32(2) {
		proxy, other := &part{id: id}, &part{id: id + 1}
		var table liveTable
		want := func(what string, wantSerial uint64, wantOk, wantKept bool) func(block, bool, bool) {
			return func(b block, ok, kept bool) {
				t.Helper()
				if b.serial != wantSerial || ok != wantOk || kept != wantKept {
					t.Errorf("%s: %d, %t, %t, want %d, %t, %t", what, b.serial, ok, kept, wantSerial, wantOk, wantKept)
				}
			}
		}
		table.add(4096, &block{size: 100, by: proxy, serial: page})
		if !table.mayContain(4096) {
			t.Error("what was added cannot be there")
		}
		want("released with another size", 0, false, false)(table.release(4096, 99, proxy))
		want("failed while it is live", 0, false, false)(table.failed(4096, 100, proxy))
		want("released", page, true, true)(table.release(4096, 100, proxy))
		want("released again", 0, false, true)(table.release(4096, 100, proxy))
		want("failed with another size", 0, false, false)(table.failed(4096, 99, proxy))
		want("failed for another Proxy", 0, false, false)(table.failed(4096, 100, other))
		want("the second release failed", 0, false, true)(table.failed(4096, 100, proxy))
		want("the first release failed", page, true, true)(table.failed(4096, 100, proxy))
		seven := &part{id: 7}
		want("released by another Proxy", page, true, true)(table.release(4096, 100, seven))
		want("which failed", page, true, true)(table.failed(4096, 100, seven))
		want("released once more", page, true, true)(table.release(4096, 100, proxy))
		if foreign, _, kept := table.ended(4096, 100, proxy); !kept || foreign != nil {
			t.Errorf("the end of the release: %+v, %t", foreign, kept)
		}
		if _, _, kept := table.ended(4096, 100, proxy); kept {
			t.Error("the end of the release is delivered twice")
		}
		want("failed after its end", 0, false, false)(table.failed(4096, 100, proxy))
		if table.mayContain(4096) {
			t.Error("what was released may be there")
		}
		two, three := &part{id: 2}, &part{id: 3}
		table.add(4096, &block{size: 100, by: two, serial: lower})
		table.add(4096, &block{size: 100, by: three, serial: upper})
		table.add(4096, &block{size: 64, by: three, serial: inside})
		want("released by nobody who has it", upper, true, true)(table.release(4096, 100, &part{id: 9}))
		if was, ok := table.add(4096, &block{size: 100, by: two, serial: again}); was.serial != lower || !ok {
			t.Errorf("instead of %d, %t", was.serial, ok)
		}
		n := 0
		table.each(func(addr uintptr, b *block) {
			n++
			if addr != 4096 || b.serial != map[uintptr]uint64{100: again, 64: inside}[b.size] {
				t.Errorf("at %d there is %+v", addr, b)
			}
		})
		if n != 2 {
			t.Errorf("%d blocks are there, want 2", n)
		}
		table.add(0, &block{size: 7, by: proxy, serial: nothing}) // an empty block, which no Proxy delivers
		want("no address is one, too", nothing, true, true)(table.release(0, 7, proxy))
	}
}
