package blockalloc_test

import (
	"bytes"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

var noBytes [256 << 10]byte

// TestPoolZeroedDuringTrim: blocks are zero, though other goroutines write to theirs until they free them, and
// memory is given back all the time.
func TestPoolZeroedDuringTrim(t *testing.T) {
	rounds := 2000
	if testing.Short() {
		rounds = 200
	}
	for _, maxCached := range []int64{-1, 0} {
		t.Run(fmt.Sprint("MaxCached=", maxCached), func(t *testing.T) {
			p := &blockalloc.Pool{MaxCached: maxCached}
			var stop atomic.Bool
			var trimming, users sync.WaitGroup
			trimming.Go(func() {
				for !stop.Load() {
					if err := p.Trim(); err != nil {
						t.Error(err)
						return
					}
					runtime.Gosched() // nothing else does on WebAssembly
				}
			})
			for w := range 4 {
				users.Go(func() {
					var held [8]blockalloc.Block
					for i := range rounds {
						b := &held[i%len(held)]
						if err := p.Free(*b); err != nil {
							t.Error(err)
						}
						var err error
						*b, err = p.Allocate(blockalloc.Layout{Size: 4 << 10 << ((i + w) % 5), Align: 8, Zeroed: i%4 > 0})
						if err != nil {
							t.Error(err)
							return
						}
						if i%4 > 0 && !bytes.Equal(b.Bytes(), noBytes[:b.Size()]) {
							t.Errorf("%v is not zero", b)
							return
						}
						for j := range b.Bytes() {
							b.Bytes()[j] = 0xee
						}
					}
					for _, b := range held {
						if err := p.Free(b); err != nil {
							t.Error(err)
						}
					}
				})
			}
			users.Wait()
			stop.Store(true)
			trimming.Wait()
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFreeListAsksForZeros: a list asks its parent for zeroed blocks if it is asked, or ahead if its layout says so. It
// does not clear what came zeroed.
func TestFreeListAsksForZeros(t *testing.T) {
	const size = 4 << 10
	for _, ahead := range []bool{false, true} {
		parent := &asked{Allocator: new(blockalloc.Heap)}
		list, err := blockalloc.NewFreeList(parent, blockalloc.Layout{Size: size, Align: 8, Zeroed: ahead}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := list.Reserve(1); err != nil {
			t.Fatal(err)
		}
		get := func(zeroed bool) blockalloc.Block {
			b, err := list.Allocate(blockalloc.Layout{Size: size, Align: 8, Zeroed: zeroed})
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		parent.mark(0x77) // if this stays, the list has not cleared it
		want := byte(0)
		if ahead {
			want = 0x77
		}
		if first := get(true); first.Bytes()[0] != want {
			t.Errorf("ahead %v: the first byte is %#x, want %#x", ahead, first.Bytes()[0], want)
		}
		get(true)
		get(false)
		if got, want := fmt.Sprint(parent.zeroed), fmt.Sprint([]bool{ahead, true, ahead}); got != want {
			t.Errorf("ahead %v: the parent was asked for zeros: %s, want %s", ahead, got, want)
		}
	}
}

// asked is an allocator that remembers what it was asked for.
type asked struct {
	blockalloc.Allocator
	blocks []blockalloc.Block
	zeroed []bool
}

func (a *asked) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	b, err := a.Allocator.Allocate(l)
	a.blocks, a.zeroed = append(a.blocks, b), append(a.zeroed, l.Zeroed)
	return b, err
}

func (a *asked) mark(v byte) {
	for _, b := range a.blocks {
		b.Bytes()[0] = v
	}
}
