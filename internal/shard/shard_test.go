package shard

import (
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// TestCount: there are a few shards for each processor, a power of two of them, and no more than
// there is room for.
func TestCount(t *testing.T) {
	n := int(Count)
	if bits.OnesCount(uint(n)) != 1 || n > Max || n < min(Max, 2*runtime.GOMAXPROCS(0)) {
		t.Errorf("%d shards for %d processors, with room for %d", n, runtime.GOMAXPROCS(0), Max)
	}
}

// TestPickerIsSteady: a goroutine stays in its shard as long as its stack does, and
// different ones are spread.
func TestPickerIsSteady(t *testing.T) {
	const goroutines = 200
	var picker Picker
	picker.Reset(Count)
	var met [Max]atomic.Int32
	var wg, all sync.WaitGroup
	all.Add(goroutines)
	for range goroutines {
		wg.Go(func() {
			all.Done()
			all.Wait() // all stacks are in use at once
			slot, shard := picker.Pick()
			met[shard].Add(1)
			moved := 0
			for range 100 {
				s, h := picker.Pick()
				if s != slot {
					moved++
				}
				if s == slot && h != shard || h >= Count || int(s) >= len(picker.shards) {
					t.Errorf("slot %d has shard %d, and then %d; slot %d", slot, shard, h, s)
					return
				}
				slot, shard = s, h
			}
			if moved > 2 {
				t.Errorf("the stack has moved %d times", moved)
			}
		})
	}
	wg.Wait()
	var most int32
	for i := range met {
		most = max(most, met[i].Load())
	}
	if fair := int32(goroutines / Count); most > 4*fair+10 {
		t.Errorf("%d of %d goroutines are in one of %d shards", most, goroutines, Count)
	}
}

// TestPickerMovesOn: those who meet in a shard come to be in different ones, whichever slots they have.
func TestPickerMovesOn(t *testing.T) {
	if Count == 1 {
		t.Fatal("there is but one shard")
	}
	for a := range uint32(256) {
		for b := range a {
			var picker Picker
			picker.Reset(Count)
			at := func(slot uint32) uint32 { return picker.shards[slot].Load() }
			if at(a) != at(b) {
				continue
			}
			apart := false
			for range 2 * Count { // both notice, or one does
				picker.Collided(a)
				if apart = at(a) != at(b); apart {
					break
				}
				picker.Collided(b)
				if apart = at(a) != at(b); apart {
					break
				}
			}
			if !apart {
				t.Fatalf("slots %d and %d meet for ever", a, b)
			}
		}
	}
}
