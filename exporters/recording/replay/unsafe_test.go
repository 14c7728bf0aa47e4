package replay_test

import (
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

func addOne(b blockalloc.Block) unsafe.Pointer { return unsafe.Add(b.Pointer(), 1) }
