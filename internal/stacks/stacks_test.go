package stacks

import (
	"slices"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace/internal/callers"
	"github.com/alloctrace/alloctrace/internal/measure"
)

type pcs struct{ list []uintptr }

func table(max int) *Table[*pcs] {
	return New(64, max, func(list []uintptr, _ uint64) *pcs { return &pcs{list} })
}

// TestKeptOnce: the same calls have the same value, however often.
func TestKeptOnce(t *testing.T) {
	s := table(1000)
	var all []*pcs
	for range 3 {
		v, _ := s.caller()
		all = append(all, v)
	}
	other, ok := s.caller()
	if all[0] != all[1] || all[1] != all[2] || other == all[0] || !ok || len(other.list) == 0 || s.Len() != 2 {
		t.Errorf("%p, and then %p (%t) of %d", all, other, ok, s.Len())
	}
}

// TestOneHash: stacks whose hashes are the same are told apart.
func TestOneHash(t *testing.T) {
	s := table(1000)
	var all []*pcs
	for range 2 {
		v, _ := s.caller()
		all = append(all, v)
		for i := range s.buckets {
			if first := s.buckets[i].Load(); first != nil {
				s.buckets[i].Store(&stack[*pcs]{pcs: []uintptr{1, 2, 3}, hash: first.hash, next: first})
			}
		}
	}
	if all[0] != all[1] {
		t.Errorf("%v, and then %v", all[0], all[1])
	}
}

// TestTooMany: a stack beyond the bound has no value, and those before it keep theirs.
func TestTooMany(t *testing.T) {
	s := table(2)
	var first []*pcs
	for range 2 {
		for way := range 4 {
			v, ok := s.by(way)
			if ok != (way < 2) || s.Len() > 2 {
				t.Errorf("way %d: %t, %d are kept", way, ok, s.Len())
			}
			first = append(first, v)
		}
	}
	if !slices.Equal(first[:4], first[4:]) {
		t.Errorf("%p", first)
	}
}

// TestTogether: goroutines that come by the same ways at once get the same values, one for each way, which is made once.
func TestTogether(t *testing.T) {
	const goroutines, ways = 8, 200
	made := 0 // only with the lock held
	s := New(64, 10*ways, func([]uintptr, uint64) int { made++; return made })
	var found [goroutines][ways]int
	var wg sync.WaitGroup
	start := make(chan bool)
	for g := range goroutines {
		wg.Go(func() {
			<-start
			for way := range ways {
				found[g][way], _ = s.by(way)
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
	if kept > ways || made != kept || s.Len() != kept {
		t.Errorf("%d stacks are in buckets, %d were made, Len is %d, of %d ways", kept, made, s.Len(), ways)
	}
	for g := range goroutines {
		if found[g] != found[0] {
			t.Errorf("goroutine %d has other stacks than the first", g)
		}
	}
}

// TestBytes: what a Table says that it holds is what the Go heap has grown by.
func TestBytes(t *testing.T) {
	s, grown := measure.HeapGrowth(func() *Table[int] {
		s := New(1<<14, 1<<14, func([]uintptr, uint64) int { return 0 })
		for way := range 1 << 13 {
			s.by(way)
		}
		return s
	})
	if said := s.Bytes(); s.Len() < 1000 || float64(said) < 0.9*float64(grown) || float64(said) > 1.1*float64(grown) {
		t.Errorf("%d stacks take %d bytes, and the heap has grown by %d", s.Len(), said, grown)
	}
}

// by calls caller by way of so many calls, which differ in their addresses.
func (t *Table[V]) by(way int) (V, bool) {
	switch {
	case way == 0:
		return t.caller()
	case way%2 == 0:
		return t.by(way / 2)
	default:
		return t.by(way / 2)
	}
}

func (t *Table[V]) caller() (V, bool) {
	var buffer [32]uintptr
	return t.Of(buffer[:callers.Stack(buffer[:])])
}

// TestAllocatesNothing: a stack that is known costs nothing on the Go heap.
func TestAllocatesNothing(t *testing.T) {
	s := table(1)
	measure.WantAllocs(t, 0, func() { s.caller() })
}
