package blockalloc_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// These stand for a program, and are what stacks must name.

//go:noinline
func debugMaker(d blockalloc.Allocator, size uintptr) blockalloc.Block {
	b, err := d.Allocate(blockalloc.Layout{Size: size, Align: 8})
	if err != nil {
		panic(err)
	}
	return b
}

//go:noinline
func debugOwner(d blockalloc.Allocator, b blockalloc.Block) error { return d.Free(b) }

//go:noinline
func debugIntruder(d blockalloc.Allocator, b blockalloc.Block) error { return d.Free(b) }

//go:noinline
func debugMover(d blockalloc.Allocator, b blockalloc.Block, size uintptr) error {
	_, err := d.Reallocate(b, size)
	return err
}

//go:noinline
func debugWriter(b blockalloc.Block, offset int) { beyond(b, offset, 1)[0] = 'A' }

var (
	addresses = regexp.MustCompile(`0x[0-9a-f]+`)
	lines     = regexp.MustCompile(`\.go:[0-9]+ `)
	ours      = regexp.MustCompile(`(?m)^\t\tdebug_report_test.go:LINE blockalloc_test.TestDebugReports[.0-9a-z]*\n?`)
)

// stable leaves out of a report what differs from run to run, and the frames of the
// test itself.
func stable(err error) string {
	if err == nil {
		return "no error"
	}
	text := addresses.ReplaceAllString(err.Error(), "ADDR")
	text = lines.ReplaceAllString(text, ".go:LINE ")
	return strings.TrimSuffix(ours.ReplaceAllString(text, ""), "\n")
}

