package hooks

import (
	"math"
	"math/rand/v2"
	"sync/atomic"

	"github.com/alloctrace/alloctrace/internal/shard"
)

// A sampler chooses blocks by their bytes, as [runtime.MemProfileRate] does: one in
// rate bytes on average, at distances that are distributed exponentially, so that
// no pattern of sizes goes together with them. A block is chosen with probability
// 1-exp(-size/rate).
type sampler struct {
	rate   int64
	shards []samplerShard // one for each processor, and one more for others
}

type samplerShard struct {
	left atomic.Int64 // bytes before the next choice
	_    [120]byte
}

// newSampler returns a sampler with this rate; 1 chooses every block.
func newSampler(rate int64) *sampler {
	s := &sampler{rate: rate, shards: make([]samplerShard, shard.Own+1)}
	for i := range s.shards {
		s.shards[i].left.Store(s.distance())
	}
	return s
}

func (s *sampler) distance() int64 {
	return int64(min(rand.ExpFloat64()*float64(s.rate), math.MaxInt64/2))
}

// choose reports whether a block of size bytes is to be sampled.
func (s *sampler) choose(size uintptr) bool {
	if s.rate == 1 {
		return true
	}
	chosen := false
	if i := shard.Enter(); i < shard.Own {
		left := &s.shards[i].left
		if chosen = shard.Add(left, -int64(size)) < 0; chosen {
			shard.Add(left, s.distance()-left.Load())
		}
	} else {
		left := &s.shards[shard.Own].left
		if chosen = left.Add(-int64(size)) < 0; chosen {
			left.Store(s.distance())
		}
	}
	shard.Leave()
	return chosen
}

// weight returns how many blocks of size bytes one that was chosen stands for.
func (s *sampler) weight(size uintptr) float64 {
	if s.rate == 1 {
		return 1
	}
	return -1 / math.Expm1(-float64(size)/float64(s.rate))
}
