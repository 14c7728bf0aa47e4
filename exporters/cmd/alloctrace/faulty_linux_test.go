package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/replay"
)

// A faulty allocator is a Heap that makes one mistake. Functions are nil where it makes none.
type faulty struct {
	inner    *blockalloc.Heap
	live     []blockalloc.Block // in the order in which they were acquired
	allocate func(f *faulty, l blockalloc.Layout, b blockalloc.Block) (blockalloc.Block, error)
	moved    func(f *faulty, old, b blockalloc.Block)
	freeing  func(f *faulty, b blockalloc.Block) error

	changes, last int              // of the size class
	again         blockalloc.Block // was freed, and is returned twice
	cancel        func()           // ends the replay
	hung          chan struct{}
}

func (f *faulty) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	b, err := f.inner.Allocate(l)
	if err == nil && f.allocate != nil {
		b, err = f.allocate(f, l, b)
	}
	if err == nil {
		f.live = append(f.live, b)
	}
	return b, err
}

func (f *faulty) forget(b blockalloc.Block) {
	f.live = slices.DeleteFunc(f.live, func(of blockalloc.Block) bool { return of.Addr() == b.Addr() })
}

func (f *faulty) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	n, err := f.inner.Allocate(blockalloc.Layout{Size: size, Align: b.Align()})
	if err != nil {
		return b, err
	}
	copy(n.Bytes(), b.Bytes())
	if f.moved != nil {
		f.moved(f, b, n)
	}
	f.forget(b)
	f.live = append(f.live, n)
	return n, nil
}

func (f *faulty) Free(b blockalloc.Block) error {
	f.forget(b)
	if f.freeing != nil {
		return f.freeing(f, b)
	}
	return nil // the garbage collector has the rest
}

func class(size uintptr) (n int) {
	for ; size > 1; size >>= 1 {
		n++
	}
	return n
}

// part returns bytes of a block as a block.
func part(b blockalloc.Block, from uintptr, l blockalloc.Layout) blockalloc.Block {
	p, err := blockalloc.FromRaw(unsafe.Add(b.Pointer(), from), l)
	if err != nil {
		return b
	}
	return p
}

// mistakes are those of allocators, and what their replays end with.
var mistakes = []struct {
	name   string
	reason []replay.Reason
	faulty
}{
	{"overlaps from the 5th change of the size class on", []replay.Reason{replay.Overlaps}, faulty{allocate: func(f *faulty, l blockalloc.Layout, b blockalloc.Block) (blockalloc.Block, error) {
		if now := class(l.Size); now != f.last {
			f.last = now
			if f.changes++; f.changes >= 5 {
				for _, other := range f.live {
					if other.Size() >= 2*l.Size && other.Size() > 64 {
						return part(other, other.Size()/2&^15, l), nil
					}
				}
			}
		}
		return b, nil
	}}},
	{"forgets the alignment of large blocks", []replay.Reason{replay.Misaligned}, faulty{allocate: func(f *faulty, l blockalloc.Layout, b blockalloc.Block) (blockalloc.Block, error) {
		if l.Size <= 4096 {
			return b, nil
		}
		large, err := f.inner.Allocate(blockalloc.Layout{Size: l.Size + 64, Align: l.Align})
		p, _ := blockalloc.FromRaw(unsafe.Add(large.Pointer(), 4), blockalloc.Layout{Size: l.Size, Align: 4})
		return p, err
	}}},
	{"zeroes the tail after a reallocation", []replay.Reason{replay.Changed}, faulty{moved: func(_ *faulty, old, b blockalloc.Block) {
		if n := min(old.Size(), b.Size()); n > 100 {
			clear(b.Bytes()[n-1 : n])
		}
	}}},
	{"fails when 3 blocks of a size are live", []replay.Reason{replay.Refused}, faulty{allocate: func(f *faulty, l blockalloc.Layout, b blockalloc.Block) (blockalloc.Block, error) {
		same := 0
		for _, other := range f.live {
			if other.Size() == l.Size {
				same++
			}
		}
		if same == 3 && l.Size > 500 {
			return b, blockalloc.ErrOutOfMemory
		}
		return b, nil
	}}},
	{"panics when a larger block is freed after a smaller one", []replay.Reason{replay.Panicked}, faulty{freeing: func(f *faulty, b blockalloc.Block) error {
		if f.last > 1000 && int(b.Size()) > 2*f.last {
			panic(fmt.Sprintf("%d after %d", b.Size(), f.last))
		}
		f.last = int(b.Size())
		return nil
	}}},
	{"hangs when a block of 3 KiB is freed", []replay.Reason{replay.Stuck}, faulty{freeing: func(f *faulty, b blockalloc.Block) error {
		if b.Size() > 3<<10 {
			f.cancel()
			<-f.hung
		}
		return nil
	}}},
	{"returns a block twice after a larger one was freed", []replay.Reason{replay.Overlaps}, faulty{
		allocate: func(f *faulty, l blockalloc.Layout, b blockalloc.Block) (blockalloc.Block, error) {
			if !f.again.IsZero() && l.Size <= f.again.Size() && l.Size > 16 {
				if f.changes++; f.changes == 2 {
					defer func() { f.again, f.changes = blockalloc.Block{}, 0 }()
				}
				return part(f.again, 0, l), nil
			}
			return b, nil
		},
		freeing: func(f *faulty, b blockalloc.Block) error {
			if b.Size() > 2000 && f.again.IsZero() {
				f.again = b
			}
			return nil
		},
	}},
	{"corrupts a neighbour when a block is freed", []replay.Reason{replay.Changed}, faulty{freeing: func(f *faulty, b blockalloc.Block) error {
		if len(f.live) > 0 && b.Size() > 700 {
			neighbour := f.live[len(f.live)-1]
			neighbour.Bytes()[neighbour.Size()/2] ^= 0x80
		}
		return nil
	}}},
}

