package memlimit_test

import (
	"errors"
	"fmt"
	"log"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/memlimit"
)

// Where a machine may have no limit, as a developer's has none, a program goes on
// without a Limiter.
func ExampleNew() {
	mem := alloctrace.Wrap(new(blockalloc.System))
	block, err := mem.Allocate(blockalloc.BlockLayout(64 << 20))
	if err != nil {
		log.Fatal(err)
	}

	l, err := memlimit.New(memlimit.Options{Budget: 256 << 20}, mem)
	if errors.Is(err, memlimit.ErrNoBudget) {
		return // not with a Budget: without one, if there is neither GOMEMLIMIT nor a cgroup's limit
	}
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	r := l.Stats()
	fmt.Printf("%d MiB for Go of %d MiB\n", r.Limit>>20, r.Budget>>20)
	if err := mem.Free(block); err != nil {
		log.Fatal(err)
	}
	// Output: 192 MiB for Go of 256 MiB
}

// A Pool keeps the memory of freed blocks for reuse: its own numbers have that, and those of a
// Proxy have not.
func ExamplePool() {
	var pool blockalloc.Pool
	l, err := memlimit.New(memlimit.Options{Budget: 256 << 20}, memlimit.Pool(&pool))
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	fmt.Println(l.Stats().OffHeap)
	// Output: 0
}

// With 60 MiB off-heap, 60 MiB more of garbage may be made until the next collection.
func ExampleNewPacer() {
	mem := alloctrace.Wrap(new(blockalloc.System))
	block, err := mem.Allocate(blockalloc.Layout{Size: 60 << 20, Align: 4096})
	if err != nil {
		log.Fatal(err)
	}
	p, err := memlimit.NewPacer(memlimit.PacerOptions{}, mem)
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()
	s := p.Stats()
	fmt.Println(s.OffHeap>>20, "MiB off-heap:", s.Percent > s.Base)
	if err := mem.Free(block); err != nil {
		log.Fatal(err)
	}
	// Output: 60 MiB off-heap: true
}
