//go:build unix

package pages

import (
	"errors"
	"testing"
	"unsafe"
)

// kernelExtends says whether the kernel's way is to be had at all.
var kernelExtends = func() bool { return true }

// TestExtend tries both ways to pages behind a mapping: where others are mapped, and where nothing is.
func TestExtend(t *testing.T) {
	for name, extend := range map[string]func(p unsafe.Pointer, old, size uintptr) error{
		"the kernel's way": Extend, "by a hint": extendByHint,
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Map(4*Size, Size)
			if err != nil {
				t.Fatal(err)
			}
			*(*byte)(p) = 7
			// The page at the end of the four is given back last.
			if err := Unmap(unsafe.Add(p, Size), 2*Size); err != nil {
				t.Fatal(err)
			}
			if err := extend(p, Size, 4*Size); !errors.Is(err, ErrOccupied) {
				t.Errorf("into another mapping: error %v, want ErrOccupied", err)
			}
			if err := extend(p, Size, 3*Size); errors.Is(err, ErrOccupied) && name == "the kernel's way" && !kernelExtends() {
				t.Log("this kernel extends no mapping in place")
				return
			} else if err != nil {
				t.Fatal(err)
			}
			mem := unsafe.Slice((*byte)(p), 3*Size)
			if mem[0] != 7 || mem[Size] != 0 || mem[3*Size-1] != 0 {
				t.Errorf("the bytes are %d, %d and %d, want 7, 0 and 0", mem[0], mem[Size], mem[3*Size-1])
			}
			mem[3*Size-1] = 1
			if err := Unmap(p, 4*Size); err != nil {
				t.Error(err)
			}
		})
	}
}
