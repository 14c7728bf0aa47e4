//go:build cgo && unix

package peers

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/internal/peers/cmalloc"
)

// sizes are the blocks measured, each aligned to its size.
var sizes = []struct {
	name string
	size uintptr
}{{"64B", 64}, {"4KiB", 4 << 10}, {"64KiB", 64 << 10}, {"1MiB", 1 << 20}}

// A contender makes, for blocks of one size, what runs n pairs of allocating and
// freeing one block. It is called once for each measure, so that nothing is shared
// but by the goroutines of one; for each of these where it is for a single goroutine.
type contender struct {
	name   string
	single bool
	pair   func(tb testing.TB, size uintptr) func(n int)
}

// allocator is a contender that is an Allocator.
func allocator(name string, single bool, newAllocator func(tb testing.TB, size uintptr) blockalloc.Allocator) contender {
	return contender{name, single, func(tb testing.TB, size uintptr) func(int) {
		a := newAllocator(tb, size)
		l := blockalloc.BlockLayout(size)
		return func(n int) {
			for range n {
				b, err := a.Allocate(l)
				if err != nil {
					panic(err)
				}
				if err := a.Free(b); err != nil {
					panic(err)
				}
			}
		}
	}}
}

func must[A blockalloc.Allocator](tb testing.TB) func(a A, err error) blockalloc.Allocator {
	return func(a A, err error) blockalloc.Allocator {
		if err != nil {
			tb.Fatal(err)
		}
		return a
	}
}

// sink keeps the compiler from leaving out what is measured.
var sink [64][]byte

var contenders = []contender{
	allocator("bump", true, func(tb testing.TB, size uintptr) blockalloc.Allocator {
		return must[*blockalloc.Bump](tb)(blockalloc.NewBump(&blockalloc.System{}, 2*size))
	}),
	allocator("freelist", true, func(tb testing.TB, size uintptr) blockalloc.Allocator {
		return must[*blockalloc.FreeList](tb)(blockalloc.NewFreeList(&blockalloc.System{}, blockalloc.BlockLayout(size), 0))
	}),
	allocator("pool", false, func(testing.TB, uintptr) blockalloc.Allocator { return &blockalloc.Pool{} }),
	allocator("pool_each", true, func(testing.TB, uintptr) blockalloc.Allocator { return &blockalloc.Pool{} }),
	allocator("slab", false, func(tb testing.TB, _ uintptr) blockalloc.Allocator {
		return must[*blockalloc.Slab](tb)(blockalloc.NewSlab(&blockalloc.Pool{}, 64<<10))
	}),
	{"sync.Pool", false, func(_ testing.TB, size uintptr) func(int) {
		pool := sync.Pool{New: func() any { b := make([]byte, size); return &b }}
		return func(n int) {
			for range n {
				b := pool.Get().(*[]byte)
				pool.Put(b)
			}
		}
	}},
	{"make", false, func(_ testing.TB, size uintptr) func(int) {
		return func(n int) {
			mine := &sink[n%len(sink)]
			for range n {
				*mine = make([]byte, size)
			}
		}
	}},
	allocator("system", false, func(testing.TB, uintptr) blockalloc.Allocator { return &blockalloc.System{} }),
	allocator("posix_memalign", false, func(testing.TB, uintptr) blockalloc.Allocator { return cmalloc.Allocator{} }),
}

// on has several goroutines do a share each of n pairs.
func (c contender) on(tb testing.TB, size uintptr, goroutines int) func(n int) {
	pairs := make([]func(int), goroutines)
	for g := range pairs {
		if g == 0 || c.single {
			pairs[g] = c.pair(tb, size)
		} else {
			pairs[g] = pairs[0]
		}
	}
	if goroutines == 1 {
		return pairs[0]
	}
	return func(n int) {
		var wg sync.WaitGroup
		for g, pairs := range pairs {
			wg.Go(func() { pairs(n/goroutines + g) }) // shares that differ, so that make's differ in where they go
		}
		wg.Wait()
	}
}

// slow are the contenders whose turns are shorter, in pairs for each goroutine.
var slow = map[string]int{"make": 40, "system": 40, "arrow_go": 200, "arrow_checked": 200}

// subject is what several goroutines do, to be measured.
func (c contender) subject(tb testing.TB, name string, size uintptr, goroutines int) measure.Subject {
	if runtime.GOMAXPROCS(0) < goroutines {
		tb.Fatalf("%d goroutines need as many processors to be measured on: run it with GOMAXPROCS=%[1]d or more", goroutines)
	}
	s := measure.Subject{Name: name, Run: c.on(tb, size, goroutines)}
	if goroutines > 1 {
		s.Turn = 10_000 // so that starting them does not count
	}
	if turn, ok := slow[c.name]; ok {
		s.Turn = turn * goroutines
	}
	return s
}

// BenchmarkFamily prints what a pair of allocating and freeing costs with each
// allocator, a row a measure: name value unit bound ok|over. On two goroutines it is
// the time for all pairs by their number. Bump and FreeList, which are for one
// goroutine, are there one for each. Memory is not touched but by make, which
// clears it.
func BenchmarkFamily(b *testing.B) {
	for b.Loop() {
		family(b)
	}
}

func family(b *testing.B) {
	subjects := []measure.Subject{measure.Atomic()}
	name := func(c contender, size string, goroutines int) string {
		return fmt.Sprintf("%s_%s_%d", c.name, size, goroutines)
	}
	for _, c := range contenders {
		for _, s := range sizes {
			for _, goroutines := range []int{1, 2} {
				subjects = append(subjects, c.subject(b, name(c, s.name, goroutines), s.size, goroutines))
			}
		}
	}
	times := measure.Run(201, subjects)
	fmt.Println()
	measure.Row(os.Stdout, b, "atomic_add", times.Median("atomic"), "ns", measure.NoBound)
	for _, c := range contenders {
		for _, s := range sizes {
			one, two := name(c, s.name, 1), name(c, s.name, 2)
			measure.Row(os.Stdout, b, one, times.Ratio(one, "atomic"), "A", measure.NoBound)
			measure.Row(os.Stdout, b, two, times.Ratio(two, "atomic"), "A", measure.NoBound)
			measure.Row(os.Stdout, b, two+"_over_1", times.Ratio(two, one), "x", measure.NoBound)
		}
	}
	// A Pool for each goroutine is as well as a Pool's instructions scale on this machine.
	measure.Row(os.Stdout, b, "pool_4KiB_2_over_pool_each_4KiB_2", times.Ratio("pool_4KiB_2", "pool_each_4KiB_2"), "x", 1.2)
}
