//go:build linux && !race

package blockalloc_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// TestSystemOutOfMemory runs out of address space for real, in a process of its own
// that does not grow its Go heap meanwhile: neither the Go runtime nor the race
// detector would survive that.
func TestSystemOutOfMemory(t *testing.T) {
	if !ownProcess(t) {
		return
	}
	limit(t, unix.RLIMIT_AS, measure.Virtual, 256<<20)
	var s blockalloc.System
	var held []blockalloc.Block
	for {
		b, err := s.Allocate(blockalloc.BlockLayout(16 << 20))
		if err != nil {
			if !errors.Is(err, blockalloc.ErrOutOfMemory) || !errors.Is(err, unix.ENOMEM) {
				t.Fatalf("Allocate: error %v, want ErrOutOfMemory with ENOMEM", err)
			}
			break
		}
		b.Bytes()[0] = byte(len(held))
		held = append(held, b)
	}
	if len(held) < 4 {
		t.Fatalf("only %d blocks before the limit", len(held))
	}
	if n, err := s.Reallocate(held[1], 512<<20); !errors.Is(err, blockalloc.ErrOutOfMemory) || n != held[1] || n.Bytes()[0] != 1 {
		t.Errorf("Reallocate at the limit = %v, %v; want the block as it was and ErrOutOfMemory", n, err)
	}
	for _, b := range held {
		if err := s.Free(b); err != nil {
			t.Fatal(err)
		}
	}
	b, err := s.Allocate(blockalloc.BlockLayout(16 << 20))
	if err != nil {
		t.Fatalf("Allocate after all was freed: %v", err)
	}
	if err := s.Free(b); err != nil {
		t.Fatal(err)
	}
}
