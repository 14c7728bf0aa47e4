package typed_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
)

// BenchmarkMapRatios measures maps beside Go's own, one right after the other, and
// reports how many times as long they take, and how long for one entry. Both have
// their memory from the Go heap.
func BenchmarkMapRatios(b *testing.B) {
	for _, n := range []int{10, 1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("uint64/%d", n), func(b *testing.B) { mapRatios(b, n) })
	}
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprintf("words/%d", n), func(b *testing.B) { wordRatios(b, n) })
	}
}

// shuffled returns n different numbers from first on, in no order, as keys that
// are there and as keys that are not.
func shuffled(n int) (hits, misses []uint64) {
	random := rand.New(rand.NewPCG(5, 6))
	for _, i := range random.Perm(n) {
		hits, misses = append(hits, uint64(2*i)), append(misses, uint64(2*i+1))
	}
	return hits, misses
}

func mapRatios(b *testing.B, n int) {
	hits, misses := shuffled(n)
	mem := new(blockalloc.Heap)
	ours, theirs := newMap[uint64, uint64](b, mem), map[uint64]uint64{}
	for i := range uint64(n) {
		theirs[2*i] = i
		must(b, ours.Set(2*i, i))
	}
	sum := uint64(0)
	ratio(b, "hit", n, func() {
		for _, k := range hits {
			v, _ := ours.Get(k)
			sum += v
		}
	}, func() {
		for _, k := range hits {
			sum += theirs[k]
		}
	})
	ratio(b, "miss", n, func() {
		for _, k := range misses {
			v, _ := ours.Get(k)
			sum += v
		}
	}, func() {
		for _, k := range misses {
			sum += theirs[k]
		}
	})
	ratio(b, "iterate", n, func() {
		for k, v := range ours.All() {
			sum += k + v
		}
	}, func() {
		for k, v := range theirs {
			sum += k + v
		}
	})
	ratio(b, "update", n, func() {
		for _, k := range hits {
			v, _, _ := ours.Ensure(k)
			*v++
		}
	}, func() {
		for _, k := range hits {
			theirs[k]++
		}
	})
	ratio(b, "churn", n, func() {
		for i, k := range hits {
			ours.Delete(k)
			_ = ours.Set(misses[i], k)
		}
		hits, misses = misses, hits
	}, func() {
		for i, k := range misses { // ours has exchanged them
			delete(theirs, k)
			theirs[hits[i]] = k
		}
	})
	must(b, ours.Free())
	ratio(b, "insert", n, func() {
		m := newMap[uint64, uint64](b, mem)
		for _, k := range hits {
			_ = m.Set(k, k)
		}
		must(b, m.Free())
	}, func() {
		m := map[uint64]uint64{}
		for _, k := range hits {
			m[k] = k
		}
	})
	ratio(b, "insert reserved", n, func() {
		m := newMap[uint64, uint64](b, mem)
		must(b, m.Reserve(n))
		for _, k := range hits {
			_ = m.Set(k, k)
		}
		must(b, m.Free())
	}, func() {
		m := make(map[uint64]uint64, n)
		for _, k := range hits {
			m[k] = k
		}
	})
	if sum == 1 {
		b.Log("the loops are not to be left out")
	}
}

// wordRatios measures words that are parts of a text, as a program finds them that
// counts words.
func wordRatios(b *testing.B, n int) {
	hits, misses := make([][]byte, n), make([][]byte, n)
	for i, k := range rand.New(rand.NewPCG(5, 6)).Perm(n) {
		hits[i], misses[i] = fmt.Appendf(nil, "word%d", k), fmt.Appendf(nil, "mot%d", k)
	}
	mem := new(blockalloc.Heap)
	insert := func() *typed.BytesMap[uint64] {
		m := newBytesMap[uint64](b, mem)
		for i, k := range hits {
			_ = m.Set(k, uint64(i))
		}
		return m
	}
	insertTheirs := func() map[string]uint64 {
		m := map[string]uint64{}
		for i, k := range hits {
			m[string(k)] = uint64(i)
		}
		return m
	}
	ours, theirs := insert(), insertTheirs()
	sum := uint64(0)
	for _, r := range []struct {
		name string
		keys [][]byte
	}{{"hit", hits}, {"miss", misses}} {
		ratio(b, r.name, n, func() {
			for _, k := range r.keys {
				v, _ := ours.Get(k)
				sum += v
			}
		}, func() {
			for _, k := range r.keys {
				sum += theirs[string(k)]
			}
		})
	}
	must(b, ours.Free())
	ratio(b, "insert", n, func() { must(b, insert().Free()) }, func() { insertTheirs() })
	if sum == 1 {
		b.Log("the loops are not to be left out")
	}
}

func ratio(b *testing.B, name string, n int, ours, theirs func()) {
	b.Run(name, func(b *testing.B) {
		var a, g []float64
		for b.Loop() {
			a = append(a, nanoseconds(ours))
			g = append(g, nanoseconds(theirs))
		}
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(median(a)/float64(n), "ns/one")
		b.ReportMetric(median(a)/median(g), "ratio")
	})
}
