package debug_test

import (
	"errors"
	"os"
	"runtime"
	runtimedebug "runtime/debug"
	"strings"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/internal/process"
)

// TestCatchPassesOn what is none of its business, as it was.
func TestCatchPassesOn(t *testing.T) {
	d := debug.New(new(blockalloc.Heap), debug.Options{Guard: true})
	value := errors.New("unlucky")
	panics := func(f func()) (r any) {
		defer func() { r = recover() }()
		if err := d.Catch(f); err != nil {
			t.Errorf("Catch: %v", err)
		}
		return nil
	}
	if r := panics(func() { panic(value) }); r != any(value) {
		t.Errorf("panic %v, want %v", r, value)
	}
	var nobody *[10]int
	if r, ok := panics(func() { nobody[3] = 1 }).(runtime.Error); !ok || !strings.Contains(r.Error(), "nil pointer") {
		t.Errorf("panic %v, want a nil dereference", r)
	}
	if r := panics(func() {}); r != nil {
		t.Errorf("panic %v, want none", r)
	}
	if hasGuards { // another Allocator's fault
		other := debug.New(blockalloc.Null{}, debug.Options{Guard: true})
		b := mustAllocate(t, other, 64, 64)
		r := panics(func() { beyond(b, 64, 1)[0] = 1 })
		fault, ok := r.(interface{ Addr() uintptr })
		if !ok || fault.Addr() != b.Addr()+64 {
			t.Fatalf("panic %v, want a fault at the end of %v", r, b)
		}
		if err := d.Fault(fault.Addr()); err != nil {
			t.Errorf("Fault of another's block: %v", err)
		}
		if err := other.Fault(fault.Addr()); !errors.Is(err, blockalloc.ErrOverrun) {
			t.Errorf("Fault: %v, want ErrOverrun", err)
		}
		// One within the other: the inner does not know the block, the outer does.
		err := other.Catch(func() { _ = d.Catch(func() { beyond(b, 64, 1)[0] = 1 }) })
		if !errors.Is(err, blockalloc.ErrOverrun) {
			t.Errorf("Catch around another Allocator's: %v, want ErrOverrun", err)
		}
		if err := other.Fault(b.Addr()); err != nil {
			t.Errorf("Fault of a byte that is accessible: %v", err)
		}
		mustFree(t, other, b)
		mustClose(t, other)
	}
	var done sync.WaitGroup
	done.Go(func() { // Goexit ends the goroutine, and Catch is not in its way
		_ = d.Catch(runtime.Goexit)
		t.Error("Goexit was caught")
	})
	done.Wait()
	mustClose(t, d)
}

// TestCatchRestores: whether faults panic is as it was afterwards, and deferred
// functions ran.
func TestCatchRestores(t *testing.T) {
	if !hasGuards {
		return
	}
	defer runtimedebug.SetPanicOnFault(runtimedebug.SetPanicOnFault(false))
	d := debug.New(blockalloc.Null{}, debug.Options{Guard: true})
	b := mustAllocate(t, d, 64, 64)
	for _, was := range []bool{false, true} {
		runtimedebug.SetPanicOnFault(was)
		deferred := false
		err := d.Catch(func() {
			defer func() { deferred = true }()
			beyond(b, 64, 1)[0] = 1
			t.Error("there was no fault")
		})
		if err == nil || !deferred {
			t.Errorf("Catch: %v, deferred functions ran: %t", err, deferred)
		}
		if now := runtimedebug.SetPanicOnFault(was); now != was {
			t.Errorf("SetPanicOnFault is %t, was %t", now, was)
		}
	}
	mustFree(t, d, b)
	mustClose(t, d)
}

// TestSealedBlocksHaveNoMemory: what a block held is gone once it is freed.
func TestSealedBlocksHaveNoMemory(t *testing.T) {
	if !hasGuards {
		return
	}
	d := debug.New(blockalloc.Null{}, debug.Options{Guard: true, ZeroFree: true, QuarantineBlocks: 100})
	var blocks []blockalloc.Block
	for i := range 100 {
		b := mustAllocate(t, d, uintptr(1+100*i), 1)
		mustFree(t, d, b)
		blocks = append(blocks, b)
	}
	for i, b := range blocks {
		if err := d.Catch(func() { _ = string(b.Bytes()) }); !errors.Is(err, blockalloc.ErrUseAfterFree) {
			t.Errorf("block %d: %v", i, err)
		}
	}
	mustClose(t, d)
}

// TestWithoutCatch: a fault ends the program with an address, as the doc comment
// says.
func TestWithoutCatch(t *testing.T) {
	if !hasGuards {
		return
	}
	const variable = "ALLOCTRACE_TEST_FAULT"
	if os.Getenv(variable) != "" {
		d := debug.New(blockalloc.Null{}, debug.Options{Guard: true})
		b := mustAllocate(t, d, 64, 64)
		beyond(b, 64, 1)[0] = 1
		return
	}
	if !process.CanStart(t) {
		return
	}
	out, err := process.Again(t, variable+"=1").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "unexpected fault address 0x") || !strings.Contains(string(out), "TestWithoutCatch") {
		t.Errorf("%v:\n%s", err, out)
	}
}
