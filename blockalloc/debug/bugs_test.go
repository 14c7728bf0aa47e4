package debug_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
)

// bugs are what an Allocator must find, each with the error it must return. plant
// commits the bug on d, whose parent is a roomy, with a block of the layout, and
// returns the error that reports it.
var bugs = []struct {
	name  string
	err   error
	kind  debug.Kind
	plant func(d *debug.Allocator, b blockalloc.Block) error
}{
	{"double free", blockalloc.ErrDoubleFree, debug.DoubleFree, func(d *debug.Allocator, b blockalloc.Block) error {
		return errors.Join(d.Free(b), d.Free(b))
	}},
	{"double free, other goroutine", blockalloc.ErrDoubleFree, debug.DoubleFree, func(d *debug.Allocator, b blockalloc.Block) error {
		var errs [2]error
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = d.Free(b) })
		}
		wg.Wait()
		return errors.Join(errs[:]...)
	}},
	{"double free, long after", blockalloc.ErrDoubleFree, debug.DoubleFree, func(d *debug.Allocator, b blockalloc.Block) error {
		err := d.Free(b)
		for range 20 { // more than the quarantine holds
			n, _ := d.Allocate(blockalloc.Layout{Size: 3000, Align: 1})
			defer d.Free(n)
		}
		return errors.Join(err, d.Free(b))
	}},
	{"foreign free", blockalloc.ErrNotOwned, debug.Foreign, func(d *debug.Allocator, b blockalloc.Block) error {
		n, _ := new(blockalloc.Heap).Allocate(b.Layout())
		return errors.Join(d.Free(n), d.Free(b))
	}},
	{"free through another allocator", blockalloc.ErrNotOwned, debug.Foreign, func(d *debug.Allocator, b blockalloc.Block) error {
		return errors.Join(debug.New(new(blockalloc.Heap), debug.Options{}).Free(b), d.Free(b))
	}},
	{"wrong-size free", blockalloc.ErrNotOwned, debug.WrongSize, func(d *debug.Allocator, b blockalloc.Block) error {
		n, _ := blockalloc.FromRaw(b.Pointer(), blockalloc.Layout{Size: b.Size() + 1, Align: b.Align()})
		return errors.Join(d.Free(n), d.Free(b))
	}},
	{"interior free", blockalloc.ErrNotOwned, debug.Interior, func(d *debug.Allocator, b blockalloc.Block) error {
		n, _ := blockalloc.FromRaw(unsafe.Add(b.Pointer(), b.Size()-1), blockalloc.Layout{Size: 1, Align: 1})
		return errors.Join(d.Free(n), d.Free(b))
	}},
	{"realloc of a freed block", blockalloc.ErrDoubleFree, debug.DoubleFree, func(d *debug.Allocator, b blockalloc.Block) error {
		err := d.Free(b)
		_, err2 := d.Reallocate(b, 2*b.Size())
		return errors.Join(err, err2)
	}},
	{"free of a block that was reallocated", blockalloc.ErrDoubleFree, debug.DoubleFree, func(d *debug.Allocator, b blockalloc.Block) error {
		n, err := d.Reallocate(b, b.Size())
		return errors.Join(err, d.Free(b), d.Free(n))
	}},
	{"stale copy of a block", blockalloc.ErrDoubleFree, debug.DoubleFree, func(d *debug.Allocator, b blockalloc.Block) error {
		stale := b
		err := d.Free(b)
		b, err2 := d.Allocate(b.Layout()) // the same again
		return errors.Join(err, err2, d.Free(stale), d.Free(b))
	}},
	{"overrun by a byte", blockalloc.ErrOverrun, debug.Overrun, func(d *debug.Allocator, b blockalloc.Block) error {
		if err := d.Catch(func() { beyond(b, int(b.Size()), 1)[0]++ }); err != nil {
			return errors.Join(err, d.Free(b))
		}
		return errors.Join(d.Free(b), d.Free(b)) // the first reports and writes the canaries
	}},
	{"overrun by a page", blockalloc.ErrOverrun, debug.Overrun, func(d *debug.Allocator, b blockalloc.Block) error {
		if err := d.Catch(func() { clear(beyond(b, int(b.Size()), 4096)) }); err != nil {
			_ = d.Free(b) // reports if the alignment leaves canaries
			_ = d.Free(b)
			return err
		}
		return errors.Join(d.Free(b), d.Free(b))
	}},
	{"overrun found by Reallocate", blockalloc.ErrOverrun, debug.Overrun, func(d *debug.Allocator, b blockalloc.Block) error {
		caught := d.Catch(func() { beyond(b, int(b.Size()), 1)[0]++ })
		n, err := d.Reallocate(b, 1)
		if err != nil && n != b {
			return fmt.Errorf("Reallocate = %v, %v", n, err)
		}
		return errors.Join(caught, err, d.Free(n))
	}},
	{"overrun found by Check", blockalloc.ErrOverrun, debug.Overrun, func(d *debug.Allocator, b blockalloc.Block) error {
		caught := d.Catch(func() { beyond(b, int(b.Size()), 1)[0]++ })
		err := d.Check()
		_ = d.Free(b)
		_ = d.Free(b)
		return errors.Join(caught, err, d.Check())
	}},
	{"underrun by a byte", blockalloc.ErrUnderrun, debug.Underrun, func(d *debug.Allocator, b blockalloc.Block) error {
		if err := d.Catch(func() { beyond(b, -1, 1)[0]++ }); err != nil {
			return errors.Join(err, d.Free(b))
		}
		return errors.Join(d.Free(b), d.Free(b))
	}},
	{"write after free", blockalloc.ErrUseAfterFree, debug.UseAfterFree, func(d *debug.Allocator, b blockalloc.Block) error {
		err := d.Free(b)
		if fault := d.Catch(func() { b.Bytes()[b.Size()-1] = 0x11 }); fault != nil {
			return errors.Join(err, fault)
		}
		return errors.Join(err, d.Check(), d.Close())
	}},
	{"write after free, found on leaving quarantine", blockalloc.ErrUseAfterFree, debug.UseAfterFree, func(d *debug.Allocator, b blockalloc.Block) error {
		err := d.Free(b)
		if fault := d.Catch(func() { b.Bytes()[0] = 0x11 }); fault != nil {
			return errors.Join(err, fault)
		}
		for range 20 {
			n, _ := d.Allocate(blockalloc.Layout{Size: 1, Align: 1})
			if n.Addr() == b.Addr() {
				return errors.New("the memory is in use again")
			}
			_ = d.Free(n)
		}
		if s := d.Stats(); s.WithheldBlocks != 1 {
			return fmt.Errorf("%+v, want a block withheld", s)
		}
		return errors.Join(err, d.Close())
	}},
	{"write around a freed block", blockalloc.ErrUseAfterFree, debug.UseAfterFree, func(d *debug.Allocator, b blockalloc.Block) error {
		err := d.Free(b)
		return errors.Join(err, d.Catch(func() { beyond(b, int(b.Size()), 1)[0]++ }), d.Close())
	}},
	{"leak", blockalloc.ErrLive, debug.Leak, func(d *debug.Allocator, b blockalloc.Block) error {
		return errors.Join(d.Close(), d.Free(b))
	}},
}

