package shard

// Enter and Leave enclose what is done to a shard that nobody else writes:
//
//	if i := shard.Enter(); i < shard.Own {
//		n = shard.Add(&words[i], 1)
//	}
//	shard.Leave()
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
