// Racy writes a block of a Proxy in two goroutines: at once, or with the argument
// "ordered" one after the other.
package main

import (
	"fmt"
	"os"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
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
	b, err := mem.Allocate(blockalloc.BlockLayout(4096))
	if err != nil {
		test{}.Fatalf("%v", err)
	}
	started, done := make(chan bool, 1), make(chan bool)
	go func() {
		if len(os.Args) > 1 && os.Args[1] == "ordered" {
			<-started
		}
		b.Bytes()[7]++
		done <- true
	}()
	b.Bytes()[7]++
	started <- true
	<-done
	if err := mem.Free(b); err != nil {
		test{}.Fatalf("%v", err)
	}
}