// TestMistakes: mistakes of allocators are found by what a compiler does, at the same event each time, which is named with its stack. Ten events show them.
func TestMistakes(t *testing.T) {
	needProgram(t, "gcc", "gcc")
	out, err := exec.Command("gcc", "-print-prog-name=cc1").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	source, to := filepath.Join(dir, "x.c"), filepath.Join(dir, "recording")
	if err := os.WriteFile(source, []byte("struct s { int a; } x; int f(struct s *p) { return p->a + x.a; }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	recordProgram(t, to, strings.TrimSpace(string(out)), "-quiet", source, "-o", filepath.Join(dir, "x.s"))
	_, events, err := readRecording(to)
	if err != nil || len(events) < 3000 {
		t.Fatalf("%v; %d events", err, len(events))
	}
	for _, m := range mistakes {
		t.Run(m.name, func(t *testing.T) {
			if testing.Short() && m.reason[0] == replay.Stuck {
				t.Skip("long: each replay waits two seconds, run with -short=false")
			}
			replays := 0
			hung := make(chan struct{})
			defer close(hung)
			fails := func(events []recording.Event) error {
				replays++
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				f := m.faulty
				f.inner, f.cancel, f.hung = new(blockalloc.Heap), cancel, hung
				_, err := replay.Run(ctx, replay.New(events), &f, replay.Options{Addresses: true})
				return err
			}
			var first, again, small *replay.Failure
			if err := fails(events); !errors.As(err, &first) || !slices.Contains(m.reason, first.Reason) {
				t.Fatalf("the replay ends with %v", err)
			}
			if err := fails(events); !errors.As(err, &again) || again.Event.Number != first.Event.Number {
				t.Errorf("first it fails with %v, then with %v", first, again)
			}
			if first.Event.Stack == nil && (first.Acquired == nil || first.Acquired.Stack == nil) {
				t.Errorf("no stack is in %v", first)
			}
			few, err := replay.Shrink(t.Context(), events, fails)
			if err != nil || len(few) > 10 || replays > 500 || !errors.As(fails(few), &small) || small.Reason != first.Reason {
				t.Errorf("%v; %d events are left after %d replays: %v", err, len(few), replays, small)
			}
			t.Logf("%d of %d events are left after %d replays: %v, of %v", len(few), len(events), replays, small, first)
		})
	}
}