// TestDebugReports compares whole reports.
func TestDebugReports(t *testing.T) {
	for _, c := range []struct {
		name  string
		guard bool
		run   func(d *blockalloc.Debug) error
		want  string
	}{
		{"double free", false, func(d *blockalloc.Debug) error {
			b := debugMaker(d, 64)
			_ = debugOwner(d, b)
			return debugIntruder(d, b)
		}, `blockalloc: Debug.Free(block ADDR of 64 B aligned to 8): block already freed: free a block once
	allocated by
		debug_report_test.go:LINE blockalloc_test.debugMaker
	freed first by
		debug_report_test.go:LINE blockalloc_test.debugOwner
	freed again by
		debug_report_test.go:LINE blockalloc_test.debugIntruder`},
		{"through wrappers of this package", false, func(d *blockalloc.Debug) error {
			l := blockalloc.NewLocked(blockalloc.NewLimit(d, 1<<20))
			b := debugMaker(l, 64)
			_ = debugOwner(l, b)
			return debugIntruder(l, b)
		}, `blockalloc: Debug.Free(block ADDR of 64 B aligned to 8): block already freed: free a block once
	allocated by
		debug_report_test.go:LINE blockalloc_test.debugMaker
	freed first by
		debug_report_test.go:LINE blockalloc_test.debugOwner
	freed again by
		debug_report_test.go:LINE blockalloc_test.debugIntruder`},
		{"free of a part of what was freed", false, func(d *blockalloc.Debug) error {
			b := debugMaker(d, 64)
			_ = debugMover(d, b, 0)
			part, _ := blockalloc.FromRaw(b.Pointer(), blockalloc.BlockLayout(8))
			return debugIntruder(d, part)
		}, `blockalloc: Debug.Free(block ADDR of 8 B aligned to 8): block already freed: it was block ADDR of 64 B aligned to 8: free a block once
	allocated by
		debug_report_test.go:LINE blockalloc_test.debugMaker
	freed first by
		debug_report_test.go:LINE blockalloc_test.debugMover
	freed again by
		debug_report_test.go:LINE blockalloc_test.debugIntruder`},
		{"realloc of a freed block", false, func(d *blockalloc.Debug) error {
			b := debugMaker(d, 64)
			_ = debugOwner(d, b)
			return debugMover(d, b, 100)
		}, `blockalloc: Debug.Reallocate(block ADDR of 64 B aligned to 8): block already freed: free a block once
	allocated by
		debug_report_test.go:LINE blockalloc_test.debugMaker
	freed first by
		debug_report_test.go:LINE blockalloc_test.debugOwner
	reallocated by
		debug_report_test.go:LINE blockalloc_test.debugMover`},
		{"foreign free", false, func(d *blockalloc.Debug) error {
			return debugIntruder(d, debugMaker(new(blockalloc.Heap), 64))
		}, `blockalloc: Debug.Free(block ADDR of 64 B aligned to 8): block not owned by this allocator: it was not allocated here, or freed long ago: free a block with the allocator it came from
	freed now by
		debug_report_test.go:LINE blockalloc_test.debugIntruder`},
		{"wrong-size free", false, func(d *blockalloc.Debug) error {
			b := debugMaker(d, 64)
			b, _ = blockalloc.FromRaw(b.Pointer(), blockalloc.BlockLayout(8))
			return debugIntruder(d, b)
		}, `blockalloc: Debug.Free(block ADDR of 8 B aligned to 8): block not owned by this allocator: the block at this address has 64 B: free the Block that was allocated
	allocated by
		debug_report_test.go:LINE blockalloc_test.debugMaker
	freed now by
		debug_report_test.go:LINE blockalloc_test.debugIntruder`},
		{"interior realloc", false, func(d *blockalloc.Debug) error {
			b, _ := at(debugMaker(d, 64), 8)
			return debugMover(d, b, 100)
		}, `blockalloc: Debug.Reallocate(block ADDR of 8 B aligned to 1): block not owned by this allocator: it begins at byte 8 of block ADDR of 64 B aligned to 8: free the Block that was allocated
	allocated by
		debug_report_test.go:LINE blockalloc_test.debugMaker
	reallocated now by
		debug_report_test.go:LINE blockalloc_test.debugMover`},
		{"overrun", false, func(d *blockalloc.Debug) error {
			b := debugMaker(d, 64)
			debugWriter(b, 66)
			debugWriter(b, 70)
			return debugOwner(d, b)
		}, `blockalloc: Debug.Free: access past the end of a block: at byte 66 of block ADDR of 64 B aligned to 8: 5 B are wrong, 41 8f d3 a9 41 instead of e5 8f d3 a9 f1
	allocated by
		debug_report_test.go:LINE blockalloc_test.debugMaker
	freed now by
		debug_report_test.go:LINE blockalloc_test.debugOwner`},
		{"underrun", false, func(d *blockalloc.Debug) error {
			b := debugMaker(d, 64)
			debugWriter(b, -1)
			return debugMover(d, b, 8)
		}, `blockalloc: Debug.Reallocate: access before the start of a block: at byte -1 of block ADDR of 64 B aligned to 8: 1 B is wrong, 41 instead of cb
	allocated by
		debug_report_test.go:LINE blockalloc_test.debugMaker
	reallocated now by
		debug_report_test.go:LINE blockalloc_test.debugMover`},
		{"write after free", false, func(d *blockalloc.Debug) error {
			b := debugMaker(d, 64)
			_ = debugOwner(d, b)
			for i := range 64 {
				debugWriter(b, i)
			}
			return d.Check()
		}, `blockalloc: Debug.Check: block used after it was freed: at byte 0 of block ADDR of 64 B aligned to 8: 64 B are wrong, 41 41 41 41 41 41 41 41 instead of dd dd dd dd dd dd dd dd
	allocated by
		debug_report_test.go:LINE blockalloc_test.debugMaker
	freed by
		debug_report_test.go:LINE blockalloc_test.debugOwner
	found by`},
		{"write after free, found on leaving quarantine", false, func(d *blockalloc.Debug) error {
			b := debugMaker(d, 64)
			_ = debugOwner(d, b)
			debugWriter(b, 63)
			mustFree(t, d, mustAllocate(t, d, 8, 8))
			return d.Check()
		}, `blockalloc: Debug: block used after it was freed: at byte 63 of block ADDR of 64 B aligned to 8: 1 B is wrong, 41 instead of dd
	allocated by
		debug_report_test.go:LINE blockalloc_test.debugMaker
	freed by
		debug_report_test.go:LINE blockalloc_test.debugOwner`},
		{"leaks", false, func(d *blockalloc.Debug) error {
			b := debugMaker(d, 999)
			for i := range 3 {
				debugMaker(d, uintptr(1000*i+8))
			}
			_ = debugMover(d, b, 10)
			return d.Close()
		}, `blockalloc: Debug.Close: blocks are still live: 4 of them, 3034 bytes in all: free them first
blockalloc: Debug.Close: blocks are still live: 3 of them, 3024 bytes in all, the first of them block ADDR of 8 B aligned to 8
	allocated by
		debug_report_test.go:LINE blockalloc_test.debugMaker
blockalloc: Debug.Close: blocks are still live: 1 of them, 10 bytes in all, the first of them block ADDR of 10 B aligned to 8
	allocated by
		debug_report_test.go:LINE blockalloc_test.debugMover`},
		{"fault past the end", true, func(d *blockalloc.Debug) error {
			b := debugMaker(d, 64)
			return d.Catch(func() { debugWriter(b, 64) })
		}, `blockalloc: Debug.Catch: access past the end of a block: at byte 64 of block ADDR of 64 B aligned to 8
	allocated by
		debug_report_test.go:LINE blockalloc_test.debugMaker
	accessed by
		debug_report_test.go:LINE blockalloc_test.debugWriter`},
		{"fault after free", true, func(d *blockalloc.Debug) error {
			b := debugMaker(d, 64)
			_ = debugOwner(d, b)
			return d.Catch(func() { debugWriter(b, 10) })
		}, `blockalloc: Debug.Catch: block used after it was freed: at byte 10 of block ADDR of 64 B aligned to 8
	allocated by
		debug_report_test.go:LINE blockalloc_test.debugMaker
	freed by
		debug_report_test.go:LINE blockalloc_test.debugOwner
	accessed by
		debug_report_test.go:LINE blockalloc_test.debugWriter`},
	} {
		if c.guard && !hasSystem {
			continue
		}
		d := blockalloc.NewDebug(new(blockalloc.Heap), blockalloc.DebugOptions{Guard: c.guard, QuarantineBlocks: 1})
		err := c.run(d)
		if got := stable(err); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
		var r *blockalloc.DebugReport
		if !errors.As(err, &r) || !errors.Is(err, r.Unwrap()) {
			t.Errorf("%s: there is no report in %v", c.name, err)
		}
	}
}

