package blocktest

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
)

// An operation is a step of a random test, in five bytes. So a fuzzer can make them up,
// and a failing sequence can be written down. They say what to do, to which block, and
// with which size and alignment. Their meaning depends on the allocator and the live
// blocks: the model decides.
type operation [operationSize]byte

const operationSize = 5

type verb uint8

const (
	allocateSome verb = iota
	allocateZero
	allocateBad
	allocateTooMuch
	reallocateSome
	reallocateRaw
	reallocateZero
	reallocateBad
	reallocateEmpty
	freeSome
	freeAll
	freeAgain
	freeForeign
	freeWrongSize
	freePart
	freePastTheEnd
	askOwner
	roundTrip
	firstStep // and from there on the Config's Steps
)

// verbs returns each verb as often as its weight says. The model's own weigh 32.
func verbs(steps []Step) (table []verb) {
	for _, share := range []struct {
		verb   verb
		weight int
	}{
		{allocateSome, 8}, {freeSome, 5}, {reallocateSome, 4}, {reallocateRaw, 1},
		{allocateZero, 1}, {allocateBad, 1}, {allocateTooMuch, 1}, {reallocateZero, 1}, {reallocateBad, 1}, {reallocateEmpty, 1},
		{freeAll, 1}, {freeAgain, 1}, {freeForeign, 1}, {freeWrongSize, 1}, {freePart, 1}, {freePastTheEnd, 1}, {askOwner, 1}, {roundTrip, 1},
	} {
		table = append(table, slices.Repeat([]verb{share.verb}, share.weight)...)
	}
	checkSteps(steps)
	for i, step := range steps {
		table = append(table, slices.Repeat([]verb{firstStep + verb(i)}, max(1, step.Weight))...)
	}
	if len(table) > maxVerbs {
		panic(fmt.Sprintf("blocktest: the weights of Config.Steps are %d together: make them %d or less", len(table)-32, maxVerbs-32))
	}
	return table
}

const maxVerbs = 256 // as many as a byte can choose from

// pick returns an index below n, in order of age: half of the time the newest.
func (o operation) pick(n int) int {
	if o[1] >= 128 {
		return n - 1
	}
	return int(o[1]) % n
}

// size returns a size of 1 byte or more, at most most, with all powers of two equally
// frequent: most sizes up to usual, some up to 16 KiB, a few up to 256 KiB.
func (o operation) size(usual, most uintptr) uintptr {
	limit := usual
	switch {
	case o[2] >= 254:
		limit = 256 << 10
	case o[2] >= 224:
		limit = 16 << 10
	}
	power := uintptr(1) << (int(o[2]) % bits.Len(uint(limit)))
	return min(power+power*uintptr(o[3])>>8, limit, most)
}

// align returns a power of two, at most most, which is one too: most often up to usual,
// sometimes up to 64 KiB.
func (o operation) align(usual, most uintptr) uintptr {
	limit := usual
	if o[4] >= 248 {
		limit = 64 << 10
	}
	return min(1<<(int(o[4])%bits.Len(uint(limit))), most)
}

// decode returns the operations in data.
func decode(data []byte) []operation {
	ops := make([]operation, 0, len(data)/operationSize)
	for ; len(data) >= operationSize; data = data[operationSize:] {
		ops = append(ops, operation(data))
	}
	return ops
}

func encode(ops []operation) []byte {
	data := make([]byte, 0, len(ops)*operationSize)
	for _, o := range ops {
		data = append(data, o[:]...)
	}
	return data
}

// randomOperations returns the n operations of seed.
func randomOperations(seed, n int) []operation {
	rnd := rand.New(rand.NewPCG(uint64(seed), 0))
	ops := make([]operation, n)
	for i := range ops {
		for j := range ops[i] {
			ops[i][j] = byte(rnd.Uint32())
		}
	}
	return ops
}
