package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
)

// requireAll says that this run must leave nothing out, as CI's.
var requireAll = os.Getenv("ALLOCTRACE_REQUIRE_ALL") == "1"

// memoryFile is a file in memory, which fails if it is told to.
type memoryFile struct {
	mu            sync.Mutex
	pages         [][]byte
	reads, writes int
	failRead      func(page uint32) error
	failWrite     func(page uint32) error
}

func newMemoryFile(count, size int) *memoryFile {
	f := &memoryFile{}
	for page := range count {
		f.pages = append(f.pages, make([]byte, size))
		fill(f.pages[page], uint32(page), 0)
	}
	return f
}

func (f *memoryFile) readPage(page uint32, b []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	if f.failRead != nil {
		if err := f.failRead(page); err != nil {
			return err
		}
	}
	copy(b, f.pages[page])
	return nil
}

func (f *memoryFile) writePage(page uint32, b []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes++
	if f.failWrite != nil {
		if err := f.failWrite(page); err != nil {
			return err
		}
	}
	copy(f.pages[page], b)
	return nil
}

const (
	testPage  = 512
	testLimit = 256 << 10
)

// newTestCache returns a session of a cache of a file in memory, over the tests' memory.
func newTestCache(t testing.TB, count int, limit int64) (*session, *memoryFile, *alloctrace.Proxy) {
	mem, proxy := newMemory(t, limit)
	f := newMemoryFile(count, testPage)
	return newCache(context.Background(), f, testPage, mem).in(context.Background()), f, proxy
}

func mustClose(t *testing.T, s *session) {
	t.Helper()
	if err := s.close(); err != nil {
		t.Error(err)
	}
	if n := s.resident.Load(); n != 0 {
		t.Errorf("%d pages are in memory after close", n)
	}
}

