package blockalloc

import (
	"math/bits"
	"runtime"
	"unsafe"
)

// heapMax bounds what a Heap asks of the Go runtime in one piece, in bytes,
// padding included: 1 TiB, or 512 MiB where addresses have 32 bits.
var heapMax = func() uintptr {
	if bits.UintSize == 32 || runtime.GOARCH == "wasm" {
		return 512 << 20
	}
	return 1 << (bits.UintSize - 24)
}()

// Heap is an [Allocator] on the Go heap. It works on every platform, the race detector
// and the Go heap profile see its memory, and its blocks are always zeroed. To align a block
// it asks the runtime for Size+Align bytes.
//
// When memory runs out, the Go runtime ends the process: Heap cannot return an error. A
// request of more than 1 TiB (512 MiB with 32-bit addresses) is [ErrOutOfMemory]. Heap
// keeps a block alive until it is freed, in a table with 16 locks. The table finds
// foreign frees, and second ones until the address is in use again. A pair costs the Go
// runtime's price for cleared memory, some hundred nanoseconds for a page, and that
// table.
//
// The zero Heap is ready, and must not be copied. Several goroutines may use it at
// once.
type Heap struct {
	live registry[unsafe.Pointer] // to the last byte of what was asked of the runtime, which is behind the block
}

var (
	_ Allocator = (*Heap)(nil)
	_ Owner     = (*Heap)(nil)
	_ Resizer   = (*Heap)(nil)
)

// Allocate returns a zeroed block of exactly l.Size bytes.
func (h *Heap) Allocate(l Layout) (Block, error) {
	if err := l.Check(); err != nil {
		return Block{}, allocateError("Heap", l, err)
	}
	if l.Size == 0 {
		return Block{}, nil
	}
	if l.Size+l.Align-1 > heapMax {
		return Block{}, allocateError("Heap", l, ErrOutOfMemory)
	}
	mem := make([]byte, l.Size+l.Align)
	p := unsafe.Pointer(unsafe.SliceData(mem))
	b := grant(unsafe.Add(p, roundUp(uintptr(p), l.Align)-uintptr(p)), l.Size, l)
	h.live.add(b, unsafe.Pointer(&mem[len(mem)-1]))
	return b, nil
}

// Reallocate copies b into a new block unless the size stays the same.
func (h *Heap) Reallocate(b Block, size uintptr) (Block, error) {
	if b.IsZero() {
		return b, reallocateError("Heap", b, size, errEmptyReallocate)
	}
	if _, err := h.live.check(b); err != nil {
		return b, reallocateError("Heap", b, size, err)
	}
	if size == b.size {
		b.requested = size // of FromRaw it was not known
		return b, nil
	}
	n, err := move(h, b, size)
	if err != nil {
		return b, reallocateError("Heap", b, size, err)
	}
	return n, nil
}

// Resize succeeds only if the size stays the same.
func (h *Heap) Resize(b Block, size uintptr) (Block, error) {
	_, err := checkResize(b, size)
	if err == nil {
		if _, err = h.live.check(b); err == nil && size != b.size {
			err = errCopy
		}
	}
	if err != nil {
		return b, resizeError("Heap", b, size, err)
	}
	b.requested = size
	return b, nil
}

// Free releases b's memory to the garbage collector.
func (h *Heap) Free(b Block) error {
	if b.IsZero() {
		return nil
	}
	if _, err := h.live.take(b); err != nil {
		return freeError("Heap", b, err)
	}
	return nil
}

// Owns reports whether b is a live block of this Heap.
func (h *Heap) Owns(b Block) bool { return !b.IsZero() && h.live.owns(b) }

// Find returns the live block of this Heap that holds the byte at p, as that of [System] does.
func (h *Heap) Find(p unsafe.Pointer) (Block, bool) { return h.live.find(p) }

// move reallocates b, a live block of a, by allocating, copying and freeing. Size zero
// only frees. If anything fails, b is unchanged.
func move(a Allocator, b Block, size uintptr) (Block, error) {
	n, err := a.Allocate(b.layout(size))
	if err != nil {
		return b, err
	}
	copy(n.Bytes(), b.Bytes())
	if err := replace(a, b, a, n); err != nil {
		return b, err
	}
	return n, nil
}

// replace frees b, which n replaces. If that fails, panics or ends the goroutine, it
// frees n instead.
func replace(from Allocator, b Block, to Allocator, n Block) (err error) {
	freed := false
	defer func() {
		if freed {
			return
		}
		if undo := to.Free(n); undo != nil && err != nil {
			err = bothFailed(err, undo)
		}
	}()
	err = from.Free(b)
	freed = err == nil
	return err
}