// reportsOf returns the reports in an error, which may be joined of others.
func reportsOf(err error) []*debug.Report {
	if r, ok := err.(*debug.Report); ok {
		return []*debug.Report{r}
	}
	var all []*debug.Report
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range joined.Unwrap() {
			all = append(all, reportsOf(err)...)
		}
	}
	return all
}

// TestFindsBugs plants each bug a hundred times, in blocks of all kinds.
func TestFindsBugs(t *testing.T) {
	const times = 100
	for mode, o := range map[string]debug.Options{
		"Default":  {QuarantineBlocks: 10},
		"ZeroFree": {QuarantineBlocks: 10, ZeroFree: true, NoPoison: true, Canary: 1},
		"Guard":    {QuarantineBlocks: 10, Guard: true},
	} {
		if o.Guard && !hasGuards {
			continue
		}
		for _, bug := range bugs {
			t.Run(mode+"/"+bug.name, func(t *testing.T) {
				found := 0
				for i := range times {
					d := debug.New(new(roomy), o)
					rnd := rand.New(rand.NewPCG(uint64(i), 7))
					b := mustAllocate(t, d, 2+uintptr(rnd.UintN(9000)), 1<<rnd.IntN(13))
					for j := range b.Bytes() {
						b.Bytes()[j] = byte(rnd.Uint32())
					}
					err := bug.plant(d, b)
					reports := reportsOf(err)
					if !errors.Is(err, bug.err) || len(reports) == 0 {
						t.Fatalf("round %d, %v: not found: %v", i, b, err)
					}
					for _, r := range reports {
						if r.Kind != bug.kind {
							t.Errorf("round %d, %v: it is said to be a %v, not a %v: %v", i, b, r.Kind, bug.kind, r)
						}
						if r.Kind != debug.Foreign && (r.Block.Addr != b.Addr() || r.Block.Layout != b.Layout()) {
							t.Errorf("round %d: the report is on %v, not on %v", i, r.Block, b)
						}
						if r.Kind != debug.Foreign && len(r.Allocated.Frames()) == 0 {
							t.Errorf("round %d: nobody allocated it", i)
						}
					}
					if err := d.Close(); err != nil {
						t.Errorf("round %d: Close: %v", i, err)
					}
					found++
				}
				if found != times {
					t.Errorf("found %d of %d", found, times)
				}
			})
		}
	}
}

