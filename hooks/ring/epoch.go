package ring

import (
	"github.com/alloctrace/alloctrace/internal/goroutine"
	"github.com/alloctrace/alloctrace/internal/stored"
)

// An epoch is a number, in the lower half, and the shard that has it. Who writes in
// another shard begins an epoch of that shard, so that the numbers give the order of records
// in different shards. Goroutines that run at once do so all the time: then the epoch becomes
// unordered, and is that of all shards. A new one begins when a goroutine has changed shards
// since, so that the numbers give the order of what one goroutine writes. Numbers only rise.
const (
	goroutineBits = 9

	epochShift  = stored.EpochShift
	epochNumber = 1<<epochShift - 1
	unordered   = 1<<31 - 1 // in place of a shard

	// Epochs of fewer records than shortEpoch are short. After so many of them the epoch becomes unordered.
	shortEpoch  = 64
	shortEpochs = 1000
)

// begin begins an epoch of shard i, unless the epoch is unordered, and returns the epoch.
func (r *Ring) begin(i int, s *ringShard) uint64 {
	epoch := r.epoch.Load()
	if epoch>>epochShift == unordered {
		return epoch
	}
	began := s.head.Load()
	if began-s.began < shortEpoch && r.short.Add(1) > shortEpochs {
		i = unordered
	}
	s.began = began
	for epoch>>epochShift != unordered {
		if next := uint64(i)<<epochShift | (epoch+1)&epochNumber; r.epoch.CompareAndSwap(epoch, next) {
			return next
		}
		epoch = r.epoch.Load()
	}
	return epoch
}

// epochOfGoroutine returns the unordered epoch for what a goroutine writes in shard i. It is a later
// one than that in which the goroutine wrote in another shard.
//
// It does not matter if several goroutines have one hash: the words of goroutines only rise,
// and from one shard to another they rise to a later epoch.
func (r *Ring) epochOfGoroutine(i int) uint64 {
	word := &r.goroutines[uint64(goroutine.ID())*0x9e3779b97f4a7c15>>(64-goroutineBits)]
	for {
		was := word.Load() // before the epoch, so as not to be later
		epoch := r.epoch.Load()
		is := epoch<<epochShift | uint64(i+1)
		if was == is {
			return epoch
		}
		if wrote := was & epochNumber; wrote != 0 && was>>epochShift == epoch&epochNumber {
			r.renew(epoch) // wrote is another shard: else this was is
		} else if word.CompareAndSwap(was, is) {
			return epoch
		}
	}
}

// renew begins a new epoch of the same shard, or of all, unless there is a new one already.
func (r *Ring) renew(epoch uint64) bool {
	return r.epoch.CompareAndSwap(epoch, epoch&^epochNumber|(epoch+1)&epochNumber)
}
