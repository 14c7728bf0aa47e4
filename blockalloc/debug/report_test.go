package debug_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
)

// These stand for a program, and are what stacks must name.

//go:noinline
func maker(d blockalloc.Allocator, size uintptr) blockalloc.Block {
	b, err := d.Allocate(blockalloc.Layout{Size: size, Align: 8})
	if err != nil {
		panic(err)
	}
	return b
}

//go:noinline
func owner(d blockalloc.Allocator, b blockalloc.Block) error { return d.Free(b) }

//go:noinline
func intruder(d blockalloc.Allocator, b blockalloc.Block) error { return d.Free(b) }

//go:noinline
func mover(d blockalloc.Allocator, b blockalloc.Block, size uintptr) error {
	_, err := d.Reallocate(b, size)
	return err
}

//go:noinline
func writer(b blockalloc.Block, offset int) { beyond(b, offset, 1)[0] = 'A' }

var (
	addresses = regexp.MustCompile(`0x[0-9a-f]+`)
	lines     = regexp.MustCompile(`\.go:[0-9]+ `)
	ours      = regexp.MustCompile(`(?m)^\t\treport_test.go:LINE debug_test.TestReports[.0-9a-z]*\n?`)
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

var oneFrame = regexp.MustCompile(`(?m)^\t([a-z ]+ by) (\w+)$`)

// TestReports compares whole reports. What is wanted has a stack of one frame on one line: "freed by owner".
func TestReports(t *testing.T) {
	for _, c := range []struct {
		name  string
		guard bool
		run   func(d *debug.Allocator) error
		want  string
	}{
		{"double free", false, func(d *debug.Allocator) error {
			b := maker(d, 64)
			_ = owner(d, b)
			return intruder(d, b)
		}, `debug: Free(block ADDR of 64 B aligned to 8): block already freed: free a block once
	allocated by maker
	freed first by owner
	freed again by intruder`},
		{"through wrappers of this package", false, func(d *debug.Allocator) error {
			l := blockalloc.NewLocked(blockalloc.NewLimit(d, 1<<20))
			b := maker(l, 64)
			_ = owner(l, b)
			return intruder(l, b)
		}, `debug: Free(block ADDR of 64 B aligned to 8): block already freed: free a block once
	allocated by maker
	freed first by owner
	freed again by intruder`},
		{"free of a part of what was freed", false, func(d *debug.Allocator) error {
			b := maker(d, 64)
			_ = mover(d, b, 0)
			part, _ := blockalloc.FromRaw(b.Pointer(), blockalloc.BlockLayout(8))
			return intruder(d, part)
		}, `debug: Free(block ADDR of 8 B aligned to 8): block already freed: it was block ADDR of 64 B aligned to 8: free a block once
	allocated by maker
	freed first by mover
	freed again by intruder`},
		{"realloc of a freed block", false, func(d *debug.Allocator) error {
			b := maker(d, 64)
			_ = owner(d, b)
			return mover(d, b, 100)
		}, `debug: Reallocate(block ADDR of 64 B aligned to 8): block already freed: free a block once
	allocated by maker
	freed first by owner
	reallocated by mover`},
		{"foreign free", false, func(d *debug.Allocator) error {
			return intruder(d, maker(new(blockalloc.Heap), 64))
		}, `debug: Free(block ADDR of 64 B aligned to 8): block not owned by this allocator: it was not allocated here, or freed long ago: free a block with the allocator it came from
	freed now by intruder`},
		{"wrong-size free", false, func(d *debug.Allocator) error {
			b := maker(d, 64)
			b, _ = blockalloc.FromRaw(b.Pointer(), blockalloc.BlockLayout(8))
			return intruder(d, b)
		}, `debug: Free(block ADDR of 8 B aligned to 8): block not owned by this allocator: the block at this address has 64 B: free the Block that was allocated
	allocated by maker
	freed now by intruder`},
		{"interior realloc", false, func(d *debug.Allocator) error {
			b, _ := at(maker(d, 64), 8)
			return mover(d, b, 100)
		}, `debug: Reallocate(block ADDR of 8 B aligned to 1): block not owned by this allocator: it begins at byte 8 of block ADDR of 64 B aligned to 8: free the Block that was allocated
	allocated by maker
	reallocated now by mover`},
		{"overrun", false, func(d *debug.Allocator) error {
			b := maker(d, 64)
			writer(b, 66)
			writer(b, 70)
			return owner(d, b)
		}, `debug: Free: access past the end of a block: at byte 66 of block ADDR of 64 B aligned to 8: 5 B are wrong, 41 8f d3 a9 41 instead of e5 8f d3 a9 f1
	allocated by maker
	freed now by owner`},
		{"underrun", false, func(d *debug.Allocator) error {
			b := maker(d, 64)
			writer(b, -1)
			return mover(d, b, 8)
		}, `debug: Reallocate: access before the start of a block: at byte -1 of block ADDR of 64 B aligned to 8: 1 B is wrong, 41 instead of cb
	allocated by maker
	reallocated now by mover`},
		{"write after free", false, func(d *debug.Allocator) error {
			b := maker(d, 64)
			_ = owner(d, b)
			for i := range 64 {
				writer(b, i)
			}
			return d.Check()
		}, `debug: Check: block used after it was freed: at byte 0 of block ADDR of 64 B aligned to 8: 64 B are wrong, 41 41 41 41 41 41 41 41 instead of dd dd dd dd dd dd dd dd
	allocated by maker
	freed by owner
	found by`},
		{"write after free, found on leaving quarantine", false, func(d *debug.Allocator) error {
			b := maker(d, 64)
			_ = owner(d, b)
			writer(b, 63)
			mustFree(t, d, mustAllocate(t, d, 8, 8))
			return d.Check()
		}, `debug: block used after it was freed: at byte 63 of block ADDR of 64 B aligned to 8: 1 B is wrong, 41 instead of dd
	allocated by maker
	freed by owner`},
		{"leaks", false, func(d *debug.Allocator) error {
			b := maker(d, 999)
			for i := range 3 {
				maker(d, uintptr(1000*i+8))
			}
			_ = mover(d, b, 10)
			return d.Close()
		}, `debug: Close: blocks are still live: 4 of them, 3034 bytes in all: free them first
debug: Close: blocks are still live: 3 of them, 3024 bytes in all, the first of them block ADDR of 8 B aligned to 8
	allocated by maker
debug: Close: blocks are still live: 1 of them, 10 bytes in all, the first of them block ADDR of 10 B aligned to 8
	allocated by mover`},
		{"fault past the end", true, func(d *debug.Allocator) error {
			b := maker(d, 64)
			return d.Catch(func() { writer(b, 64) })
		}, `debug: Catch: access past the end of a block: at byte 64 of block ADDR of 64 B aligned to 8
	allocated by maker
	accessed by writer`},
		{"fault after free", true, func(d *debug.Allocator) error {
			b := maker(d, 64)
			_ = owner(d, b)
			return d.Catch(func() { writer(b, 10) })
		}, `debug: Catch: block used after it was freed: at byte 10 of block ADDR of 64 B aligned to 8
	allocated by maker
	freed by owner
	accessed by writer`},
	} {
		if c.guard && !hasGuards {
			continue
		}
		d := debug.New(new(blockalloc.Heap), debug.Options{Guard: c.guard, QuarantineBlocks: 1})
		err := c.run(d)
		want := oneFrame.ReplaceAllString(c.want, "\t$1\n\t\treport_test.go:LINE debug_test.$2")
		if got := stable(err); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, want)
		}
		var r *debug.Report
		if !errors.As(err, &r) || !errors.Is(err, r.Unwrap()) {
			t.Errorf("%s: there is no report in %v", c.name, err)
		}
	}
}

