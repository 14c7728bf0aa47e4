// Racy writes a block of a Proxy in two goroutines: at once, or with an argument one
// after the other.
package main

import (
	"fmt"
	"os"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/bugs"
)

// test is enough of a test for alloctest.
type test struct{}

func (test) Helper() {}

func (test) Cleanup(func()) {}

func (test) Errorf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (test) Fatalf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

func main() {
	mem := alloctest.New(test{})
	if len(os.Args) == 1 {
		_ = bugs.Named("race on block bytes").Plant(mem, nil)
		return
	}
	b, err := mem.Allocate(blockalloc.BlockLayout(4096))
	if err != nil {
		test{}.Fatalf("%v", err)
	}
	written := make(chan bool)
	go func() {
		b.Bytes()[7]++
		written <- true
	}()
	<-written
	b.Bytes()[7]++
	if err := mem.Free(b); err != nil {
		test{}.Fatalf("%v", err)
	}
}
