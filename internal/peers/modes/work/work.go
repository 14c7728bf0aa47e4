// Package work counts and walks stacks in a program, and checks what came out.
package work

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/callers"
	"github.com/alloctrace/alloctrace/internal/ways"
)

// Do has 4 goroutines count n blocks each in c, while the garbage collector runs.
func Do(c *counter.Counter, n int) error {
	var stop atomic.Bool
	var collecting, working sync.WaitGroup
	collecting.Go(func() {
		for !stop.Load() {
			runtime.GC()
		}
	})
	errs := make([]error, 4)
	for i := range errs {
		working.Go(func() { errs[i] = Count(c, n) })
	}
	working.Wait()
	stop.Store(true)
	collecting.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Count counts n blocks in c, and looks at its stack after each 64 of them.
func Count(c *counter.Counter, n int) error {
	for i := range n {
		c.Allocate(4096, 4096)
		c.Reallocate(4096, 4096, 100, 128)
		c.Free(100, 128)
		if i%64 != 0 {
			continue
		}
		var pcs [32]uintptr
		frames := runtime.CallersFrames(pcs[:callers.Stack(pcs[:])])
		if f, _ := frames.Next(); !strings.HasSuffix(f.Function, "work.Count") {
			return fmt.Errorf("work.Count: its own frame is %q", f.Function)
		}
	}
	return nil
}

// Check returns the ways that the program goes, and an error if c has not counted n blocks.
func Check(c *counter.Counter, n int64) (string, error) {
	s := c.Stats()
	if s.Allocations != n || s.Reallocations != n || s.Frees != n || s.LiveBytes != 0 || s.RequestedBytes != 4196*n || s.AllocatedBytes != 4224*n {
		return "", fmt.Errorf("work.Check: %v; %d bytes requested; want %d blocks", s, s.RequestedBytes, n)
	}
	return ways.String(), nil
}