// TestFindsReads plants what only guard pages can find.
func TestFindsReads(t *testing.T) {
	if !hasGuards {
		return
	}
	var sink byte
	for i := range 100 {
		d := debug.New(blockalloc.Null{}, debug.Options{Guard: true})
		rnd := rand.New(rand.NewPCG(uint64(i), 8))
		page := os.Getpagesize()
		size := 1 + rnd.IntN(3*page)
		b := mustAllocate(t, d, uintptr(size), 1)
		whole := mustAllocate(t, d, uintptr(page), uintptr(page))
		for _, c := range []struct {
			block  blockalloc.Block
			offset int
			want   error
		}{
			{b, size, blockalloc.ErrOverrun},
			{b, size + page - 1, blockalloc.ErrOverrun},
			{whole, page, blockalloc.ErrOverrun},
			{whole, -1, blockalloc.ErrUnderrun},
			{whole, -page, blockalloc.ErrUnderrun},
			{b, size - 1, nil},
			{whole, 0, nil},
		} {
			err := d.Catch(func() { sink += beyond(c.block, c.offset, 1)[0] })
			var r *debug.Report
			if !errors.Is(err, c.want) || c.want != nil && (!errors.As(err, &r) || !r.Fault || r.Offset != c.offset || r.Block.Addr != c.block.Addr()) {
				t.Fatalf("byte %d of %v: %v, want %v", c.offset, c.block, err, c.want)
			}
		}
		mustFree(t, d, b)
		mustFree(t, d, whole)
		for _, offset := range []int{0, rnd.IntN(size), size - 1} {
			if err := d.Catch(func() { sink += b.Bytes()[offset] }); !errors.Is(err, blockalloc.ErrUseAfterFree) {
				t.Fatalf("read of a freed block: %v", err)
			}
		}
		mustClose(t, d)
		if err := d.Catch(func() { sink += b.Bytes()[0] }); !errors.Is(err, blockalloc.ErrUseAfterFree) {
			t.Fatalf("read of a block that is unmapped: %v", err)
		}
	}
}
