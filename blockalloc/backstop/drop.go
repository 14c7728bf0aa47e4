package backstop

import (
	"errors"
	"fmt"
	"path"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/alloctrace/alloctrace/internal/callers"
	"github.com/alloctrace/alloctrace/internal/hidden"
	"github.com/alloctrace/alloctrace/internal/text"
)

// A Drop is a block whose handle was collected before somebody has freed it.
type Drop struct {
	Size  uintptr       // bytes, as granted
	Age   time.Duration // from its allocation until the Backstop has come to free it
	Stack []uintptr     // who allocated it: return addresses, the innermost first, 32 at most; nil if Options.NoStacks
	Err   error         // why it could not be freed: that of the inner allocator, or what it panicked with; nil if it was

	skip callers.Skip
}

// Frames returns the frames of d.Stack, from the function that allocated outwards, without those of
// this library and of Options.Skip, and without those of the Go runtime and of package testing at either
// end.
func (d Drop) Frames() []runtime.Frame { return d.skip.Frames(d.Stack) }

// framesShown is how many frames a line shows.
const framesShown = 8

// String returns a line, for example
//
//	4096 bytes dropped 1.2s after their allocation by rpc.(*stream).read (stream.go:42), rpc.serve (server.go:17)
func (d Drop) String() string {
	var line strings.Builder
	fmt.Fprintf(&line, "%d bytes dropped %v after their allocation", d.Size, d.Age.Round(time.Microsecond))
	frames := d.Frames()
	for i, f := range frames[:min(len(frames), framesShown)] {
		separator := ", "
		if i == 0 {
			separator = " by "
		}
		fmt.Fprintf(&line, "%s%s (%s:%d)", separator, text.Line(path.Base(f.Function), text.MaxName), text.Line(path.Base(f.File), text.MaxName), f.Line)
	}
	if d.Err != nil {
		fmt.Fprintf(&line, " and not freed: %s", text.Line(d.Err.Error(), text.MaxText))
	}
	return line.String()
}

// maxFrames is how many frames of a stack are kept, those of this package included.
const maxFrames = 32

// A stack is return addresses, the innermost first. There is one in memory for all blocks that have
// the same.
type stack struct {
	n   int
	pcs [maxFrames]uintptr
}

type stackHandle = unique.Handle[stack]

// caller returns the stack of who called it.
func caller() stackHandle {
	var s stack
	s.n = callers.Stack(s.pcs[:])
	return unique.Make(s)
}

// A key is what the cleanup of a handle is given.
type key struct {
	backstop *Backstop
	addr     hidden.Addr
	serial   uint64
}

// A pending drop goes from one step to the next, also when a step ends its goroutine.
type pending struct {
	record
	drop                     Drop
	freed, counted, reported bool
	err                      error // of OnDrop
}

// drops are the blocks that were dropped. The runtime's goroutine, which calls the cleanups of the
// whole program, only queues them: the allocator and OnDrop may take their time in another one.
type drops struct {
	mu      sync.Mutex
	queue   []*pending // in the order in which the cleanups came
	working bool       // there is a goroutine for them
	stats   Stats
	errs    []error
	more    int // errors beyond maxErrors
}

// maxErrors is how many errors are kept.
const maxErrors = 16

// unfinished is how many drops of all Backstops are queued.
var unfinished atomic.Int64

// dropped is the cleanup of a handle. If the block was freed, or the address belongs to another one,
// there is nothing to do.
func dropped(k key) {
	s := k.backstop
	r, ok := s.take(k.addr.Addr(), 0, 0, k.serial)
	if !ok {
		return
	}
	p := &pending{record: r, drop: Drop{Size: r.size, skip: s.skip}}
	unfinished.Add(1)
	s.mu.Lock()
	s.queue = append(s.queue, p)
	start := !s.working
	s.working = true
	s.mu.Unlock()
	if start {
		go s.work()
	}
}

// work frees and reports what is queued, until nothing is.
func (s *Backstop) work() {
	ended := true // by runtime.Goexit, for panics do not come here
	defer func() {
		if ended {
			go s.work()
		}
	}()
	for p := s.next(); p != nil; p = s.next() {
		if !p.freed {
			p.freed = true
			p.drop.Age = max(0, time.Since(s.start)-p.since)
			if p.stack != (stackHandle{}) {
				stack := p.stack.Value()
				p.drop.Stack = slices.Clone(stack.pcs[:stack.n])
			}
			protect(&p.drop.Err, "freeing what was dropped", func() error { return s.inner.Free(p.block()) })
		}
		s.count(p)
		if s.onDrop != nil && !p.reported {
			p.reported = true
			protect(&p.err, "OnDrop", func() error { s.onDrop(p.drop); return nil })
		}
		s.finish(p)
	}
	ended = false
}

// protect calls f, and sets err to its error, or to what it panicked with. It sets it also if f ends
// the goroutine, and then does not return.
func protect(err *error, what string, f func() error) {
	returned := false
	defer func() {
		if v := recover(); v != nil {
			*err = fmt.Errorf("backstop: %s panicked: %v\n%s", what, v, debug.Stack())
		} else if !returned {
			*err = fmt.Errorf("backstop: %s has ended its goroutine: return instead of runtime.Goexit or FailNow", what)
		}
	}()
	*err = f()
	returned = true
}

// next returns the first drop of the queue, nil if there is none, and then the goroutine is to end.
func (d *drops) next() *pending {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) == 0 {
		d.working, d.queue = false, nil
		return nil
	}
	return d.queue[0]
}

// count counts a drop, before it is reported.
func (d *drops) count(p *pending) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.counted {
		return
	}
	p.counted = true
	if p.drop.Err != nil {
		d.stats.FailedBlocks++
		d.stats.FailedBytes += int64(p.drop.Size)
		d.keep(p.drop.Err)
		return
	}
	d.stats.DroppedBlocks++
	d.stats.DroppedBytes += int64(p.drop.Size)
}

// finish takes the first drop out of the queue.
func (d *drops) finish(p *pending) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queue[0] = nil
	d.queue = d.queue[1:]
	if p.err != nil {
		d.keep(p.err)
	}
	unfinished.Add(-1)
}

// keep keeps an error. d.mu is locked.
func (d *drops) keep(err error) {
	if len(d.errs) < maxErrors {
		d.errs = append(d.errs, err)
	} else {
		d.more++
	}
}

// addTo adds to n what was dropped, and what is still queued.
func (d *drops) addTo(n *Stats) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n.DroppedBlocks, n.DroppedBytes = d.stats.DroppedBlocks, d.stats.DroppedBytes
	n.FailedBlocks, n.FailedBytes = d.stats.FailedBlocks, d.stats.FailedBytes
	for _, p := range d.queue {
		if !p.counted {
			n.LiveBlocks++
			n.LiveBytes += int64(p.drop.Size)
		}
	}
}

// Err returns what nobody was there to be returned to: the errors of blocks that were dropped and
// could not be freed, and that OnDrop panicked or ended its goroutine. They are joined, the first 16 of
// them. It is nil if there are none.
func (s *Backstop) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := slices.Clone(s.errs)
	if s.more > 0 {
		errs = append(errs, fmt.Errorf("backstop: %d more errors", s.more))
	}
	return errors.Join(errs...)
}
