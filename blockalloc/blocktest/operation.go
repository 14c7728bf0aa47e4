package blocktest

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
)

// An operation is a step of a random test, in five bytes, so that a fuzzer can
// make them up and a failing sequence can be written down. They say what to do,
// to which block, and with which size and alignment; what they mean for a given
// allocator and the blocks that are live then is up to the model.
type operation [operationSize]byte

const operationSize = 5

type verb uint8

const (
	allocateSome verb = iota
	allocateZero
	allocateBad
	allocateTooMuch
	reallocateSome
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

// verbs returns each verb as often as its weight says. Those of the model weigh 32.
func verbs(steps []Step) (table []verb) {
	for _, share := range []struct {
		verb   verb
		weight int
	}{
		{allocateSome, 8}, {freeSome, 5}, {reallocateSome, 5},
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

// pick chooses one of n things in order of age: half of the time the newest.
func (o operation) pick(n int) int {
	if o[1] >= 128 {
		return n - 1
	}
	return int(o[1]) % n
}

// size returns one of at least 1 byte, such that every power of two is as
// frequent as the next: most of them up to the usual size, some up to 16 KiB, a few
// up to 256 KiB, and never more than most.
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

// align returns a power of two, most of them up to usual and some up to 64 KiB,
// and never more than most, which is a power of two.
func (o operation) align(usual, most uintptr) uintptr {
	limit := usual
	if o[4] >= 248 {
		limit = 64 << 10
	}
	return min(1<<(int(o[4])%bits.Len(uint(limit))), most)
}

// decode takes as many operations from data as it holds.
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

// randomOperations returns the n operations that belong to seed.
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
