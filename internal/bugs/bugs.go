// Package bugs has errors with memory as programs make them, for what claims to find
// them.
package bugs

import (
	"errors"
	"sync"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A Bug is an error with memory.
type Bug struct {
	Name  string
	Found Means
	// Plant commits it with memory of mem, and of other if it takes two allocators. An
	// error is what a program would return to its caller: those of frees are passed
	// over, as programs do.
	Plant func(mem, other blockalloc.Allocator) error
}

// Means is what it takes to find a Bug.
type Means int

// The means.
const (
	ByRecords  Means = iota // knowing each block, and what is around and in it
	ByGuards                // having the processor refuse the access
	ByFailures              // having each allocation fail in turn
	ByPatterns              // running twice, on memory that holds different things
	ByRaces                 // the race detector
	ByNesting               // telling a test from its subtest
)

// All are the bugs.
var All = []Bug{
	{"leak", ByRecords, leak},
	{"leak in a subtest", ByNesting, leak},
	{"double free", ByRecords, doubleFree},
	{"double free across goroutines", ByRecords, doubleFreeAcross},
	{"foreign free", ByRecords, foreignFree},
	{"free with a wrong size", ByRecords, wrongSize},
	{"overrun by a byte", ByRecords, overrunByte},
	{"overrun by a page", ByGuards, overrunPage},
	{"underrun", ByRecords, underrun},
	{"read after free", ByGuards, readAfterFree},
	{"write after free", ByRecords, writeAfterFree},
	{"free in use by another goroutine", ByRecords, freeInUse},
	{"realloc of a freed block", ByRecords, reallocFreed},
	{"stale copy of a block", ByRecords, staleCopy},
	{"missing free on an error path", ByRecords, missingFree},
	{"scope misuse", ByRecords, scopeMisuse},
	{"uninitialised read", ByPatterns, uninitialised},
	{"leak only on a failure", ByFailures, leakOnFailure},
	{"race on block bytes", ByRaces, race},
	{"free through another allocator", ByRecords, freeThroughOther},
}

// Named returns the bug of that name.
func Named(name string) Bug {
	for _, b := range All {
		if b.Name == name {
			return b
		}
	}
	panic("bugs: there is no " + name)
}

const pageSize = 4096

// page allocates, and writes all of what it gets.
func page(mem blockalloc.Allocator, size uintptr) blockalloc.Block {
	b, err := mem.Allocate(blockalloc.Layout{Size: size, Align: 64})
	if err != nil {
		panic(err)
	}
	clear(b.Bytes())
	return b
}

// at returns the byte so far from the block's start, be it the block's or not. It reads
// and writes without a check of bounds as what is written in C, or for speed, does.
func at(b blockalloc.Block, offset int) *byte { return (*byte)(unsafe.Add(b.Pointer(), offset)) }

func leak(mem, _ blockalloc.Allocator) error {
	page(mem, pageSize)
	return nil
}

func doubleFree(mem, _ blockalloc.Allocator) error {
	b := page(mem, pageSize)
	evict(mem, b)
	shutDown(mem, b)
	return nil
}

func evict(mem blockalloc.Allocator, b blockalloc.Block) { _ = mem.Free(b) }

func shutDown(mem blockalloc.Allocator, b blockalloc.Block) { _ = mem.Free(b) }

func doubleFreeAcross(mem, _ blockalloc.Allocator) error {
	b := page(mem, pageSize)
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() { evict(mem, b) })
	}
	both.Wait()
	return nil
}

func foreignFree(mem, _ blockalloc.Allocator) error {
	buffer := make([]byte, pageSize)
	b, err := blockalloc.FromRaw(unsafe.Pointer(unsafe.SliceData(buffer)), blockalloc.Layout{Size: pageSize, Align: 1})
	if err != nil {
		return err
	}
	evict(mem, b)
	return nil
}

