//go:build linux || windows

package reach

import (
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"unsafe"
)

// Variables of each kind that linkers keep apart.
var (
	pointed      = new(int)
	pointedZero  *int
	pointless    = [2]uintptr{1, 2}
	pointlessBig [1 << 20]uintptr
)

// TestProgramAround: around variables with pointers are those without, and neither code nor constants.
func TestProgramAround(t *testing.T) {
	low := uintptr(unsafe.Pointer(&pointed))
	high := uintptr(unsafe.Pointer(&pointedZero))
	low, high = min(low, high), max(low, high)+wordSize
	before, behind := programAround(low, high)
	for name, at := range map[string]struct {
		addr uintptr
		want bool
	}{
		"variable":      {uintptr(unsafe.Pointer(&pointless)), true},
		"zero variable": {uintptr(unsafe.Pointer(&pointlessBig)), true},
		"its last word": {uintptr(unsafe.Pointer(&pointlessBig[len(pointlessBig)-1])), true},
		"code":          {reflect.ValueOf(TestProgramAround).Pointer(), false},
		"constant":      {uintptr(unsafe.Pointer(unsafe.StringData("a constant of this test"))), false},
	} {
		if got := low-before <= at.addr && at.addr < high+behind; got != at.want {
			t.Errorf("%s at %#x, in what is around %#x to %#x, which is from %#x to %#x: %t, want %t", name, at.addr, low, high, low-before, high+behind, got, at.want)
		}
	}
}

// TestBeside: what is beside two bytes are those up to the next gap, byte by byte.
func TestBeside(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		var in [64]bool
		regions := make(map[uintptr]uintptr)
		for at := 1; at < len(in); {
			end := min(at+1+rnd.IntN(10), len(in))
			if rnd.IntN(4) > 0 {
				regions[uintptr(at)] = uintptr(end)
				for i := at; i < end; i++ {
					in[i] = true
				}
			}
			at = end
		}
		low := 1 + rnd.IntN(len(in)-1)
		high := low + rnd.IntN(len(in)-low)
		var before, behind uintptr
		for i := low; in[low] && in[i-1]; i-- {
			before++
		}
		for i := high; in[high-1] && i < len(in) && in[i]; i++ {
			behind++
		}
		gotBefore, gotBehind := beside(uintptr(low), uintptr(high), func(yield func(begin, end uintptr) bool) {
			for _, begin := range slices.Sorted(maps.Keys(regions)) {
				if !yield(begin, regions[begin]) {
					return
				}
			}
		})
		if gotBefore != before || gotBehind != behind {
			t.Fatalf("beside %d to %d in %v: %d and %d, want %d and %d", low, high, regions, gotBefore, gotBehind, before, behind)
		}
	}
}
