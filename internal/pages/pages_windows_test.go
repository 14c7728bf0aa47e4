package pages

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/windows"
)

// TestMapWays tries both ways to an aligned region, whichever of them this
// Windows makes Map take.
func TestMapWays(t *testing.T) {
	ways := map[string]func(size, align uintptr, kind uint32) (unsafe.Pointer, error){"reserveAgain": reserveAgain}
	if hasVirtualAlloc2() {
		ways["virtualAlloc2"] = virtualAlloc2
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			for _, align := range []uintptr{64 << 10, 1 << 20, 16 << 20} {
				p, err := way(4096, align, windows.MEM_RESERVE|windows.MEM_COMMIT)
				if err != nil {
					t.Fatalf("alignment %d: %v", align, err)
				}
				if uintptr(p)&(align-1) != 0 {
					t.Errorf("address %p is not a multiple of %d", p, align)
				}
				*(*byte)(p) = 1
				if err := Unmap(p, 4096); err != nil {
					t.Errorf("alignment %d: %v", align, err)
				}
			}
		})
	}
}
