// Package memory has the allocator that clients run on. The environment says which one that is, and
// where to leave its figures, so that the clients' own tests need no change.
//
//	ALLOCTRACE_CLIENTS_DEBUG=1   a debug.Allocator finds misuse, and reports it on stderr
//	ALLOCTRACE_CLIENTS_DIR=DIR   each process counts in a file of its own in DIR
//	ALLOCTRACE_CLIENTS_PROFILE=1 a heap profile samples blocks, as it may in production
package memory

import (
	"fmt"
	"os"
	"sync"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// Default returns the Proxy that a process has for its client: around a Slab, since clients
// ask for some dozen bytes and for megabytes, which go on to a Pool. It keeps little that is free, as C's heap does.
var Default = sync.OnceValue(func() *alloctrace.Proxy {
	slab, err := blockalloc.NewSlab(&blockalloc.Pool{MaxCached: 1 << 20}, 64<<10)
	if err != nil {
		panic(err)
	}
	return Wrap(slab)
})

// Wrap returns a Proxy around inner, for a client that has but that one, or around memory that reports misuse.
func Wrap(inner blockalloc.Allocator) *alloctrace.Proxy {
	if os.Getenv("ALLOCTRACE_CLIENTS_DEBUG") != "" {
		inner = debug.New(&blockalloc.Heap{}, debug.Options{OnReport: func(r *debug.Report) {
			fmt.Fprintf(os.Stderr, "alloctrace: %v\n", r)
		}})
	}
	var hooks []alloctrace.Hook
	if dir := os.Getenv("ALLOCTRACE_CLIENTS_DIR"); dir != "" {
		counts, err := newCounts(dir)
		if err != nil {
			panic(err)
		}
		hooks = append(hooks, counts)
	}
	if os.Getenv("ALLOCTRACE_CLIENTS_PROFILE") != "" {
		hooks = append(hooks, heapprofile.New(heapprofile.Options{}))
	}
	return alloctrace.Wrap(inner, alloctrace.WithName("client"), alloctrace.WithHooks(hooks...))
}
