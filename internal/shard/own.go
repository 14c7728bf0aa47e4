package shard

// A Proc is the processor that a goroutine keeps from [Pin] to Unpin. Both enclose
// what is done to a shard that nobody else writes:
//
//	p := shard.Pin()
//	if i := p.Index; i < shard.NumProcs {
//		n = p.Add(&words[i], 1)
//	}
//	p.Unpin()
//
// Nothing that was computed from a Proc outlives Unpin, after which the goroutine may be
// on another processor: neither the index, nor a pointer to a word of the shard. A
// function that unpins its caller's Proc therefore returns the Proc that the caller has
// from then on.
//
// Others may load meanwhile what Add writes. Where the Go runtime can be asked to keep
// a goroutine on its processor, there is a shard for each processor, and Add adds
// without an atomic operation: all three cost half of one. Elsewhere shards are
// picked by the address of the stack, as a [Picker] does, and additions are atomic:
// under the race detector, which cannot know that nobody else writes; with other
// compilers than gc; on processors where this was not tried; and with the build tag
// alloctrace_nolinkname.
//
// Memory ordering: others see what a goroutine adds in the order in which it does,
// and before whatever it does next to let them know. amd64 stores in order anyway. On
// arm64 Add stores atomically, which goes with the atomic loads of others.
type Proc struct {
	// Index is the number of the caller's shard. It is [NumProcs] or more, and the caller has no
	// shard, where GOMAXPROCS was raised beyond what it was at the start and the number of
	// processors.
	Index int
}