func wrongSize(mem, _ blockalloc.Allocator) error {
	b := page(mem, pageSize)
	half, err := blockalloc.FromRaw(b.Pointer(), blockalloc.Layout{Size: pageSize / 2, Align: 64})
	if err != nil {
		return err
	}
	evict(mem, half)
	evict(mem, b)
	return nil
}

func overrunByte(mem, _ blockalloc.Allocator) error {
	b := page(mem, 100)
	for i := 0; i <= 100; i++ {
		*at(b, i) = 'x'
	}
	evict(mem, b)
	return nil
}

func overrunPage(mem, _ blockalloc.Allocator) error {
	b := page(mem, pageSize)
	clear(unsafe.Slice(at(b, pageSize), pageSize))
	evict(mem, b)
	return nil
}

func underrun(mem, _ blockalloc.Allocator) error {
	b := page(mem, pageSize)
	*at(b, -1) = 'x'
	evict(mem, b)
	return nil
}

func readAfterFree(mem, _ blockalloc.Allocator) error {
	b := page(mem, pageSize)
	evict(mem, b)
	if *at(b, 17) == 'x' {
		return errors.New("the page holds an x")
	}
	return nil
}

func writeAfterFree(mem, _ blockalloc.Allocator) error {
	b := page(mem, pageSize)
	evict(mem, b)
	*at(b, 17) = 'x'
	return nil
}

func freeInUse(mem, _ blockalloc.Allocator) error {
	b := page(mem, pageSize)
	handed, freed, done := make(chan blockalloc.Block), make(chan bool), make(chan bool)
	go func() {
		mine := <-handed
		<-freed // the other goroutine believes that this one is done
		copy(mine.Bytes()[100:], "result")
		close(done)
	}()
	handed <- b
	evict(mem, b)
	close(freed)
	<-done
	return nil
}

func reallocFreed(mem, _ blockalloc.Allocator) error {
	b := page(mem, pageSize)
	evict(mem, b)
	if larger, err := mem.Reallocate(b, 2*pageSize); err == nil {
		shutDown(mem, larger)
	}
	return nil
}

func staleCopy(mem, _ blockalloc.Allocator) error {
	b := page(mem, pageSize)
	stale := b
	b, err := mem.Reallocate(b, 2*pageSize)
	if err != nil {
		return err
	}
	evict(mem, stale)
	shutDown(mem, b)
	return nil
}

func missingFree(mem, _ blockalloc.Allocator) error {
	b := page(mem, pageSize)
	if *at(b, 0) != 'x' {
		return errors.New("the page has no header")
	}
	evict(mem, b)
	return nil
}

func scopeMisuse(mem, _ blockalloc.Allocator) error {
	scoped, err := blockalloc.NewScoped(mem, 4*pageSize)
	if err != nil {
		return err
	}
	var escaped blockalloc.Block
	err = scoped.Scope(func(inner *blockalloc.Scoped) error {
		escaped = page(inner, pageSize)
		return nil
	})
	err = errors.Join(err, scoped.Close())
	copy(escaped.Bytes(), "result")
	return err
}

func uninitialised(mem, _ blockalloc.Allocator) error {
	b, err := mem.Allocate(blockalloc.Layout{Size: pageSize, Align: 64})
	if err != nil {
		return err
	}
	defer evict(mem, b)
	if n := *at(b, 17); n != 0 {
		return errors.New("the page is in use")
	}
	return nil
}

func leakOnFailure(mem, _ blockalloc.Allocator) error {
	first, err := mem.Allocate(blockalloc.Layout{Size: pageSize, Align: 64})
	if err != nil {
		return err
	}
	second, err := mem.Allocate(blockalloc.Layout{Size: 2 * pageSize, Align: 64})
	if err != nil {
		return err
	}
	evict(mem, second)
	evict(mem, first)
	return nil
}

func race(mem, _ blockalloc.Allocator) error {
	b := page(mem, pageSize)
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() { *at(b, 7) = 'x' })
	}
	both.Wait()
	evict(mem, b)
	return nil
}

func freeThroughOther(mem, other blockalloc.Allocator) error {
	evict(other, page(mem, pageSize))
	return nil
}
