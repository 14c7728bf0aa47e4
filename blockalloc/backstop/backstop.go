// Package backstop frees memory that a program has dropped: whose owner the garbage collector has
// found to be unreachable, and which nobody has freed.
//
// Code that was written for the Go heap may drop a buffer on some paths, such as gRPC when a stream
// is cancelled, and rely on the collector. With memory outside the Go heap that is a leak. A
// [Backstop] hands out handles, which are on the Go heap. When a handle is collected, the block
// behind it is freed, counted as dropped, and reported with the calls that allocated it:
//
//	mem := backstop.New(alloctrace.Wrap(blockalloc.Default()), backstop.Options{
//		OnDrop: func(d backstop.Drop) { log.Print(d) },
//	})
//	buffer, err := mem.Allocate(blockalloc.Layout{Size: 4096, Align: 64})
//	copy(*buffer, "…")
//	err = mem.Free(buffer)
//
// The collector comes late: a block is live until then, for a Proxy too. So a Backstop replaces no
// Free. It bounds what a forgotten one costs.
package backstop

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/callers"
	"github.com/alloctrace/alloctrace/internal/hidden"
)

// Options configure [New]. The zero value is right for most.
type Options struct {
	// OnDrop is called for each block that was dropped, after it was freed: in a goroutine of the
	// Backstop's own, for one block after the other. It may allocate and free. It must not call
	// Collect, nor refer to what holds handles, such as a cache: that would never be collected. If
	// it panics or ends its goroutine, Err says so, and the next block is reported none the less.
	OnDrop func(Drop)

	// NoStacks leaves out who allocated what, which costs some 200 nanoseconds for each block, and
	// some microseconds on other processors than amd64 and arm64.
	NoStacks bool

	// Skip are packages whose calls Drop.Frames leaves out where they are the innermost, by import path,
	// such as "google.golang.org/grpc/..." for that and all packages below, as in heapprofile.Options.
	Skip []string
}

// A Backstop allocates blocks of an inner allocator that are freed when their handles are collected,
// if nobody has freed them before.
//
// A handle is a pointer to the slice of the block's memory. Hold the handle as long as the memory is
// used: the slice, which points outside the Go heap, keeps nothing alive.
//
//	buffer := *handle
//	n, err := file.Read(buffer)
//	runtime.KeepAlive(handle) // without this or a later use of handle, buffer may be freed while Read runs
//
// Several goroutines may use a Backstop at once if they may use the inner allocator, which must not
// depend on who frees: dropped blocks are freed in a goroutine of the Backstop's own. A handle is a
// variable like others: two goroutines must not free it at once. Memory is zeroed, aligned and
// counted as that of the inner allocator.
//
// Beside what the inner allocator takes, an Allocate and Free cost 300 to 600 nanoseconds, most of it
// for [runtime.AddCleanup], and 3 allocations of 64 bytes in all on the Go heap. A live block takes
// some 200 bytes there, without its stack, of which there is one for all blocks that have the same. A
// drop costs some microseconds, with its part of a garbage collection, and none of them to who allocates.
type Backstop struct {
	inner    blockalloc.Allocator
	owner    blockalloc.Owner // nil if inner is none
	onDrop   func(Drop)
	noStacks bool
	skip     callers.Skip
	start    time.Time
	closed   atomic.Bool
	serial   atomic.Uint64 // of the block that was allocated last
	shards   [shards]shard
	drops
}

// New returns a Backstop whose blocks are those of inner: a Proxy counts them, and what the Backstop
// frees. It panics if inner is nil, or Options.Skip has what is no import path.
func New(inner blockalloc.Allocator, o Options) *Backstop {
	if inner == nil {
		panic("backstop: New(nil): pass an allocator, such as a Proxy around blockalloc.Default()")
	}
	skip, err := callers.NewSkip(o.Skip)
	if err != nil {
		panic(fmt.Sprintf("backstop: New: Options.%v", err))
	}
	s := &Backstop{inner: inner, onDrop: o.OnDrop, noStacks: o.NoStacks, skip: skip, start: time.Now()}
	made.Store(true)
	s.owner, _ = blockalloc.OwnerOf(inner)
	for i := range s.shards {
		s.shards[i].live = make(map[hidden.Addr]record)
	}
	return s
}

