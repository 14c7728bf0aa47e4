// Package grpcmem gives gRPC buffers of a blockalloc.Allocator, so that they are counted, traced and
// profiled, and are no garbage:
//
//	slab, err := blockalloc.NewSlab(blockalloc.Default(), 64<<10)
//	mem := alloctrace.Wrap(slab, alloctrace.WithName("grpc"))
//	server := grpcmem.New(mem.Child("server"), grpcmem.Options{})
//	s := grpc.NewServer(experimental.BufferPool(server))
//	client := grpcmem.New(mem.Child("client"), grpcmem.Options{})
//	conn, err := grpc.NewClient(target, experimental.WithBufferPool(client), …)
//
// It is beside the allocators, where one looks for it, and imports no package of gRPC's: a [Pool] is a
// mem.BufferPool by its methods. The Slab cuts blocks into buffers of some KiB, for which
// [blockalloc.Default] grants a page or the next power of two.
//
// What gRPC's codec for protocol buffers writes is of the default pool, for all servers and clients of the
// process: experimental.SetDefaultBufferPool sets that, in an init function.
//
// # Who gets what
//
// A pool for each server and each client counts for these, by its child. gRPC asks for buffers by their length
// alone, and for what it receives in the goroutine of a connection, which serves many calls at
// once. So no pool can count by method. What handlers allocate for a call is counted by
// method: see WithChildren of package exporters/tracegrpc.
//
// # Buffers that gRPC drops
//
// gRPC leaves some buffers to the garbage collector, such as those of messages that were not read when their
// stream ended. A Pool frees them when they are collected, and counts them as dropped, with the calls that
// took them: see package [github.com/alloctrace/alloctrace/blockalloc/backstop]. For that to be
// right, a codec must keep these two rules, as those of gRPC do:
//
//   - It passes on the pointer that Get returned, and makes none of its own to a part of the buffer.
//   - Where it keeps a part of a message, it keeps the mem.Buffer, too, and does not free it. The slice alone keeps
//     nothing alive.
package grpcmem

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/backstop"
)

// minSize is the size in bytes from which buffers are the allocator's. Of smaller ones gRPC's mem.NewBuffer keeps
// the slice alone, and never puts it back.
const minSize = 1<<10 + 1

// align is a cache line: two buffers share none.
const align = 64

// Options configure [New]. The zero value is right for most.
type Options struct {
	// OnError is called for what Put must not accept: a second Put of a buffer, one by another pointer than Get
	// has returned, and what the allocator refuses to take back. The buffer stays as it is. If OnError is nil, Put
	// panics with the error. OnError is also called if Get had to take a buffer of the Go heap. Several
	// goroutines may call it at once.
	OnError func(error)

	// OnDrop is called for each buffer that gRPC has dropped, after it was freed, as in backstop.Options.
	OnDrop func(backstop.Drop)

	// NoStacks leaves out of Drop who took the buffer, which costs some 200 nanoseconds a buffer, and
	// microseconds on other processors than amd64 and arm64.
	NoStacks bool

	// Dirty hands out buffers with what was in them before. By default they are zero, as those of gRPC's own pools are. The interface does not promise that, and gRPC writes to all buffers before it reads them.
	// But a codec of somebody else's may rely on it, and one with a bug then shows one client what another has sent.
	Dirty bool
}

// A Pool is a mem.BufferPool of gRPC's. It keeps no buffers itself: that is for the allocator to do, which has what
// is in use in its counts.
//
// Buffers of more than 1 KiB are blocks of the allocator, aligned to 64 bytes. Their capacity is what gRPC has asked for.
// Smaller ones, which gRPC never puts back, are of the Go heap.
//
// Several goroutines may use a Pool at once if they may use its allocator. A Get and Put cost 300 to 600
// nanoseconds beside what the allocator takes, and 3 allocations of 64 bytes in all on the Go heap: see
// [backstop.Backstop].
type Pool struct {
	buffers  *backstop.Backstop
	onError  func(error)
	zeroed   bool
	foreign  atomic.Int64
	fallback atomic.Int64
}

