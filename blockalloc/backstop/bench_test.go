package backstop_test

import (
	"context"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/backstop"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// BenchmarkPair measures Allocate and Free of 4 KiB through a Proxy around the default allocator, alone and
// below a Backstop, by one goroutine and by two.
func BenchmarkPair(b *testing.B) {
	proxy := func(mem *alloctrace.Proxy) func() {
		return func() {
			block, _ := mem.Allocate(layout(4096))
			_ = mem.Free(block)
		}
	}
	below := func(o backstop.Options) func(*alloctrace.Proxy) func() {
		return func(mem *alloctrace.Proxy) func() {
			s := backstop.New(mem, o)
			return func() {
				handle, _ := s.Allocate(layout(4096))
				_ = s.Free(handle)
			}
		}
	}
	for _, c := range []struct {
		name string
		pair func(*alloctrace.Proxy) func()
	}{
		{"proxy", proxy},
		{"without stacks", below(backstop.Options{NoStacks: true})},
		{"with stacks", below(backstop.Options{})},
	} {
		b.Run(c.name, func(b *testing.B) {
			pair := c.pair(alloctrace.Wrap(blockalloc.Default()))
			b.ReportAllocs()
			for b.Loop() {
				pair()
			}
			measure.ReportUnit(b)
		})
		b.Run(c.name+"/2", func(b *testing.B) {
			pair := c.pair(alloctrace.Wrap(blockalloc.Default()))
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for range 2 {
				wg.Go(func() {
					for range b.N / 2 {
						pair()
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			measure.ReportUnit(b)
		})
	}
}

// BenchmarkDrop measures what it takes to allocate a block, drop it, and have it freed and reported, in batches of
// 1000 with a garbage collection each.
func BenchmarkDrop(b *testing.B) {
	s := backstop.New(alloctrace.Wrap(blockalloc.Default()), backstop.Options{OnDrop: func(backstop.Drop) {}})
	b.ReportAllocs()
	for n := b.N; n > 0; n -= 1000 {
		for range min(n, 1000) {
			if _, err := s.Allocate(layout(4096)); err != nil {
				b.Fatal(err)
			}
		}
		if err := backstop.Collect(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLive measures how many bytes of the Go heap a live block takes.
func BenchmarkLive(b *testing.B) {
	const n = 100_000
	for b.Loop() {
		s := backstop.New(alloctrace.Wrap(blockalloc.Default()), backstop.Options{})
		handles, bytes := measure.HeapGrowth(func() []*[]byte {
			handles := make([]*[]byte, n)
			for i := range handles {
				handles[i], _ = s.Allocate(layout(64))
			}
			return handles
		})
		b.ReportMetric(float64(bytes)/n-8, "B/block")
		for _, handle := range handles {
			if err := s.Free(handle); err != nil {
				b.Fatal(err)
			}
		}
	}
}
