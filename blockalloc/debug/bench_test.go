package debug_test

import (
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// BenchmarkAllocator measures Allocate and Free over a FreeList, which costs little, with
// the records alone and with one option more. The first is the FreeList itself.
func BenchmarkAllocator(b *testing.B) {
	with := func(change func(o *debug.Options)) *debug.Options {
		o := mild
		change(&o)
		return &o
	}
	for _, size := range []uintptr{64, 4 << 10} {
		for _, c := range []struct {
			name    string
			options *debug.Options
		}{
			{"none", nil},
			{"records", with(func(*debug.Options) {})},
			{"Canary", with(func(o *debug.Options) { o.Canary = 16 })},
			{"Poison", with(func(o *debug.Options) { o.NoPoison = false })},
			{"ZeroFree", with(func(o *debug.Options) { o.ZeroFree = true })},
			{"Quarantine", with(func(o *debug.Options) { o.Quarantine = 0 })},
			{"Stack", with(func(o *debug.Options) { o.Stack = 16 })},
			{"Guard", with(func(o *debug.Options) { o.Guard = true })},
			{"Guard and Quarantine", with(func(o *debug.Options) { o.Guard, o.Quarantine = true, 0 })},
			{"default", &debug.Options{}},
			{"paranoid", &paranoid},
		} {
			b.Run(c.name+"/"+blockalloc.BlockLayout(size).String(), func(b *testing.B) {
				list := newFreeList(b, new(blockalloc.Heap), blockalloc.Layout{Size: 2*size + 64, Align: 64}, 2100)
				var a blockalloc.Allocator = list
				if c.options != nil {
					d := debug.New(list, *c.options)
					defer mustClose(b, d)
					a = blockalloc.NewLocked(d) // as deep in calls as a Proxy
				}
				b.ReportAllocs()
				for b.Loop() {
					block, err := a.Allocate(blockalloc.Layout{Size: size, Align: 8})
					if err != nil {
						b.Fatal(err)
					}
					if err := a.Free(block); err != nil {
						b.Fatal(err)
					}
				}
				measure.ReportUnit(b)
			})
		}
	}
}

// BenchmarkCatch measures Catch, without a fault and with one.
func BenchmarkCatch(b *testing.B) {
	d := debug.New(blockalloc.Null{}, debug.Options{Guard: true})
	f := func() {}
	b.Run("no fault", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = d.Catch(f)
		}
		measure.ReportUnit(b)
	})
	if !hasGuards {
		return
	}
	block := mustAllocate(b, d, 64, 64)
	f = func() { beyond(block, 64, 1)[0] = 0 }
	b.Run("fault", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if d.Catch(f) == nil {
				b.Fatal("no fault")
			}
		}
		measure.ReportUnit(b)
	})
	mustFree(b, d, block)
	mustClose(b, d)
}