// New returns a Pool that takes memory from mem. It panics if mem is nil.
func New(mem blockalloc.Allocator, o Options) *Pool {
	if mem == nil {
		panic("grpcmem: New(nil): pass an allocator, such as a Proxy around blockalloc.Default()")
	}
	return &Pool{
		buffers: backstop.New(mem, backstop.Options{OnDrop: o.OnDrop, NoStacks: o.NoStacks}),
		onError: o.OnError,
		zeroed:  !o.Dirty,
	}
}

// Get returns a buffer of length bytes. If the allocator fails, and after Shutdown, it is of the Go heap, for gRPC has no
// way to refuse a message then: the Proxy has the failure, Stats.Fallback counts it, and OnError is called. Get panics
// if length is negative.
func (p *Pool) Get(length int) *[]byte {
	if length >= minSize {
		buffer, err := p.buffers.Allocate(blockalloc.Layout{Size: uintptr(length), Align: align})
		if err == nil {
			*buffer = (*buffer)[:length:length] // nobody touches what was granted beyond that, which may be as much again
			if p.zeroed {
				clear(*buffer)
			}
			return buffer
		}
		p.fallback.Add(1)
		if p.onError != nil {
			p.onError(fmt.Errorf("grpcmem: Get(%d): %w", length, err))
		}
	}
	if length < 0 {
		panic(fmt.Sprintf("grpcmem: Get(%d): the length is negative", length))
	}
	buffer := make([]byte, length)
	return &buffer
}

// spent is what a buffer that was put is a slice of. No other slice begins there.
var spent [1]byte

// Put frees a buffer, whose slice is empty from then on. It takes a prefix of it too, by the pointer that Get returned.
//
// A buffer that did not come from this Pool is left to the garbage collector, and counted: gRPC puts what codecs
// and compressors made. A second Put is an error that wraps [blockalloc.ErrDoubleFree]. One of a copy of the
// slice is [blockalloc.ErrNotOwned] if its memory is in use again, and else looks like a buffer from elsewhere.
// Errors go to Options.OnError, or else Put panics with them.
func (p *Pool) Put(buffer *[]byte) {
	if buffer == nil {
		p.fail(fmt.Errorf("grpcmem: Put(nil): %w: pass the pointer that Get returned", blockalloc.ErrNotOwned))
		return
	}
	if unsafe.SliceData(*buffer) == &spent[0] {
		p.fail(fmt.Errorf("grpcmem: Put: %w: it was put before: put it once", blockalloc.ErrDoubleFree))
		return
	}
	if cap(*buffer) < minSize {
		return // such as what Get took from the Go heap
	}
	if !p.buffers.Owns(*buffer) {
		p.foreign.Add(1)
		return
	}
	if err := p.buffers.Free(buffer); err != nil {
		p.fail(fmt.Errorf("grpcmem: Put: %w", err))
		return
	}
	*buffer = spent[:0]
}

func (p *Pool) fail(err error) {
	if p.onError == nil {
		panic(err)
	}
	p.onError(err)
}

// Stats are the numbers of a Pool. Those of small buffers are not known.
type Stats struct {
	backstop.Stats // of the allocator's buffers: live, dropped, and dropped without being freed

	Foreign  int64 // buffers of more than 1 KiB that were put and are not of this Pool
	Fallback int64 // buffers of the Go heap that Get returned because the allocator had failed
}

// Stats returns the numbers. They are exact at rest.
func (p *Pool) Stats() Stats {
	return Stats{p.buffers.Stats(), p.foreign.Load(), p.fallback.Load()}
}

// Shutdown ends allocation: buffers of later calls of Get are of the Go heap. Then it runs the garbage collector until
// no buffer is in use, or ctx is done: what gRPC has dropped has to be found, and the last goroutines of a server and of
// a connection end some time after GracefulStop and Close have returned. Call it after these.
//
// It returns an error that wraps [blockalloc.ErrLive] if buffers are still in use, joined with what has gone wrong with those
// that were dropped. It can be called again. The allocator stays open.
func (p *Pool) Shutdown(ctx context.Context) error {
	err := p.buffers.Close()
	for wait := time.Millisecond; errors.Is(err, blockalloc.ErrLive) && ctx.Err() == nil; wait = min(2*wait, time.Second) {
		if backstop.Collect(ctx) == nil && p.buffers.Stats().LiveBlocks > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
		}
		err = p.buffers.Close()
	}
	if err != nil {
		return fmt.Errorf("grpcmem: Shutdown: %w", err)
	}
	return nil
}
