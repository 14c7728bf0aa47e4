// Package blocktest is the conformance suite for implementations of
// [blockalloc.Allocator]. One call runs all of it:
//
//	func TestMine(t *testing.T) {
//		blocktest.Run(t, blocktest.Config{
//			New: func(testing.TB) blockalloc.Allocator { return NewMine() },
//		})
//	}
//
// Each clause of the Allocator contract is a subtest of its own, on a fresh allocator. The
// clause Model does 20,000 random operations, 2,000 with -short, and checks each against a
// model. With the environment variable ALLOCTRACE_REQUIRE_ALL=1 it does as many as three
// seconds take, up to two million. If operations fail, it prints the few that matter, and
// how to replay them. [Fuzz] makes a fuzz target of the same operations.
// [CheckAllocationFailures] checks code that uses allocators, with allocations that fail.
//
// [Config] describes the allocator:
//
//   - One that gets its memory from another allocator sets NewOver. The suite passes a
//     parent that counts, guards its memory, and fails. New can be left out.
//   - A small one sets MaxSize and MaxLive. One that runs out sets Bounded.
//   - One that gets memory back only in the reverse order of allocation, such as
//     a stack of blocks, sets Arena.
//   - One that counts what is live sets LiveBytes, which is checked after every
//     operation.
//   - One with more operations, such as Trim, sets Steps for the model to mix in.
//     Check, for all, checks what must hold after every operation.
//
// For example, a free list of 64 blocks of 1 KiB on one piece of its parent's memory, for
// one goroutine at a time:
//
//	blocktest.Run(t, blocktest.Config{
//		NewOver: func(_ testing.TB, parent blockalloc.Allocator) (blockalloc.Allocator, error) {
//			return NewFreeList(parent, 64, 1024)
//		},
//		MaxSize:        1024,
//		MaxLive:        64,
//		Bounded:        true,
//		SingleThreaded: true,
//	})
//
// If it also has a Trim that gives free blocks back to the parent, and counts its live
// blocks, the Config continues:
//
//	Steps: []blocktest.Step{{Name: "Trim", Do: func(s *blocktest.State) error {
//		return s.Allocator.(*FreeList).Trim()
//	}}},
//	Check: func(a blockalloc.Allocator, live []blockalloc.Block) error {
//		if n := a.(*FreeList).Len(); n != len(live) {
//			return fmt.Errorf("Len() = %d, want %d", n, len(live))
//		}
//		return nil
//	},
//
// The suite needs about twice MaxSize of address space, but touches only the ends
// of large blocks.
package blocktest

