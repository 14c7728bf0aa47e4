package blockalloc

import (
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// TestShardMask: there are a few shards for each processor, a power of two of them, and no more than
// there is room for.
func TestShardMask(t *testing.T) {
	n := int(shardMask) + 1
	if bits.OnesCount(uint(n)) != 1 || n > maxShards || n < min(maxShards, 2*runtime.GOMAXPROCS(0)) {
		t.Errorf("%d shards for %d processors, with room for %d", n, runtime.GOMAXPROCS(0), maxShards)
	}
}

// TestShardPickerIsSteady: a goroutine stays in its shard as long as its stack does, and
// different ones are spread.
func TestShardPickerIsSteady(t *testing.T) {
	const goroutines = 200
	var picker shardPicker
	var met [maxShards]atomic.Int32
	var wg, all sync.WaitGroup
	all.Add(goroutines)
	for range goroutines {
		wg.Go(func() {
			all.Done()
			all.Wait() // all stacks are in use at once
			slot, shard := picker.pick()
			met[shard].Add(1)
			moved := 0
			for range 100 {
				s, h := picker.pick()
				if s != slot {
					moved++
				}
				if s == slot && h != shard || h > shardMask || int(s) >= len(picker.moved) {
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
	if fair := int32(goroutines / (shardMask + 1)); most > 4*fair+10 {
		t.Errorf("%d of %d goroutines are in one of %d shards", most, goroutines, shardMask+1)
	}
}

// TestShardPickerMovesOn: those who meet in a shard come to be in different ones, whichever slots they have.
func TestShardPickerMovesOn(t *testing.T) {
	if shardMask == 0 {
		t.Fatal("there is but one shard")
	}
	for a := range uint32(256) {
		for b := range a {
			var picker shardPicker
			at := func(slot uint32) uint32 { return (slot + picker.moved[slot].Load()) & shardMask }
			if at(a) != at(b) {
				continue
			}
			apart := false
			for range 2 * (shardMask + 1) { // both notice, or one does
				picker.collided(a)
				if apart = at(a) != at(b); apart {
					break
				}
				picker.collided(b)
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
