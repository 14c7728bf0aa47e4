package blockalloc_test

import (
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// BenchmarkDebug measures Allocate and Free over a FreeList, which costs little, with
// the records alone and with one option more. The first is the FreeList itself.
func BenchmarkDebug(b *testing.B) {
	with := func(change func(o *blockalloc.DebugOptions)) *blockalloc.DebugOptions {
		o := debugMild
		change(&o)
		return &o
	}
	for _, size := range []uintptr{64, 4 << 10} {
		for _, c := range []struct {
			name    string
			options *blockalloc.DebugOptions
		}{
			{"none", nil},
			{"records", with(func(*blockalloc.DebugOptions) {})},
			{"Canary", with(func(o *blockalloc.DebugOptions) { o.Canary = 16 })},
			{"Poison", with(func(o *blockalloc.DebugOptions) { o.NoPoison = false })},
			{"ZeroFree", with(func(o *blockalloc.DebugOptions) { o.ZeroFree = true })},
			{"Quarantine", with(func(o *blockalloc.DebugOptions) { o.Quarantine = 0 })},
			{"Stack", with(func(o *blockalloc.DebugOptions) { o.Stack = 16 })},
			{"Guard", with(func(o *blockalloc.DebugOptions) { o.Guard = true })},
			{"Guard and Quarantine", with(func(o *blockalloc.DebugOptions) { o.Guard, o.Quarantine = true, 0 })},
			{"default", &blockalloc.DebugOptions{}},
			{"paranoid", &debugParanoid},
		} {
			b.Run(c.name+"/"+blockalloc.BlockLayout(size).String(), func(b *testing.B) {
				list := newFreeList(b, new(blockalloc.Heap), blockalloc.Layout{Size: 2*size + 64, Align: 64}, 2100)
				var a blockalloc.Allocator = list
				if c.options != nil {
					d := blockalloc.NewDebug(list, *c.options)
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
				reportUnit(b)
			})
		}
	}
}

// BenchmarkDebugCatch measures Catch, without a fault and with one.
func BenchmarkDebugCatch(b *testing.B) {
	d := blockalloc.NewDebug(blockalloc.Null{}, blockalloc.DebugOptions{Guard: true})
	f := func() {}
	b.Run("no fault", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = d.Catch(f)
		}
		reportUnit(b)
	})
	if !hasSystem {
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
		reportUnit(b)
	})
	mustFree(b, d, block)
	mustClose(b, d)
}