import (
	"fmt"
	"math/bits"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// Config describes the implementation under test. Sizes are in bytes. New or NewOver is
// required.
type Config struct {
	// New returns an allocator without live blocks for one subtest. It can use the
	// testing.TB to clean up. If it is nil, all subtests use NewOver.
	New func(testing.TB) blockalloc.Allocator

	// NewOver, if not nil, returns an allocator that takes all its memory from parent, or
	// an error that wraps the parent's. The parent is an Owner and safe for concurrent use,
	// and its memory is zeroed if Zeroed is set. The suite counts what is live there,
	// guards it, and has each of its calls fail, panic and end the goroutine. It expects
	// all memory back once all blocks are freed and the allocator is closed: it calls the
	// method Close() error if there is one, and does the same with what Unwrap and Parent
	// return.
	NewOver func(t testing.TB, parent blockalloc.Allocator) (blockalloc.Allocator, error)

	// MaxSize is the largest size and alignment that the allocator must serve while nothing
	// else is live, at least 2. The suite asks for no more. Zero means 1 GiB.
	MaxSize uintptr

	// MaxLive is how many blocks the allocator must serve at once, at least 2, each of 4
	// KiB, or of MaxSize if that is less, and aligned to its size. Zero means 256.
	MaxLive int

	// Bounded says that the allocator runs out, with ErrOutOfMemory or ErrLimit: before 16
	// × MaxLive blocks of the size in MaxLive are live, and for one block as large as all
	// of them.
	Bounded bool

	// Arena says that memory can be reused only if blocks are freed in the reverse order of
	// allocation. MaxSize, MaxLive and Bounded then hold for that order. The newest block
	// grows and shrinks in place; another one may need memory even to shrink.
	Arena bool

	// Capacity is the size of the largest block of alignment 1 that an Arena serves while
	// nothing else is live, to the last byte. Zero means that it is not known.
	Capacity uintptr

	// Zeroed says that the allocator promises zeroed memory whether or not the layout asks for
	// that.
	Zeroed bool

	// SingleThreaded says that several goroutines must not use the allocator at once. The
	// concurrent subtests are left out.
	SingleThreaded bool

	// Closing says what Close does while blocks are live, if the allocator has a
	// method Close() error.
	Closing Closing

	// LiveBytes, if not nil, returns the allocator's own count of live bytes: the sum of
	// their Block.Size. It is checked after every operation.
	LiveBytes func(blockalloc.Allocator) int64

	// Steps are the allocator's own operations, such as Trim or Reset, that the model mixes
	// in: in the clause Model, in ParentFailures with each call of the parent failing, and
	// in Fuzz. A step may also make a parent of its own fail, with errors that wrap
	// ErrInjected, which the model then accepts.
	Steps []Step

	// Check, if not nil, is called after every operation of the model. It returns an error
	// if something is wrong, such as what a method Stats returns. The blocks are the live
	// ones, oldest first. Check must not keep or change them.
	Check func(a blockalloc.Allocator, live []blockalloc.Block) error
}

// Closing says what an allocator's Close() error does while blocks are live. In any
// case, once Close has returned nil, Allocate of more than zero bytes fails with ErrClosed, and another Close
// returns nil.
type Closing uint8

const (
	// CloseDefault is CloseRefuses, or CloseFrees for an Arena. A wrapper, which has
	// an Unwrap method, may do that or CloseEnds.
	CloseDefault Closing = iota
	// CloseRefuses: Close returns ErrLive, and the allocator stays open.
	CloseRefuses
	// CloseFrees: Close frees the live blocks.
	CloseFrees
	// CloseEnds: Close returns ErrLive and ends allocation. Blocks can be freed,
	// and once they are, Close returns nil.
	CloseEnds
)

// clauses are the subtests in the order in which they run, each with what it
// needs of the Config.
var clauses = []struct {
	name    string
	test    func(suite, *testing.T)
	applies func(Config) bool
}{
	{"Alignment", suite.alignment, always},
	{"UnevenLayouts", suite.unevenLayouts, always},
	{"NoOverlap", suite.noOverlap, always},
	{"ZeroSize", suite.zeroSize, always},
	{"BadLayout", suite.badLayout, always},
	{"OutOfMemory", suite.outOfMemory, always},
	{"Zeroed", suite.zeroed, func(c Config) bool { return c.Zeroed }},
	{"ZeroedLayout", suite.zeroedLayout, always},
	{"ZeroedGrowth", suite.zeroedGrowth, always},
	{"ZeroedRaw", suite.zeroedRaw, always},
	{"ReallocateKeepsContent", suite.reallocateKeepsContent, always},
	{"ReallocateToZero", suite.reallocateToZero, always},
	{"FailedReallocate", suite.failedReallocate, always},
	{"Neighbours", suite.neighbours, always},
	{"Resize", suite.resizeInPlace, always},
	{"DoubleFree", suite.doubleFree, always},
	{"ForeignFree", suite.foreignFree, always},
	{"WrongSizeFree", suite.wrongSizeFree, always},
	{"InteriorFree", suite.interiorFree, always},
	{"Raw", suite.raw, always},
	{"RequestedSize", suite.requestedSize, always},
	{"Owns", suite.owns, always},
	{"Find", suite.find, always},
	{"Mappings", suite.mappings, always},
	{"PastTheEnd", suite.pastTheEnd, always},
	{"Exhaustion", suite.exhaustion, bounded},
	{"ShrinkAtTheEnd", suite.shrinkAtTheEnd, bounded},
	{"LastByte", suite.lastByte, boundedArena},
	{"Padding", suite.padding, boundedArena},
	{"Close", suite.close, always},
	{"Model", suite.model, always},
	{"ParentFailures", suite.parentFailures, over},
	{"ParentEndings", suite.parentEndings, over},
	{"Concurrent", suite.concurrent, concurrent},
	{"ConcurrentDoubleFree", suite.concurrentDoubleFree, concurrent},
	{"ConcurrentHandOver", suite.concurrentHandOver, concurrent},
	{"ConcurrentExhaustion", suite.concurrentExhaustion, func(c Config) bool { return concurrent(c) && c.Bounded }},
	{"ConcurrentClose", suite.concurrentClose, concurrent},
}

func always(Config) bool         { return true }
func over(c Config) bool         { return c.NewOver != nil }
func bounded(c Config) bool      { return c.Bounded }
func boundedArena(c Config) bool { return c.Bounded && c.Arena }
func concurrent(c Config) bool   { return !c.SingleThreaded }

// Run checks the implementation that c describes.
func Run(t *testing.T, c Config) {
	s := newSuite(c)
	for _, clause := range clauses {
		if clause.applies(c) {
			t.Run(clause.name, func(t *testing.T) { clause.test(s, t) })
		}
	}
}

type suite struct {
	Config
	size  uintptr // of the usual block
	verbs []verb  // what the first byte of an operation chooses from
}

func newSuite(c Config) suite {
	if c.New == nil && c.NewOver == nil {
		panic("blocktest: Config without New and NewOver: set one of them")
	}
	if c.MaxSize == 0 {
		c.MaxSize = 1 << 30
	}
	if c.MaxLive == 0 {
		c.MaxLive = 256
	}
	if c.MaxSize < 2 || c.MaxLive < 2 {
		panic(fmt.Sprintf("blocktest: Config with MaxSize %d and MaxLive %d: use 2 or more", c.MaxSize, c.MaxLive))
	}
	s := suite{Config: c, verbs: verbs(c.Steps)}
	s.size = s.fit(4 << 10)
	if s.New == nil {
		s.New = s.newOverParent
	}
	return s
}

// newOverParent is the New that uses NewOver.
func (s suite) newOverParent(t testing.TB) blockalloc.Allocator {
	t.Helper()
	p := newParent(s.Zeroed)
	a, err := s.NewOver(t, p)
	if err != nil {
		t.Fatalf("NewOver: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		if err := closeAll(a); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := p.empty(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// fit returns the largest power of two that is at most size and MaxSize.
func (s suite) fit(size uintptr) uintptr { return 1 << (bits.Len(uint(min(size, s.MaxSize))) - 1) }

// accounts checks the allocator's own count of live bytes.
func (s suite) accounts(t testing.TB, a blockalloc.Allocator, when string, live ...blockalloc.Block) {
	t.Helper()
	if s.LiveBytes == nil {
		return
	}
	var want int64
	for _, b := range live {
		want += int64(b.Size())
	}
	if got := s.LiveBytes(a); got != want {
		t.Errorf("%s the allocator counts %d live bytes, want %d", when, got, want)
	}
}

func layout(size, align uintptr) blockalloc.Layout {
	return blockalloc.Layout{Size: size, Align: align}
}

func zeroedLayout(size, align uintptr) blockalloc.Layout {
	return blockalloc.Layout{Size: size, Align: align, Zeroed: true}
}