// Allocate allocates a block and returns its handle. The slice has length l.Size, and as its
// capacity what the inner allocator has granted. Whoever holds the handle may shorten it, or
// lengthen it up to its capacity. Errors are those of the inner allocator. After Close it is
// [blockalloc.ErrClosed]. Size zero gives the handle of an empty slice, which need not be freed.
func (s *Backstop) Allocate(l blockalloc.Layout) (*[]byte, error) {
	if s.closed.Load() {
		return nil, fmt.Errorf("backstop: Allocate(%v): %w: use it before Close", l, blockalloc.ErrClosed)
	}
	b, err := s.inner.Allocate(l)
	if err != nil {
		return nil, err
	}
	if b.IsZero() {
		return &[]byte{}, nil
	}
	handle := new([]byte)
	*handle = b.Bytes()[:l.Size]
	r := record{addr: hidden.Of(b.Pointer()), size: b.Size(), asked: l, handle: addrOf(handle), since: time.Since(s.start), serial: s.serial.Add(1)}
	if !s.noStacks {
		r.stack = caller()
	}
	r.cleanup = runtime.AddCleanup(handle, dropped, key{s, r.addr, r.serial})
	s.put(r)
	return handle, nil
}

// Free frees the block of a handle, whose slice is nil from then on, so that the memory is not used
// after its free. The slice may be shorter than it was, but must begin where it began.
//
// A second Free is [blockalloc.ErrDoubleFree]. Of a slice that is no live block of this Backstop it is
// [blockalloc.ErrNotOwned], for example when append has moved it. So it is by a pointer to a copy of the slice:
// the memory may belong to another handle by now. An error of the inner allocator comes back as it is. After an
// error nothing has changed.
func (s *Backstop) Free(handle *[]byte) error {
	switch {
	case handle == nil:
		return fmt.Errorf("backstop: Free(nil): %w: pass the handle that Allocate returned", blockalloc.ErrNotOwned)
	case *handle == nil:
		return fmt.Errorf("backstop: Free: %w: the handle has no memory any more: free it once", blockalloc.ErrDoubleFree)
	}
	if err := s.free("Free", *handle, addrOf(handle)); err != nil {
		return err
	}
	if cap(*handle) > 0 {
		*handle = nil
	}
	runtime.KeepAlive(handle) // it is not collected before its cleanup was stopped
	return nil
}

// FreeBytes frees the block that memory is the beginning of. It is for interfaces that pass slices
// where the handle is elsewhere, such as in the object that owns the slice. The handle must be
// reachable until FreeBytes has returned: see [runtime.KeepAlive]. It and other slices of the
// memory must not be used any more. Errors are those of [Backstop.Free], but that a second free is
// [blockalloc.ErrNotOwned]; the slice of a block that was allocated since at the same address frees that.
func (s *Backstop) FreeBytes(memory []byte) error { return s.free("FreeBytes", memory, 0) }

// Owns reports whether memory begins where a block does that is live in this Backstop, whoever has its handle. It costs a
// lock and a look into a map.
func (s *Backstop) Owns(memory []byte) bool {
	if cap(memory) == 0 {
		return false
	}
	addr := uintptr(unsafe.Pointer(unsafe.SliceData(memory)))
	h := s.shardOf(addr)
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.live[hidden.OfAddr(addr)]
	return ok
}

// addrOf is what tells a handle from others, as long as it is reachable.
func addrOf(handle *[]byte) uintptr { return uintptr(unsafe.Pointer(handle)) }

// free frees the block that memory is the beginning of, if handle is that of its handle, or 0. That is reachable.
func (s *Backstop) free(op string, memory []byte, handle uintptr) error {
	if cap(memory) == 0 {
		return nil
	}
	addr := uintptr(unsafe.Pointer(unsafe.SliceData(memory)))
	r, ok := s.take(addr, uintptr(cap(memory)), handle, 0)
	if !ok && handle != 0 && s.Owns(memory) {
		return fmt.Errorf("backstop: %s(%d bytes at %#x): %w: the block there has another handle: pass the pointer that Allocate returned", op, cap(memory), addr, blockalloc.ErrNotOwned)
	}
	if !ok {
		return fmt.Errorf("backstop: %s(%d bytes at %#x): %w: free memory of this Backstop once, as it was allocated", op, cap(memory), addr, blockalloc.ErrNotOwned)
	}
	returned := false
	defer func() { // also if the inner allocator panics
		if !returned && (s.owner == nil || s.owner.Owns(r.block())) {
			s.put(r)
		}
	}()
	err := s.inner.Free(r.block())
	returned = true
	if err != nil {
		s.put(r)
		return err
	}
	r.cleanup.Stop()
	return nil
}

