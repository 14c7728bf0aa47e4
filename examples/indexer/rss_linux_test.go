//go:build !race && !msan && !asan

// The detectors take memory of their own, which nobody here could account for.

package main

import "testing"

// wantRSS: what the resident memory is said to be made of has all of it, with the index
// among it, and no more than 2 % of which nobody accounts for.
func wantRSS(t *testing.T, r report) {
	t.Helper()
	parts := int64(0)
	for _, p := range r.RSS.Parts() {
		parts += p.Bytes
	}
	if parts != r.RSS.RSS || r.RSS.Unattributed > r.RSS.RSS/50 {
		t.Errorf("the parts add up to %d: %v", parts, r.RSS)
	}
	mem := r.RSS.Allocators[0]
	if mem.Live != r.Built.LiveBytes || r.RSS.Tracked != mem.Resident || mem.Resident < mem.Live*9/10 || mem.Reserved < mem.Resident {
		t.Errorf("live is %d: %v", r.Built.LiveBytes, r.RSS)
	}
}
