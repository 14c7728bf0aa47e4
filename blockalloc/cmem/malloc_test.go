package cmem_test

import (
	"errors"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
	"github.com/alloctrace/alloctrace/blockalloc/cmem"
)

// supported says whether there is a C heap.
var supported = func() bool {
	_, err := new(cmem.Malloc).Allocate(blockalloc.BlockLayout(1))
	return !errors.Is(err, errors.ErrUnsupported)
}()

func TestMallocConforms(t *testing.T) {
	if !supported {
		return
	}
	blocktest.Run(t, blocktest.Config{New: func(testing.TB) blockalloc.Allocator { return new(cmem.Malloc) }})
}