// Stats are the numbers of a Backstop. Blocks whose handle was collected, but which were not freed
// yet, are live. At rest the inner allocator has LiveBlocks and FailedBlocks of this Backstop.
type Stats struct {
	LiveBlocks, LiveBytes       int64 // allocated, and neither freed nor dropped; bytes are granted ones
	DroppedBlocks, DroppedBytes int64 // freed by the Backstop because their handles were collected
	FailedBlocks, FailedBytes   int64 // whose free failed then: lost, see Err
}

// Stats returns the numbers. They are exact at rest.
func (s *Backstop) Stats() Stats {
	var n Stats
	for i := range s.shards {
		blocks, bytes := s.shards[i].sum()
		n.LiveBlocks += blocks
		n.LiveBytes += bytes
	}
	s.drops.addTo(&n)
	return n
}

// Close ends allocation. Handles can still be freed, and are, when they are collected. Close returns
// an error that wraps [blockalloc.ErrLive] if blocks are live, joined with that of Err. What was
// dropped, but not collected yet, is live: call [Collect] before. Close can be called again. The inner
// allocator stays open.
func (s *Backstop) Close() error {
	s.closed.Store(true)
	err := s.Err()
	if n := s.Stats(); n.LiveBlocks > 0 {
		live := fmt.Errorf("backstop: Close: %w: %d of them, %d bytes in all: free them first, or call Collect if they were dropped", blockalloc.ErrLive, n.LiveBlocks, n.LiveBytes)
		return errors.Join(live, err)
	}
	return err
}

// shards is how many parts the blocks are in, so that goroutines seldom wait for each other.
const shards = 64

// A record is what is known of a block whose handle is neither freed nor collected. Nothing in it
// leads to the handle, or that would never be collected.
type record struct {
	addr    hidden.Addr // of the block, which the handle alone holds
	size    uintptr     // of it, as granted
	asked   blockalloc.Layout
	handle  uintptr       // its address
	since   time.Duration // after the Backstop was made
	serial  uint64        // distinguishes it from others at the same address
	stack   stackHandle
	cleanup runtime.Cleanup
}

// block returns the block of r, which the inner allocator has granted.
func (r *record) block() blockalloc.Block {
	b, _ := blockalloc.NewBlock(r.addr.Pointer(), r.size, r.asked)
	return b
}

// A shard has the records of some addresses.
type shard struct {
	mu    sync.Mutex
	live  map[hidden.Addr]record // by address
	bytes int64                  // of all blocks in live
	_     [40]byte               // so that no two share a cache line
}

func (s *Backstop) shardOf(addr uintptr) *shard {
	return &s.shards[uint64(addr)*0x9e3779b97f4a7c15>>58] // 6 bits, as there are shards
}

// put takes in a block. If one is known at the same address, that was freed past the Backstop, and its
// handle frees nothing any more.
func (s *Backstop) put(r record) {
	h := s.shardOf(r.addr.Addr())
	h.mu.Lock()
	defer h.mu.Unlock()
	if old, ok := h.live[r.addr]; ok {
		h.bytes -= int64(old.size)
	}
	h.live[r.addr] = r
	h.bytes += int64(r.size)
}

// take takes out the block at addr, if it has size bytes or more, and the handle and the serial number unless these are 0.
// It is gone before the inner allocator is asked to free it, which may hand out the address at once. Of
// those who take a block at once, one gets it.
func (s *Backstop) take(addr, size, handle uintptr, serial uint64) (record, bool) {
	h := s.shardOf(addr)
	h.mu.Lock()
	defer h.mu.Unlock()
	r, ok := h.live[hidden.OfAddr(addr)]
	if !ok || size > r.size || handle != 0 && handle != r.handle || serial != 0 && serial != r.serial {
		return record{}, false
	}
	delete(h.live, hidden.OfAddr(addr))
	h.bytes -= int64(r.size)
	return r, true
}

func (h *shard) sum() (blocks, bytes int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return int64(len(h.live)), h.bytes
}
