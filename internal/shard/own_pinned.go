//go:build gc && !race && !alloctrace_nolinkname && (amd64 || arm64)

package shard

import (
	"runtime"
	_ "unsafe" // for linkname
)

// Exclusive is whether nobody else writes the caller's shard between [Enter] and
// [Leave].
const Exclusive = true

// Own is how many shards there are for [Enter].
var Own = max(runtime.GOMAXPROCS(0), runtime.NumCPU())

// Enter returns the number of the caller's shard. Until it calls Leave the caller
// keeps its processor, and must not block, panic or take long. The number is Own or
// more, and the caller has no shard, where GOMAXPROCS was raised beyond what it was
// at the start and the number of processors.
func Enter() int { return procPin() }

// Leave ends what Enter began.
func Leave() { procUnpin() }

// The runtime keeps both as they are for those that link to them, as its source says.
// See go.dev/issue/67401.

//go:linkname procPin runtime.procPin
func procPin() int

//go:linkname procUnpin runtime.procUnpin
func procUnpin()
