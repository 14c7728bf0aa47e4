//go:build (unix || windows) && !race

package blockalloc

import (
	"math/bits"
	"testing"
	"unsafe"
)

// TestPoolOverhead holds the doc comment of Pool against what a Pool and a run take on the Go heap.
func TestPoolOverhead(t *testing.T) {
	if bits.UintSize != 64 {
		t.Skip("the doc comment's figures are those of 64 bits")
	}
	if pool, run := unsafe.Sizeof(Pool{}), unsafe.Sizeof(run{}); pool > 36<<10 || run != 640 {
		t.Errorf("a Pool takes %d bytes and a run %d: the doc comment says 36 KiB and 640 B", pool, run)
	}
}
