package spans_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/alloctrace/alloctrace/internal/spans"
)

type span struct{ addr, size uintptr }

func (s span) holds(addr uintptr) bool { return addr-s.addr < s.size }

// TestAround: of spans side by side and with gaps, each is found by all its addresses, and nothing is found in
// the gaps.
func TestAround(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var levels spans.Levels
		byKey := make(map[uint64]span)
		var all []span
		for addr := uintptr(random.IntN(1 << 20)); len(all) < 100; {
			s := span{addr, 1 + uintptr(random.IntN(1<<random.IntN(12)))}
			key := spans.Key(s.addr, s.size)
			if other, ok := byKey[key]; ok {
				t.Fatalf("%v and %v have the same key", s, other)
			}
			levels.Add(s.size)
			byKey[key] = s
			all = append(all, s)
			if addr += s.size; random.IntN(2) == 0 {
				addr += uintptr(random.IntN(100))
			}
		}
		find := func(addr uintptr) (found span, lookUps int) {
			for key := range levels.Around(addr) {
				lookUps++
				if s, ok := byKey[key]; ok && s.holds(addr) {
					return s, lookUps
				}
			}
			return span{}, lookUps
		}
		for _, s := range all {
			for _, addr := range []uintptr{s.addr, s.addr + s.size/2, s.addr + s.size - 1} {
				if found, n := find(addr); found != s || n > 3*12 {
					t.Fatalf("at %d: %v after %d look-ups, want %v after 36 at most", addr, found, n, s)
				}
			}
			if !slices.Contains(slices.Collect(levels.At(s.addr)), spans.Key(s.addr, s.size)) {
				t.Fatalf("At(%d) does not yield the key of %v", s.addr, s)
			}
			past := s.addr + s.size
			if i := slices.IndexFunc(all, func(s span) bool { return s.holds(past) }); i < 0 {
				if found, _ := find(past); found != (span{}) {
					t.Fatalf("past the end of %v: %v", s, found)
				}
			}
		}
	}
}

// TestEnds: at both ends of the addresses nothing wraps.
func TestEnds(t *testing.T) {
	var levels spans.Levels
	levels.Add(4096)
	for _, addr := range []uintptr{0, 4096, ^uintptr(0)} {
		keys := slices.Collect(levels.Around(addr))
		if want := spans.Key(addr&^4095, 4096); len(keys) == 0 || keys[0] != want {
			t.Errorf("Around(%#x) = %#x, want %#x first", addr, keys, want)
		}
	}
	if n := len(slices.Collect(levels.Around(4096))); n != 2 {
		t.Errorf("%d keys around 4096, want 2: no span begins before address 0", n)
	}
}

// TestAlignedIsFirst: a block that is aligned to its size takes one look-up, if all are of one size.
func TestAlignedIsFirst(t *testing.T) {
	var levels spans.Levels
	levels.Add(1 << 16)
	for key := range levels.Around(5<<16 + 1234) {
		if want := spans.Key(5<<16, 1<<16); key != want {
			t.Errorf("the first key is %#x, want %#x", key, want)
		}
		break
	}
}
