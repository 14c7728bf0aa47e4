// Instructions runs so many pairs of allocating and freeing a block, for a tool to
// count the instructions: instructions SUBJECT PAIRS.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"unsafe" // also for linkname

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/hooks/ring"
)

// one hands out the same block again and again: what is counted is all around it.
type one struct{ block blockalloc.Block }

func (o *one) Allocate(blockalloc.Layout) (blockalloc.Block, error) { return o.block, nil }

func (o *one) Reallocate(b blockalloc.Block, _ uintptr) (blockalloc.Block, error) { return b, nil }

func (o *one) Free(blockalloc.Block) error { return nil }

// procPin keeps the scheduler from taking the processor away, which it does every 10 ms
// otherwise: the slower a machine is, the more instructions that would be.
//
//go:linkname procPin runtime.procPin
func procPin() int

// grow makes the stack so large that it stays where it is.
//
//go:noinline
func grow() {
	var area [512 << 10]byte
	runtime.KeepAlive(&area)
}

// placed calls f with a stack that is not at one of the places in which a Proxy looks for
// hooks that are called without end. One process in 16 would count that.
func placed(f func()) {
	var area [1 << 10]byte
	if uintptr(unsafe.Pointer(&area))%(128<<10) < 24<<10 {
		placed(f)
	} else {
		f()
	}
	runtime.KeepAlive(&area)
}

// nothing is a hook that does nothing.
type nothing struct{}

func (nothing) Observe(context.Context, alloctrace.Event, error) {}

func main() {
	page := blockalloc.BlockLayout(4 << 10)
	block, err := new(blockalloc.Heap).Allocate(page)
	if err != nil {
		panic(err)
	}
	subjects := map[string]blockalloc.Allocator{
		"bare":         &one{block},
		"counted":      alloctrace.Wrap(&one{block}),
		"exact":        alloctrace.Wrap(&one{block}, alloctrace.WithCounter(counter.Exact())),
		"noop":         alloctrace.Wrap(&one{block}, alloctrace.WithHooks(nothing{})),
		"ring":         alloctrace.Wrap(&one{block}, alloctrace.WithHooks(ring.New(1024, nil))),
		"heap":         alloctrace.Wrap(&one{block}, alloctrace.WithHooks(heapprofile.New(heapprofile.Options{}))),              // one in 128 is sampled
		"heap_rare":    alloctrace.Wrap(&one{block}, alloctrace.WithHooks(heapprofile.New(heapprofile.Options{Rate: 1 << 30}))), // none, nearly
		"pool":         &blockalloc.Pool{},
		"pool_counted": alloctrace.Wrap(&blockalloc.Pool{}),
	}
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: instructions SUBJECT PAIRS")
		os.Exit(2)
	}
	mem := subjects[os.Args[1]]
	pairs, err := strconv.Atoi(os.Args[2])
	if mem == nil || err != nil {
		fmt.Fprintf(os.Stderr, "instructions %s %s: no such subject, or no number\n", os.Args[1], os.Args[2])
		os.Exit(2)
	}
	grow()
	procPin()
	placed(func() {
		for range pairs {
			b, err := mem.Allocate(page)
			if err == nil {
				err = mem.Free(b)
			}
			if err != nil {
				panic(err)
			}
		}
	})
}
