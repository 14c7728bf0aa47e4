package blocktest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// mismatch returns how a block differs from what l asked for.
func mismatch(b blockalloc.Block, l blockalloc.Layout) error {
	// The address of a block aligned to its size, xored with the offset of any
	// byte inside, is that byte's address: no bit is in both.
	if last := l.Align - 1; b.Addr()^last != b.Addr()+last {
		return fmt.Errorf("the address %#x of the block for %v is not a multiple of the alignment", b.Addr(), l)
	}
	if b.Layout().Zeroed != l.Zeroed && l.Size > 0 {
		return fmt.Errorf("for %v there is %v: make it by NewBlock with the layout that was asked for", l, b)
	}
	if b.Size() < l.Size || b.Align() != l.Align || uintptr(len(b.Bytes())) != b.Size() || b.IsZero() != (l.Size == 0) || uintptr(b.Pointer()) != b.Addr() {
		return fmt.Errorf("for %v there is %v with %d bytes", l, b, len(b.Bytes()))
	}
	return nil
}

// check reports a block that is not what l asked for.
func check(t testing.TB, b blockalloc.Block, l blockalloc.Layout) {
	t.Helper()
	if err := mismatch(b, l); err != nil {
		t.Error(err)
	}
}

// allocate allocates or ends the test.
func allocate(t testing.TB, a blockalloc.Allocator, l blockalloc.Layout) blockalloc.Block {
	t.Helper()
	b, err := a.Allocate(l)
	if err != nil {
		t.Fatalf("Allocate(%v): %v", l, err)
	}
	check(t, b, l)
	return b
}

func free(t testing.TB, a blockalloc.Allocator, b blockalloc.Block) {
	t.Helper()
	if err := a.Free(b); err != nil {
		t.Errorf("Free(%v): %v", b, err)
	}
}

// outOfRoom reports whether err says that there is no more memory.
func outOfRoom(err error) bool {
	return errors.Is(err, blockalloc.ErrOutOfMemory) || errors.Is(err, blockalloc.ErrLimit)
}

// notLive reports whether err says that a block is not live.
func notLive(err error) bool {
	return errors.Is(err, blockalloc.ErrDoubleFree) || errors.Is(err, blockalloc.ErrNotOwned)
}

// refusal returns an error if a frees or reallocates b, which is not live.
func refusal(a blockalloc.Allocator, b blockalloc.Block) error {
	for _, size := range [...]uintptr{b.Size(), 2 * b.Size(), b.Size() / 2, 0} {
		if err := refusedReallocate(a, b, size); err != nil {
			return err
		}
	}
	return refusedFree(a, b)
}

func refusedReallocate(a blockalloc.Allocator, b blockalloc.Block, size uintptr) error {
	if n, err := a.Reallocate(b, size); !notLive(err) || n != b {
		return fmt.Errorf("Reallocate(%v, %d), which is not live = %v, %v; want the block, and ErrDoubleFree or ErrNotOwned", b, size, n, err)
	}
	return nil
}

func refusedFree(a blockalloc.Allocator, b blockalloc.Block) error {
	if err := a.Free(b); !notLive(err) {
		return fmt.Errorf("Free(%v), which is not live: error %v, want ErrDoubleFree or ErrNotOwned", b, err)
	}
	return nil
}

// refused checks that a neither frees nor reallocates b.
func refused(t testing.TB, a blockalloc.Allocator, b blockalloc.Block) {
	t.Helper()
	if err := refusal(a, b); err != nil {
		t.Error(err)
	}
}

// at returns a block that begins offset bytes after b, which nobody allocated. It may
// lie outside b, where the compiler's checks of pointers would end the process. The
// caller must keep the garbage collector from finding a pointer to memory that it knows
// to be free, which would too.
//
//go:nocheckptr
//go:noinline
func at(b blockalloc.Block, offset, size uintptr) (blockalloc.Block, error) {
	return blockalloc.FromRaw(unsafe.Add(b.Pointer(), offset), layout(size, 1))
}

// noise fills blocks, from different offsets. Its period is prime, so that a shift by
// any power of two shows.
var noise = func() []byte {
	mem := make([]byte, noisePeriod+noiseOffsets)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range mem {
		mem[i] = byte(rnd.Uint32())
	}
	return mem
}()

const (
	noisePeriod  = 32749
	noiseOffsets = 4093
)

// pattern returns the content for seed, which repeats.
func pattern(seed int) []byte {
	at := seed * 769 % noiseOffsets
	return noise[at : at+noisePeriod]
}

// fill writes a pattern that depends on seed over the first size bytes.
func fill(b blockalloc.Block, size uintptr, seed int) {
	mem, p := b.Bytes()[:size], pattern(seed)
	for len(mem) > 0 {
		mem = mem[copy(mem, p):]
	}
}

// filled returns an error unless the first size bytes of b are what fill wrote.
func filled(b blockalloc.Block, size uintptr, seed int) error {
	p := pattern(seed)
	for at := uintptr(0); at < size; at += noisePeriod {
		mem := b.Bytes()[at:min(size, at+noisePeriod)]
		if bytes.Equal(mem, p[:len(mem)]) {
			continue
		}
		for i := range mem {
			if mem[i] != p[i] {
				return fmt.Errorf("byte %d of %v is %#x, want %#x", at+uintptr(i), b, mem[i], p[i])
			}
		}
	}
	return nil
}

// sampled checks a few bytes as filled does, among them the ends.
func sampled(b blockalloc.Block, seed int, rnd uint) error {
	p, size := pattern(seed), b.Size()
	for _, i := range [...]uintptr{0, size - 1, uintptr(rnd) % size, uintptr(rnd*31) % size} {
		if got, want := b.Bytes()[i], p[i%noisePeriod]; got != want {
			return fmt.Errorf("byte %d of %v is %#x, want %#x", i, b, got, want)
		}
	}
	return nil
}

// cleared returns an error unless all of b is zero.
func cleared(b blockalloc.Block) error { return clearedFrom(b, 0) }

// clearedFrom returns an error unless the bytes of b are zero from an offset on.
func clearedFrom(b blockalloc.Block, from uintptr) error {
	for i := from; i < b.Size(); i += uintptr(len(zeros)) {
		mem := b.Bytes()[i:min(b.Size(), i+uintptr(len(zeros)))]
		if bytes.Equal(mem, zeros[:len(mem)]) {
			continue
		}
		for j, v := range mem {
			if v != 0 {
				return fmt.Errorf("byte %d of %v is %#x, want 0", i+uintptr(j), b, v)
			}
		}
	}
	return nil
}

var zeros [4 << 10]byte
