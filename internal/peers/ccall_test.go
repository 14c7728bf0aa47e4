//go:build cgo && unix

package peers

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/callers"
	"github.com/alloctrace/alloctrace/internal/peers/ccall"
)

// TestStackThroughC: where C code with other things in the frame pointer has called Go,
// the walk by frame pointers finds those up to there, and reads nothing that is not the
// goroutine's stack.
func TestStackThroughC(t *testing.T) {
	var local [4]uint64
	heap := make([]uint64, 1<<10)
	values := []uint64{
		0, 1, 8, 1 << 20, 1 << 47, 1<<64 - 8, 1<<64 - 1,
		uint64(uintptr(unsafe.Pointer(&local))), uint64(uintptr(unsafe.Pointer(&local))) + 1,
		uint64(uintptr(unsafe.Pointer(&heap[0]))),
	}
	for range 1000 {
		values = append(values, rand.Uint64(), uint64(uintptr(unsafe.Pointer(&local)))+rand.Uint64N(1<<14))
	}
	for _, framePointer := range values {
		ccall.Call(framePointer, func() {
			var pcs [64]uintptr
			n := callers.Stack(pcs[:])
			if names := callers.Frames(pcs[:n]); n == 0 || !strings.Contains(names[0].Function, "TestStackThroughC.func") {
				t.Errorf("with %#x: %d frames, %v", framePointer, n, names)
			}
		})
	}
}
