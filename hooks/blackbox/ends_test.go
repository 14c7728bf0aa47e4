package blackbox

import (
	"runtime/debug"
	"sync"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// lock is a mutex whose misuse go vet does not see.
type lock struct{ mu sync.Mutex }

// unlock is a fatal error of the Go runtime if nobody has locked it.
func (l *lock) unlock() { l.mu.Unlock() }

// overflow needs more stack than there is.
func overflow(n int) int {
	if n == 0 {
		debug.SetMaxStack(1 << 20)
	}
	return overflow(n+1) + 1 //lint:ignore SA5007 it is to end the process
}

// fillForever allocates, and writes to, more than there is. Now and then it has the box write what is live, for a busy machine may take
// longer to do so by itself than memory lasts.
//
//go:noinline
func fillForever(mem *alloctrace.Proxy, b *Box) error {
	for n := 0; ; n++ {
		if n%4 == 0 {
			b.Flush()
		}
		block, err := mem.Allocate(blockalloc.BlockLayout(1 << 20))
		if err != nil {
			return err
		}
		clear(block.Bytes())
		for i := 0; i < len(block.Bytes()); i += 4096 {
			block.Bytes()[i] = 1
		}
	}
}
