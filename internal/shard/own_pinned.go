//go:build gc && !race && !alloctrace_nolinkname && (amd64 || arm64)

package shard

import (
	"runtime"
	_ "unsafe" // for linkname
)

// Pinned is whether nobody else writes the caller's shard between [Pin] and
// Unpin.
const Pinned = true

// NumProcs is how many shards there are for [Pin].
var NumProcs = max(runtime.GOMAXPROCS(0), runtime.NumCPU())

// Pin keeps the caller on its processor until it calls Unpin. Until then the caller must
// not block, panic or take long.
func Pin() Proc { return Proc{procPin()} }

// Unpin ends what [Pin] began.
func (Proc) Unpin() { procUnpin() }

// The runtime keeps both as they are for those that link to them, as its source says.
// See go.dev/issue/67401.

//go:linkname procPin runtime.procPin
func procPin() int

//go:linkname procUnpin runtime.procUnpin
func procUnpin()
