package heapprofile

import (
	"math"
	"testing"

	"github.com/alloctrace/alloctrace"
)

// TestRateChangesMeanwhile: a number that was drawn for one rate is held against the next one, if the
// rate changes before the block is remembered.
func TestRateChangesMeanwhile(t *testing.T) {
	p := New(Options{Rate: 1})
	p.SetRate(math.MaxInt32)
	p.direct.acquire(t.Context(), 4096, 4096, 1, math.MaxUint32)
	if s := p.Stats(); s.Sampled != 0 {
		t.Errorf("a block is sampled by the number that is the least likely: %+v", s)
	}
}

// TestQuickAgain: once not every block is known, frees of unknown blocks are not looked at.
func TestQuickAgain(t *testing.T) {
	p := New(Options{Rate: 1})
	if !p.live.mayContain(4096) {
		t.Error("every block is known, and the free of an unknown one is not looked at")
	}
	p.SetRate(2)
	p.SetRate(2)
	if p.live.mayContain(4096) {
		t.Error("not every block is known, and the free of an unknown one is looked at")
	}
}

// TestUnknownWithoutProxy: a release that no Proxy delivers, of an unknown block, is not kept.
func TestUnknownWithoutProxy(t *testing.T) {
	p := New(Options{Rate: 1})
	p.Observe(t.Context(), alloctrace.Event{Kind: alloctrace.Freeing, Addr: 4096, Size: 64, Align: 64}, nil)
	if n := p.live.pending(); n != 0 {
		t.Errorf("%d releases are kept, want none", n)
	}
}

// TestFailedTooLate: a release that fails when its address has a new block, whose old one was
// therefore released, does not bring back the old one.
func TestFailedTooLate(t *testing.T) {
	p := New(Options{Rate: 1})
	part := p.Attach(&alloctrace.Attachment{ID: 1}).(*part)
	observe := func(k alloctrace.Kind) {
		part.Observe(t.Context(), alloctrace.Event{Kind: k, Addr: 4096, Size: 64, Align: 64}, nil)
	}
	for _, k := range []alloctrace.Kind{alloctrace.Allocated, alloctrace.Freeing, alloctrace.Allocated, alloctrace.FreeFailed} {
		observe(k)
	}
	if list := p.blocks(); len(list) != 1 || list[0].serial != 2 || p.Stats().Live != 1 {
		t.Errorf("live are %+v, and %d are in use; want the second block", list, p.Stats().Live)
	}
	before := p.live.filter[filterOf(4096)].Load()
	observe(alloctrace.Freeing)
	part.released(4096, 64)
	if after := p.live.filter[filterOf(4096)].Load(); after != before-1 || part.pending.Load() != 0 || p.Stats().Live != 0 {
		t.Errorf("with its free the filter goes from %d to %d, %d ends are waited for, %d are live", before, after, part.pending.Load(), p.Stats().Live)
	}
}

// TestReplaced: a block whose release was not delivered is out of use once its address has another one.
func TestReplaced(t *testing.T) {
	p := New(Options{Rate: 1})
	part := p.Attach(&alloctrace.Attachment{ID: 1})
	for range 3 {
		part.Observe(t.Context(), alloctrace.Event{Kind: alloctrace.Allocated, Addr: 4096, Size: 64, Align: 64}, nil)
	}
	s := p.Samples()
	if len(s) != 1 || s[0].LiveBlocks != 1 || s[0].LiveBytes != 64 || s[0].AllocatedBlocks != 3 || p.Stats().Live != 1 {
		t.Errorf("%+v, and %d live; want one block live of 3", s, p.Stats().Live)
	}
}
