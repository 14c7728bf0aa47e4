package cmem_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/cmem"
)

// TestElsewhere: without C each request is refused, with the remedy.
func TestElsewhere(t *testing.T) {
	if supported {
		return
	}
	m := new(cmem.Malloc)
	_, err := m.Allocate(blockalloc.BlockLayout(64))
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "use blockalloc.Default()") {
		t.Errorf("Allocate: error %v", err)
	}
	b, err := new(blockalloc.Heap).Allocate(blockalloc.BlockLayout(64))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Free(b); !errors.Is(err, blockalloc.ErrNotOwned) {
		t.Errorf("Free of a foreign block: %v", err)
	}
}
