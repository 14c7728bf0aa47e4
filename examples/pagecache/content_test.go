package main

import (
	"errors"
	"testing"
)

// TestContent: a page is known by its number and generation, and no byte of it can change unseen.
func TestContent(t *testing.T) {
	b := make([]byte, 512)
	for _, generation := range []uint32{0, 1, 1<<32 - 1} {
		fill(b, 7, generation)
		if got, err := generationOf(b, 7); err != nil || got != generation {
			t.Fatalf("generation %d, %v; want %d", got, err, generation)
		}
		if _, err := generationOf(b, 8); !errors.Is(err, errCorrupt) {
			t.Errorf("page 7 is taken for page 8: %v", err)
		}
		for i := range b {
			b[i] ^= 0x10
			if _, err := generationOf(b, 7); !errors.Is(err, errCorrupt) {
				t.Errorf("a change of byte %d is not seen: %v", i, err)
			}
			b[i] ^= 0x10
		}
	}
}
