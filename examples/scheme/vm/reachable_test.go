package vm

import (
	"runtime"
	"testing"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// TestReachable: all that a Machine has allocated is reachable from it, while it has lists, closures and garbage in it.
func TestReachable(t *testing.T) {
	mem := alloctest.New(t)
	m, _ := newMachine(t, Options{Memory: func(string) blockalloc.Allocator { return mem }})
	if got := run(m, "(define (up n) (if (= n 0) '() (cons (lambda () n) (up (- n 1)))))\n(define kept (up 20000))\n(length (up 20000))"); got != "20000" {
		t.Errorf("the forms are %q", got)
	}
	if mem.Stats().LiveBlocks == 0 {
		t.Error("nothing is live")
	}
	alloctest.VerifyReachable(t, mem)
	runtime.KeepAlive(m)
}
