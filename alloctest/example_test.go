package alloctest_test

import (
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
)

func fill(mem *alloctrace.Proxy) (blockalloc.Block, error) {
	return mem.Allocate(blockalloc.BlockLayout(4096))
}

func TestCache(t *testing.T) {
	mem := alloctest.New(t) // at its end the test fails if blocks are live
	page, err := fill(mem)
	alloctest.AssertLive(t, mem, 4096, 1)
	if err != nil || mem.Free(page) != nil {
		t.Error("the page is not there, or cannot be freed")
	}
}