func at(b blockalloc.Block, offset int) (blockalloc.Block, error) {
	return blockalloc.FromRaw(beyondPointer(b, offset), blockalloc.Layout{Size: 8, Align: 1})
}

// TestDebugStack: as many frames are kept as was asked for, and none if none are.
func TestDebugStack(t *testing.T) {
	for depth, want := range map[int]int{-1: 0, 0: 16, 1: 1, 3: 3, 64: 64, 1000: 64} {
		d := blockalloc.NewDebug(new(blockalloc.Heap), blockalloc.DebugOptions{Stack: depth})
		var b blockalloc.Block
		deep(100, func() { b = mustAllocate(t, d, 8, 8) })
		mustFree(t, d, b)
		var r *blockalloc.DebugReport
		if err := d.Free(b); !errors.As(err, &r) || len(r.Allocated) != want {
			t.Errorf("Stack %d: %d frames, want %d", depth, len(r.Allocated), want)
		}
		if text := r.Error(); strings.Contains(text, "allocated by") != (want > 0) {
			t.Errorf("Stack %d: %s", depth, text)
		}
		mustClose(t, d)
	}
}

//go:noinline
func deep(n int, f func()) {
	if n == 0 {
		f()
		return
	}
	deep(n-1, f)
}

// TestDebugBoundsReports: Close names twenty call stacks and says how many more there
// are, and a hundred findings are kept.
func TestDebugBoundsReports(t *testing.T) {
	told := 0
	d := blockalloc.NewDebug(new(blockalloc.Heap), blockalloc.DebugOptions{Stack: 64, Report: func(*blockalloc.DebugReport) { told++ }})
	var blocks []blockalloc.Block
	for i := range 30 {
		deep(i, func() { // a stack of its own
			blocks = append(blocks, mustAllocate(t, d, uintptr(i+1), 1))
		})
	}
	err := d.Close()
	text := err.Error()
	if n := strings.Count(text, "the first of them"); n != 20 || told != 30 || !strings.Contains(text, "30 of them, 465 bytes in all") || !strings.Contains(text, "allocated in 10 more places") {
		t.Errorf("%d call stacks, and %d told, want 20 and 30:\n%s", n, told, text)
	}
	for _, b := range blocks {
		mustFree(t, d, b)
	}
	mustClose(t, d)

	told = 0
	d = blockalloc.NewDebug(new(blockalloc.Heap), blockalloc.DebugOptions{Stack: -1, Report: func(*blockalloc.DebugReport) { told++ }})
	for range 130 {
		b := mustAllocate(t, d, 8, 8)
		mustFree(t, d, b)
		b.Bytes()[0] = 1
	}
	for range 2 { // what is found is told of until Close
		if n := len(reportsOf(d.Check())); n != 100 || told != 130 {
			t.Errorf("Check returns %d reports and %d were told, want 100 and 130", n, told)
		}
	}
	if err := d.Close(); !strings.Contains(err.Error(), "30 more blocks were used after they were freed") {
		t.Errorf("Close: %.200v", err)
	}
	mustClose(t, d)
}

func TestDebugKinds(t *testing.T) {
	seen := make(map[string]bool)
	for k := blockalloc.DebugDoubleFree; k <= blockalloc.DebugLeak; k++ {
		if name := k.String(); seen[name] || strings.HasPrefix(name, "DebugKind") {
			t.Errorf("kind %d is called %q", int(k), name)
		}
		seen[k.String()] = true
	}
	if got := fmt.Sprint(blockalloc.DebugKind(99), blockalloc.DebugKind(-1)); got != "DebugKind(99) DebugKind(-1)" {
		t.Error(got)
	}
}
