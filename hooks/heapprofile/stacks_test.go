package heapprofile

import (
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace/internal/callers"
)

// TestStacksAreKeptOnce: the same calls have the same stack, however often.
func TestStacksAreKeptOnce(t *testing.T) {
	s := newStacks(callers.Skip{})
	var all []*stack
	for range 3 {
		all = append(all, s.caller())
	}
	other := s.caller()
	if all[0] != all[1] || all[1] != all[2] || other == all[0] || len(all[0].pcs) == 0 {
		t.Errorf("%p, and then %p", all, other)
	}
}

// TestStacksOfOneHash: stacks whose hashes are the same are told apart.
func TestStacksOfOneHash(t *testing.T) {
	s := newStacks(callers.Skip{})
	var all []*stack
	for range 2 {
		first := s.caller()
		all = append(all, first)
		bucket := &s.buckets[first.hash%uint64(len(s.buckets))]
		bucket.Store(&stack{pcs: []uintptr{1, 2, 3}, hash: first.hash, next: bucket.Load()})
	}
	if all[0] != all[1] {
		t.Errorf("%v, and then %v", all[0], all[1])
	}
}

// TestStacksTogether: goroutines that come by the same ways at once get the same stacks,
// one for each way.
func TestStacksTogether(t *testing.T) {
	const goroutines, ways = 8, 200
	s := newStacks(callers.Skip{})
	var found [goroutines][ways]*stack
	var wg sync.WaitGroup
	start := make(chan bool)
	for g := range goroutines {
		wg.Go(func() {
			<-start
			for way := range ways {
				found[g][way] = s.by(way)
			}
		})
	}
	close(start)
	wg.Wait()
	kept := 0
	for i := range s.buckets {
		for b := s.buckets[i].Load(); b != nil; b = b.next {
			kept++
		}
	}
	if kept > ways {
		t.Errorf("%d stacks are kept, of %d ways", kept, ways)
	}
	for g := range goroutines {
		for way := range ways {
			if found[g][way] != found[0][way] {
				t.Errorf("goroutine %d has another stack for way %d", g, way)
			}
		}
	}
}

// by calls caller by way of so many calls, which differ in their addresses.
func (s *stacks) by(way int) *stack {
	switch {
	case way == 0:
		return s.caller()
	case way%2 == 0:
		return s.by(way / 2)
	default:
		return s.by(way / 2)
	}
}
