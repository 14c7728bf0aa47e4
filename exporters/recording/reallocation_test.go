package recording_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/recording"
)

// growing has goroutines that reallocate blocks, always to one byte more, and say so by the events: of which others are in between.
func growing(t *testing.T, rec *recording.Recorder, goroutines, ops int) {
	t.Helper()
	mem := alloctrace.Wrap(yielding{new(blockalloc.Heap)}, alloctrace.WithHooks(rec))
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(g)))
			var b blockalloc.Block
			var err error
			for range ops {
				switch {
				case b.IsZero():
					b, err = mem.Allocate(blockalloc.Layout{Size: uintptr(1 + rng.IntN(1<<16)), Align: 1})
				case rng.IntN(20) == 0:
					b, err = mem.Reallocate(b, 0)
				default:
					b, err = mem.Reallocate(b, b.Size()+1)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// yielding lets others in between.
type yielding struct{ blockalloc.Allocator }

func (y yielding) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	runtime.Gosched()
	defer runtime.Gosched()
	return y.Allocator.Reallocate(b, size)
}

// pairs returns how many reallocations have both events in files, and how many have the second alone. Each must be of one that grows by a byte.
func pairs(t *testing.T, paths ...string) (both, alone int) {
	t.Helper()
	began := make(map[uint64]uintptr)
	for _, path := range paths {
		r, err := recording.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		for e, err := range r.Events() {
			if err != nil {
				t.Fatal(err)
			}
			switch e.Kind {
			case alloctrace.Reallocating:
				if _, twice := began[e.Reallocation]; twice || e.Reallocation == 0 {
					t.Fatalf("%+v: another one has that number", e)
				}
				began[e.Reallocation] = e.Size
			case alloctrace.Reallocated:
				size, ok := began[e.Reallocation]
				if !ok {
					alone++
				} else if size+1 != e.Size || e.Requested != e.Size {
					t.Fatalf("%+v is of one of %d bytes", e, size)
				} else {
					both++
				}
				began[e.Reallocation] = 0
			default:
				if e.Reallocation != 0 {
					t.Fatalf("%+v has a number", e)
				}
			}
		}
		r.Close()
	}
	return both, alone
}

// TestReallocationsAcrossFiles: a reallocation has its number in both files, if it began in the first and ended in the second.
func TestReallocationsAcrossFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	rec, err := recording.Create(path, recording.Options{MaxBytes: 12 << 20, NoStacks: true, Queue: 1 << 16, FlushEvery: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	rotated := false
	for range 100 {
		var others sync.WaitGroup
		others.Go(func() {
			for range 40_000 { // random addresses do not compress
				rec.Observe(t.Context(), alloctrace.Event{Kind: alloctrace.Freeing, Addr: uintptr(rng.Uint64()), Size: 1, Align: 1}, nil)
			}
		})
		growing(t, rec, 8, 500)
		others.Wait()
		if _, err := os.Stat(path + ".old"); err == nil {
			rotated = true
			break
		}
	}
	if err := rec.Close(); err != nil || !rotated {
		t.Fatalf("%v, rotated: %t", err, rotated)
	}
	both, alone := pairs(t, path+".old", path)
	if u := rec.Usage(); both == 0 || u.Dropped == 0 && alone > 0 {
		t.Errorf("%d reallocations have both events, and %d the second alone; %+v", both, alone, u)
	}
}

// A slow file is written to now and then.
type slow struct{ *os.File }

func (s slow) Write(b []byte) (int, error) {
	time.Sleep(5 * time.Millisecond)
	return s.File.Write(b)
}

// TestReallocationsDropped: where either event of a reallocation is dropped, the other is not taken to be of another one.
func TestReallocationsDropped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := recording.New(slow{f}, recording.Options{Queue: 16, FlushEvery: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	both, alone := 0, 0
	for range 100 {
		growing(t, rec, 8, 2000)
		if err := rec.Flush(); err != nil {
			t.Fatal(err)
		}
		if both, alone = pairs(t, path); both > 0 && alone > 0 && rec.Usage().Dropped > 0 {
			break
		}
	}
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	if both == 0 || alone == 0 {
		t.Errorf("%d reallocations have both events, and %d the second alone: %+v", both, alone, rec.Usage())
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
