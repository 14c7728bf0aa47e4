package heapprofile

import (
	"math/rand/v2"
	"testing"
)

// TestSlots holds slots against a map, through blocks that come and go, at few addresses, at
// addresses whose searches begin at one place, and at many.
func TestSlots(t *testing.T) {
	far := slots{at: make([]slot, 1<<10)}
	var together []uintptr // at the end of the table, so that searches go around it
	for addr := uintptr(0); len(together) < 40; addr++ {
		if far.home(^addr) == len(far.at)-1 {
			together = append(together, addr)
		}
	}
	rnd := rand.New(rand.NewPCG(4, 5))
	for name, addr := range map[string]func() uintptr{
		"few":      func() uintptr { return uintptr(rnd.IntN(20)) },
		"many":     func() uintptr { return uintptr(rnd.IntN(5000)) << 12 },
		"together": func() uintptr { return together[rnd.IntN(len(together))] },
	} {
		t.Run(name, func(t *testing.T) {
			var s slots
			by := &part{id: 1}
			want := make(map[uintptr]uint64)
			most := 0
			for step := range uint64(50_000) {
				a := addr()
				i, there := s.find(a, 1, 1)
				if v, known := want[a]; there != known || there && (s.at[i].serial != v || ^s.at[i].key != a) {
					t.Fatalf("step %d: found %t, want %t", step, there, known)
				}
				switch {
				case there && rnd.IntN(3) > 0:
					s.remove(i)
					delete(want, a)
				default:
					if was, added := s.put(a, &block{size: 1, by: by, serial: step}); added == there || was.serial != want[a] {
						t.Fatalf("step %d: added is %t, and it was there: %t; instead of %d, want %d", step, added, there, was.serial, want[a])
					}
					want[a] = step
				}
				most = max(most, s.used)
				if s.used != len(want) || 4*s.used > 3*len(s.at) {
					t.Fatalf("step %d: %d of %d slots are used, want %d and at most three quarters", step, s.used, len(s.at), len(want))
				}
			}
			if len(s.at) > 8 && 8*(most+1) <= 3*len(s.at) {
				t.Errorf("%d slots for %d blocks at most", len(s.at), most)
			}
			for i := range s.at {
				if k := s.at[i].key; k != 0 {
					if want[^k] != s.at[i].serial {
						t.Errorf("at %d is %d, want %d", ^k, s.at[i].serial, want[^k])
					}
					delete(want, ^k)
				}
			}
			if len(want) != 0 {
				t.Errorf("%d are missing", len(want))
			}
		})
	}
}
