package typed_test

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc/typed"
)

// Keys whose hashes are all the same, or differ in a few bits alone, are still
// distinguished, and in the latter case found as fast.
func TestMapHashFunctions(t *testing.T) {
	for name, test := range map[string]struct {
		hash   func(uint64) uint64
		step   uint64 // from key to key
		n      int
		probes float64 // most groups looked at for a key, on average
	}{
		"constant":        {func(uint64) uint64 { return 0 }, 1, 1000, 1000},
		"two values":      {func(k uint64) uint64 { return k % 2 << 40 }, 1, 1000, 1000},
		"identity":        {func(k uint64) uint64 { return k }, 1, 7 << 10, 1.8},
		"middle bits":     {func(k uint64) uint64 { return k }, 1 << 20, 7 << 10, 1.8},
		"upper bits":      {func(k uint64) uint64 { return k }, 1 << 49, 7 << 10, 1.8},
		"identity of odd": {func(k uint64) uint64 { return k }, 0x10001, 7 << 10, 1.8},
	} {
		t.Run(name, func(t *testing.T) {
			m := typed.NewMapFunc[uint64, uint64](newChecked(t), test.hash)
			for i := range uint64(test.n) {
				must(t, m.Set(i*test.step, i))
			}
			for i := range uint64(test.n) {
				if v, ok := m.Get(i * test.step); !ok || v != i {
					t.Fatalf("%d is %d, %v", i*test.step, v, ok)
				}
				if _, ok := m.Get(i*test.step + uint64(test.n)*test.step + 1); ok {
					t.Fatal("found what is not there")
				}
			}
			if p := typed.MapProbes(m); p > test.probes {
				t.Errorf("a key takes %.2f probes, want %v at most", p, test.probes)
			}
			for i := range uint64(test.n) {
				if i%3 != 0 && !m.Delete(i*test.step) {
					t.Fatalf("%d is not there", i)
				}
			}
			for i := range uint64(test.n) {
				if _, ok := m.Get(i * test.step); ok != (i%3 == 0) {
					t.Fatalf("%d: %v", i, ok)
				}
			}
			must(t, m.Free())
		})
	}
}

// A clone has its map's hash function.
func TestMapCloneHashes(t *testing.T) {
	a, calls := newChecked(t), 0
	m := typed.NewMapFunc[int, int](a, func(int) uint64 { calls++; return 0 })
	b := typed.NewBytesMapFunc[int](a, func([]byte) uint64 { calls++; return 0 })
	c, err := m.Clone()
	must(t, err)
	d, err := b.Clone()
	must(t, err)
	calls = 0
	c.Get(1)
	d.Get(nil)
	if calls != 2 {
		t.Errorf("%d calls of the hash functions, want 2", calls)
	}
	must(t, errors.Join(m.Free(), b.Free(), c.Free(), d.Free()))
}

// TestMapChurn: a map that is full and has had each entry replaced fifty times is
// no slower than after ten times, takes no memory for it, and counts right.
func TestMapChurn(t *testing.T) {
	const n = 7 << 7
	a := newChecked(t)
	m := typed.NewMapFunc[uint64, uint64](a, func(k uint64) uint64 { return k })
	must(t, m.Reserve(n))
	random := rand.New(rand.NewPCG(3, 4))
	var keys []uint64
	for len(keys) < n {
		keys = append(keys, random.Uint64())
		must(t, m.Set(keys[len(keys)-1], 0))
	}
	churn := func(times int) float64 {
		for range times * n {
			at := random.IntN(n)
			if !m.Delete(keys[at]) {
				t.Fatalf("%d is not there", keys[at])
			}
			keys[at] = random.Uint64()
			must(t, m.Set(keys[at], 0))
		}
		return typed.MapProbes(m)
	}
	calls, early := a.calls, churn(10)
	if late := churn(40); late > 1.1*early || late > 2.2 {
		t.Errorf("a key takes %.3f probes after ten times, %.3f after fifty", early, late)
	}
	if a.calls != calls {
		t.Errorf("%d allocations, want none", a.calls-calls)
	}
	for _, k := range keys {
		m.Delete(k)
	}
	if passed := typed.MapPassed(m); passed != 0 {
		t.Errorf("an empty map counts %d entries that passed a full group", passed)
	}
	must(t, m.Free())
}
