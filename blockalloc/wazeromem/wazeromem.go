// Package wazeromem gives the guests of wazero, a WebAssembly runtime, linear memory of this library's allocators. It is outside
// the Go heap, and counted, traced and limited by guest.
//
//	mem := alloctrace.Wrap(wazeromem.Default(), alloctrace.WithName("guests"))
//	guests := wazeromem.New(mem, wazeromem.Options{Limit: 64 << 20})
//	guest, err := guests.Instantiate(ctx, "tenant-7", func(ctx context.Context) (api.Module, error) {
//		return runtime.InstantiateModule(ctx, compiled, config)
//	})
//	if err != nil {
//		return err
//	}
//	defer guest.Close(ctx)
//	err = guest.Do(ctx, func(module api.Module) error {
//		_, err := module.ExportedFunction("handle").Call(ctx, 42)
//		return err
//	})
//
// Memory of [Default] never moves: memory.grow makes more of it accessible, at no cost for what is there, and shared memory
// of the threads proposal can grow. A guest that cannot grow, for a [blockalloc.Limit] or for want of memory, is
// answered -1, as WebAssembly demands. The refusal is counted, and hooks and regions observe it.
//
// # Without Instantiate
//
// An [Allocator] is a MemoryAllocator of wazero, for code that instantiates modules by wazero alone:
//
//	ctx = experimental.WithMemoryAllocator(ctx, guests.Named("tenant-7"))
//	module, err := runtime.InstantiateModule(ctx, compiled, config)
//
// Four things are then as wazero has them:
//
//   - If the guest's minimum is refused, wazero panics with "slice bounds out of range".
//   - If the instantiation fails later, in a data segment or in the module's start function, wazero does not free the memory.
//     Nor does it if a context ends just when a call returns, with RuntimeConfig.WithCloseOnContextDone.
//   - Closing a module frees its memory at once. A call that is under way in another goroutine then
//     reads and writes memory that is unmapped, and the process ends. So it does with api.Memory after Close.
//   - Closing a module that imports a memory frees it, though the module that exports it lives.
package wazeromem

import (
	"runtime"

	"github.com/tetratelabs/wazero/experimental"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// reserveMax is 4 GiB, all that a guest can address, or 64 MiB where the host's addresses have 32 bits.
const reserveMax = uintptr(64<<20) << (6 * (^uintptr(0) >> 63))

var reserved = &blockalloc.Reserved{Max: reserveMax}

// Default returns the allocator to start with: a [blockalloc.Reserved] that the process shares. It reserves 4 GiB of
// address space for each memory, of which there can be some 32,000. With 32-bit addresses it is 64 MiB for each of some
// 30, and a guest cannot grow beyond that. On platforms without virtual memory (js/wasm, wasip1, plan9) it returns a
// [blockalloc.Heap].
func Default() blockalloc.Allocator {
	switch runtime.GOOS {
	case "js", "wasip1", "plan9":
		return new(blockalloc.Heap)
	}
	return reserved
}

// Options are the options of [New]. The zero value is right for most.
type Options struct {
	// Limit is how many bytes the memory of one guest may have. Zero and less are no limit but that of the guest's
	// own maximum, of wazero's WithMemoryLimitPages, and of the allocator.
	Limit int64

	// OnError is called with errors that wazero has no result for: a block that could not be freed when wazero closed
	// the module, and growth of a memory that is freed. It may be called by several goroutines at once. Nil panics
	// with the error.
	OnError func(error)
}

// An Allocator makes linear memories. It is an [experimental.MemoryAllocator], of wazero's package whose interfaces may change with
// a minor version. Several goroutines may use it at once.
type Allocator struct {
	mem     *alloctrace.Proxy
	name    string
	o       Options
	inPlace bool
}

var _ experimental.MemoryAllocator = (*Allocator)(nil)

// New returns an Allocator that takes memory from mem: around [Default], or a [blockalloc.Limit] of it that bounds all
// guests together. It panics if mem is nil.
//
// On other allocators memory is copied when it grows, unless they are a [blockalloc.Resizer] that can resize the block
// in place. Shared memory must not move: set RuntimeConfig.WithMemoryCapacityFromMax there, which allocates each
// memory with its maximum.
func New(mem *alloctrace.Proxy, o Options) *Allocator {
	if mem == nil {
		panic("wazeromem: New(nil): pass a Proxy, such as alloctrace.Wrap(wazeromem.Default())")
	}
	return &Allocator{mem: mem, o: o, inPlace: staysInPlace(mem)}
}

// staysInPlace reports whether all blocks of a can grow where they are: those of a Reserved, behind wrappers.
func staysInPlace(a blockalloc.Allocator) bool {
	for {
		if _, ok := a.(blockalloc.Resizer); !ok {
			return false
		}
		switch w := a.(type) {
		case *blockalloc.Reserved:
			return true
		case interface{ Unwrap() blockalloc.Allocator }:
			a = w.Unwrap()
		default:
			return false
		}
	}
}

// Named returns an Allocator whose memories are counted in children of that name, see [alloctrace.Proxy.Child]. Those of
// the Allocator that New returns have no name.
func (a *Allocator) Named(name string) *Allocator {
	n := *a
	n.name = name
	return &n
}

// Allocate returns a memory that may grow to max bytes, for wazero to call. It takes nothing of the Proxy yet:
// wazero asks for the guest's minimum at once.
func (a *Allocator) Allocate(capacity, max uint64) experimental.LinearMemory {
	return a.newMemory(a.name).Allocate(capacity, max)
}

// newMemory returns a memory that counts in a child of its own, which ends with it.
func (a *Allocator) newMemory(name string) *memory {
	var opts []alloctrace.Option
	if a.o.Limit > 0 {
		opts = append(opts, alloctrace.WithInner(func(inner blockalloc.Allocator) blockalloc.Allocator {
			return blockalloc.NewLimit(inner, a.o.Limit)
		}))
	}
	return &memory{of: a, name: name, child: a.mem.Child(name, opts...)}
}

// report delivers an error that nobody is returned.
func (a *Allocator) report(err error) {
	switch {
	case err == nil:
	case a.o.OnError == nil:
		panic(err)
	default:
		a.o.OnError(err)
	}
}
