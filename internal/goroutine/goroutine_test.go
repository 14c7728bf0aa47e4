package goroutine_test

import (
	"runtime"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace/internal/goroutine"
)

// TestID: goroutines that run at once have different numbers, and each keeps its own while
// its stack moves and it changes processors.
func TestID(t *testing.T) {
	const goroutines = 100
	var started, checked sync.WaitGroup
	started.Add(goroutines)
	ids := make([]uintptr, goroutines)
	for i := range ids {
		checked.Go(func() {
			ids[i] = goroutine.ID()
			started.Done()
			started.Wait()
			for depth := range 100 {
				runtime.Gosched()
				if got := deeper(depth); got != ids[i] {
					t.Errorf("a goroutine has the number %#x, and then %#x", ids[i], got)
					return
				}
			}
		})
	}
	checked.Wait()
	seen := make(map[uintptr]bool)
	for _, id := range ids {
		seen[id] = true
	}
	known := runtime.Compiler == "gc" && (runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64")
	if known && (len(seen) != goroutines || seen[0]) || !known && (len(seen) != 1 || !seen[0]) {
		t.Errorf("%d goroutines have %d numbers, 0 among them: %t", goroutines, len(seen), seen[0])
	}
}

//go:noinline
func deeper(depth int) uintptr {
	var frame [512]byte
	if depth > 0 {
		frame[depth%len(frame)]++
		return deeper(depth-1) + uintptr(frame[0])*0
	}
	return goroutine.ID()
}

// TestDepth: the stack of a goroutine begins small, and grows by what calls take.
func TestDepth(t *testing.T) {
	var first, last uintptr
	var wg sync.WaitGroup
	wg.Go(func() {
		first = goroutine.Depth()
		last = depthOf(2000)
	})
	wg.Wait()
	if first == 0 && last == 0 && (runtime.Compiler != "gc" || runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64") {
		return
	}
	if first < 16 || first > 16<<10 || last < 2000*512 || last > 2000*4096 {
		t.Errorf("a goroutine uses %d bytes of stack, and 2000 calls deep %d", first, last)
	}
}

//go:noinline
func depthOf(calls int) uintptr {
	var frame [512]byte
	if calls > 0 {
		frame[calls%len(frame)]++
		return depthOf(calls-1) + uintptr(frame[0])*0
	}
	return goroutine.Depth()
}