func at(b blockalloc.Block, offset int) (blockalloc.Block, error) {
	return blockalloc.FromRaw(beyondPointer(b, offset), blockalloc.Layout{Size: 8, Align: 1})
}

// TestStack: as many frames are kept as was asked for, and none if none are.
func TestStack(t *testing.T) {
	for depth, want := range map[int]int{-1: 0, 0: 16, 1: 1, 3: 3, 64: 64, 1000: 64} {
		d := debug.New(new(blockalloc.Heap), debug.Options{Stack: depth})
		var b blockalloc.Block
		deep(100, func() { b = mustAllocate(t, d, 8, 8) })
		mustFree(t, d, b)
		var r *debug.Report
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

// TestBoundsReports: Close names twenty call stacks and says how many more there
// are, and a hundred findings are kept.
func TestBoundsReports(t *testing.T) {
	delivered := 0
	d := debug.New(new(blockalloc.Heap), debug.Options{Stack: 64, OnReport: func(*debug.Report) { delivered++ }})
	var blocks []blockalloc.Block
	for i := range 30 {
		deep(i, func() { // a stack of its own
			blocks = append(blocks, mustAllocate(t, d, uintptr(i+1), 1))
		})
	}
	err := d.Close()
	text := err.Error()
	if n := strings.Count(text, "the first of them"); n != 20 || delivered != 30 || !strings.Contains(text, "30 of them, 465 bytes in all") || !strings.Contains(text, "allocated in 10 more places") {
		t.Errorf("%d call stacks, and %d delivered, want 20 and 30:\n%s", n, delivered, text)
	}
	for _, b := range blocks {
		mustFree(t, d, b)
	}
	mustClose(t, d)

	delivered = 0
	d = debug.New(new(blockalloc.Heap), debug.Options{Stack: -1, OnReport: func(*debug.Report) { delivered++ }})
	for range 130 {
		b := mustAllocate(t, d, 8, 8)
		mustFree(t, d, b)
		b.Bytes()[0] = 1
	}
	for range 2 { // what is found is returned until Close
		if n := len(reportsOf(d.Check())); n != 100 || delivered != 130 {
			t.Errorf("Check returns %d reports and %d were delivered, want 100 and 130", n, delivered)
		}
	}
	if err := d.Close(); !strings.Contains(err.Error(), "30 more blocks were used after they were freed") {
		t.Errorf("Close: %.200v", err)
	}
	mustClose(t, d)
}

func TestKinds(t *testing.T) {
	seen := make(map[string]bool)
	for k := debug.DoubleFree; k <= debug.Leak; k++ {
		if name := k.String(); seen[name] || strings.HasPrefix(name, "Kind") {
			t.Errorf("kind %d is called %q", int(k), name)
		}
		seen[k.String()] = true
	}
	if got := fmt.Sprint(debug.Kind(99), debug.Kind(-1)); got != "Kind(99) Kind(-1)" {
		t.Error(got)
	}
}