// TestModel holds random operations against a map of what each page must contain, to the byte.
func TestModel(t *testing.T) {
	ops := 8_000
	if requireAll {
		ops = 100_000
	}
	const count = 5000
	s, f, _ := newTestCache(t, count, testLimit)
	model := make(map[uint32][]byte)
	content := func(page, generation uint32) []byte {
		b := make([]byte, testPage)
		fill(b, page, generation)
		return b
	}
	generations := make([]uint32, count)
	for page := range uint32(count) {
		model[page] = content(page, 0)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range ops {
		page := random.Uint32N(random.Uint32N(count) + 1)
		switch n := random.IntN(100); {
		case n < 40:
			if err := s.write(page, func() {
				generations[page]++
				model[page] = content(page, generations[page])
			}); err != nil {
				t.Fatal(err)
			}
		case n < 99:
			if err := s.read(page, func(b []byte) error {
				if !bytes.Equal(b, model[page]) {
					return errors.New("it is not what the model has")
				}
				return nil
			}); err != nil {
				t.Fatalf("operation %d: page %d: %v", i, page, err)
			}
		case random.IntN(20) == 0:
			if err := s.flush(); err != nil {
				t.Fatal(err)
			}
			for page, want := range model {
				if !bytes.Equal(f.pages[page], want) {
					t.Fatalf("operation %d: after a flush page %d of the file is not what the model has", i, page)
				}
			}
		}
	}
	mustClose(t, s)
	for page, want := range model {
		if !bytes.Equal(f.pages[page], want) {
			t.Fatalf("in the end page %d of the file is not what the model has", page)
		}
	}
	if c := s.total(); c.Hits == 0 || c.Evictions == 0 || c.WriteBacks == 0 || c.Merged == 0 || c.Merged != c.Buffered || f.reads != int(c.Misses) || f.writes != int(c.WriteBacks) {
		t.Errorf("%+v, with %d reads and %d writes of the file", c, f.reads, f.writes)
	}
}

// TestStorm: goroutines that use the same pages, with hardly more memory than they pin, see the newest generation of each.
func TestStorm(t *testing.T) {
	ops := 2_000
	if requireAll {
		ops = 10_000
	}
	const count, goroutines = 3000, 8
	s, f, proxy := newTestCache(t, count, 160<<10)
	want := make([]atomic.Uint32, count)
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			s := s.in(context.Background())
			random := rand.New(rand.NewPCG(uint64(g), 3))
			for range ops {
				page := random.Uint32N(random.Uint32N(count) + 1)
				var err error
				if random.IntN(3) == 0 {
					err = s.write(page, func() { want[page].Add(1) })
				} else {
					err = s.read(page, func(b []byte) error {
						if generation, err := generationOf(b, page); err != nil || generation != want[page].Load() {
							return fmt.Errorf("generation %d of page %d, want %d: %w", generation, page, want[page].Load(), err)
						}
						return nil
					})
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	mustClose(t, s)
	for page := range want {
		if generation, err := generationOf(f.pages[page], uint32(page)); err != nil || generation != want[page].Load() {
			t.Fatalf("generation %d of page %d of the file, %v; want %d", generation, page, err, want[page].Load())
		}
	}
	c := s.total()
	if c.Evictions == 0 || c.Merged != c.Buffered {
		t.Errorf("%+v", c)
	}
	if pages := proxy.ChildStats()[forPages]; pages.Frees < c.Evictions || pages.Allocations < c.Misses {
		t.Errorf("%+v of pages, the cache has %+v", pages, c)
	}
}

// TestOneRead: of many that miss a page at once, one reads it.
func TestOneRead(t *testing.T) {
	s, f, _ := newTestCache(t, 10, testLimit)
	arrived := make(chan struct{}, 100)
	f.failRead = func(uint32) error {
		for range 9 { // the others are on their way
			<-arrived
		}
		return nil
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			arrived <- struct{}{}
			if err := s.in(context.Background()).read(3, func([]byte) error { return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if c := s.total(); f.reads != 1 || c.Misses != 1 || c.Hits != 9 {
		t.Errorf("%d reads of the file, %+v", f.reads, c)
	}
	mustClose(t, s)
}

// pinAll pins pages until the limit is reached.
func pinAll(t *testing.T, s *session) (pinned []*frame) {
	t.Helper()
	for page := uint32(0); ; page++ {
		f, err := s.bring(page)
		if errors.Is(err, blockalloc.ErrLimit) {
			return pinned
		}
		if err != nil {
			t.Fatal(err)
		}
		pinned = append(pinned, f)
	}
}

// TestAllPinned: who finds all pages pinned waits until one is not, or its context is done.
func TestAllPinned(t *testing.T) {
	s, _, _ := newTestCache(t, 5000, testLimit)
	pinned := pinAll(t, s)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	gone := s.in(ctx)
	if err := gone.read(4999, func([]byte) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("with all pages pinned: %v, want that of the context", err)
	}
	waited := make(chan error)
	go func() {
		waited <- s.in(context.Background()).read(4999, func([]byte) error { return nil })
	}()
	if err := s.unpin(pinned[0], false); err != nil {
		t.Error(err)
	}
	if err := <-waited; err != nil {
		t.Errorf("after a page was unpinned: %v", err)
	}
	for _, f := range pinned[2:] {
		if err := s.unpin(f, false); err != nil {
			t.Error(err)
		}
	}
	if err := s.close(); !errors.Is(err, errPinned) {
		t.Errorf("close with a page pinned: %v, want %v", err, errPinned)
	}
	if err := s.mem.Free(pinned[1].block); err != nil {
		t.Error(err)
	}
}

// TestNeverFits: without a page that could be evicted, the limit's error comes back.
func TestNeverFits(t *testing.T) {
	mem := observed(alloctrace.Wrap(alloctest.New(t)), testPage-1)
	s := newCache(context.Background(), newMemoryFile(1, testPage), testPage, mem).in(context.Background())
	if err := s.read(0, func([]byte) error { return nil }); !errors.Is(err, blockalloc.ErrLimit) {
		t.Errorf("error %v, want %v", err, blockalloc.ErrLimit)
	}
	mustClose(t, s)
}

// TestReadFails: it fails for all who want the page, and nothing is lost, also not the writes that wait for it.
func TestReadFails(t *testing.T) {
	s, f, _ := newTestCache(t, 10, testLimit)
	broken := errors.New("the disk is broken")
	f.failRead = func(uint32) error { return broken }
	if err := s.write(4, func() {}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.read(4, func([]byte) error { return nil }); !errors.Is(err, broken) {
			t.Errorf("error %v, want %v", err, broken)
		}
	}
	if n := s.resident.Load(); n != 0 {
		t.Errorf("%d pages are in memory", n)
	}
	if err := s.flush(); !errors.Is(err, broken) {
		t.Errorf("flush: error %v, want %v", err, broken)
	}
	f.failRead = nil
	if err := s.read(4, func(b []byte) error {
		if generation, err := generationOf(b, 4); err != nil || generation != 1 {
			return fmt.Errorf("generation %d, want 1: %w", generation, err)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	f.pages[5][100]++
	if err := s.read(5, func([]byte) error { return nil }); !errors.Is(err, errCorrupt) {
		t.Errorf("error %v, want %v", err, errCorrupt)
	}
	fill(f.pages[5], 5, 0)
	mustClose(t, s)
}

// TestWriteBackFails: another page is evicted while there is one that is clean. If there is none, the operation fails, and
// no write is lost.
func TestWriteBackFails(t *testing.T) {
	const count = 5000
	s, f, _ := newTestCache(t, count, testLimit)
	full := errors.New("the disk is full")
	f.failWrite = func(uint32) error { return full }
	clean := func([]byte) error { return nil }
	for page := range uint32(100) { // these stay in memory
		if err := errors.Join(s.read(page, clean), s.write(page, func() {})); err != nil {
			t.Fatal(err)
		}
	}
	for page := uint32(100); page < count; page++ {
		if err := s.read(page, clean); err != nil {
			t.Fatalf("with clean pages to evict: %v", err)
		}
	}
	var failed error
	dirty := uint32(100)
	for ; failed == nil && dirty < count; dirty++ {
		if failed = s.read(dirty, clean); failed == nil {
			failed = s.write(dirty, func() {})
		}
	}
	if !errors.Is(failed, full) {
		t.Errorf("with dirty pages alone: %v, want %v", failed, full)
	}
	if err := s.flush(); !errors.Is(err, full) {
		t.Errorf("flush: %v, want %v", err, full)
	}
	f.failWrite = nil
	mustClose(t, s)
	for page := range dirty - 1 {
		if generation, err := generationOf(f.pages[page], page); err != nil || generation != 1 {
			t.Fatalf("generation %d of page %d of the file, %v; want 1", generation, page, err)
		}
	}
}

// TestNoMemory: where memory itself runs out now and then, operations fail with that error, and no memory and no write
// is lost.
func TestNoMemory(t *testing.T) {
	for _, one := range []int{2, 5, 50} { // fails of so many
		random := rand.New(rand.NewPCG(uint64(one), 4))
		scarce := true
		inner := failing.If(alloctest.New(t), func(c failing.Call) bool {
			return scarce && c.Op != failing.OpFree && random.IntN(one) == 0
		})
		const count = 800
		f := newMemoryFile(count, testPage)
		s := newCache(context.Background(), f, testPage, observed(alloctrace.Wrap(inner), testLimit)).in(context.Background())
		generations := make([]uint32, count)
		failed := 0
		for page := range uint32(count) {
			err := s.write(page, func() { generations[page]++ })
			if err == nil {
				err = s.read(page/2, func([]byte) error { return nil })
			}
			if err != nil {
				if failed++; !errors.Is(err, blockalloc.ErrOutOfMemory) {
					t.Fatal(err)
				}
			}
		}
		if failed == 0 || inner.Injected() < int64(failed) {
			t.Errorf("%d operations failed of %d allocations", failed, inner.Injected())
		}
		scarce = false
		mustClose(t, s)
		for page, want := range generations {
			if generation, err := generationOf(f.pages[page], uint32(page)); err != nil || generation != want {
				t.Fatalf("generation %d of page %d, %v; want %d", generation, page, err, want)
			}
		}
	}
}
