// Package blackbox keeps the last events, what is live, the counts and the peak in a file, which has them still when the process was
// killed, ran out of memory, or crashed.
//
//	profile := heapprofile.New(heapprofile.Options{Peak: true})
//	box, err := blackbox.Create("/dev/shm/server.box", blackbox.Options{Profile: profile})
//	…
//	defer box.Close()
//	mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithHooks(profile, box))
//	box.Watch(mem)
//
// [Open] reads the file, and so does the command: alloctrace blackbox server.box.
package blackbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/hooks/ring"
	"github.com/alloctrace/alloctrace/internal/pages"
	"github.com/alloctrace/alloctrace/internal/shard"
	"github.com/alloctrace/alloctrace/internal/stored"
)

// Options configure [Create]. The zero value keeps events and builds alone, in 4 MiB.
type Options struct {
	// Size is how many bytes the file has at most, 256 KiB to 1 GiB; 0 is 4 MiB. A quarter is for what is live and the
	// peak, and most of the rest for events, of which each takes 32 bytes.
	Size int64

	// Profile says what is live and what was at the peak. It is to be among the hooks of the Proxy too. If it is nil, the box
	// has neither.
	Profile *heapprofile.Profile

	// Period is how often the box writes what is not events: a second if it is 0 or less. If that takes long, because there
	// are many sites, it is less often: it takes a hundredth of a processor at most.
	Period time.Duration

	// Clock gives the times of events. If it is nil, the box has a [ring.CoarseClock] of a millisecond.
	Clock ring.Clock
}

// A Box is a Hook that keeps what happens in a file. The goroutine that allocates or frees writes the event, into memory that
// it shares with the file, at the cost of a [ring.Ring]. What is live, the peak and the counts are written by a goroutine of the
// Box. The kernel has all of it once it is written, so that nothing is lost when the process ends, however it does: what is lost is
// what an end of the machine loses.
//
// Nobody may shorten the file while the process runs: the kernel kills a process that writes into what is missing.
//
// A Box may be used by several goroutines at once, and by several Proxies.
type Box struct {
	shared  storage
	ring    *ring.Ring
	file    *os.File
	options Options
	coarse  *ring.CoarseClock // nil if Options have a Clock
	build   Build

	mu         sync.Mutex // guards what follows
	proxies    []*alloctrace.Proxy
	generation uint64 // of the table that was written last
	symbols    symbols
	closed     bool

	stop chan struct{}
	done sync.WaitGroup
}

var (
	_ alloctrace.Attacher = (*Box)(nil)
	_ hooks.UsageSource   = (*Box)(nil)
)

// Create makes the file at path, of which all bytes are allocated, so that a disk that is full is an error now. A black box that is
// there is kept as path.old, in place of the one that was there before; a file with other content is an error. So is one that another
// Box has, [ErrInUse]: until it is closed, and on Windows until its process ends. Where memory cannot be shared with files, as on
// js/wasm, the error is [errors.ErrUnsupported].
//
// The file can be read by its owner alone. It has names and addresses, and nothing of what is in blocks.
//
// A Box has timers. While one runs Go's runtime does not end a program all of whose goroutines wait, by "all goroutines are asleep".
func Create(path string, o Options) (*Box, error) {
	b, err := create(path, o)
	if err != nil {
		return nil, fmt.Errorf("blackbox: Create: %w", err)
	}
	return b, nil
}

func create(path string, o Options) (*Box, error) {
	if !pages.Supported {
		return nil, fmt.Errorf("no memory can be shared with files on this platform: %w", errors.ErrUnsupported)
	}
	l, err := newLayout(cmp.Or(o.Size, defaultSize), shard.NumProcs+1)
	if err != nil {
		return nil, err
	}
	l.pid, l.created = uint64(os.Getpid()), uint64(time.Now().UnixNano())
	f, err := claim(path)
	if err != nil {
		return nil, err
	}
	err = fill(f, &l)
	var mem []byte
	if err == nil {
		mem, err = mapped(f, l.size)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%d bytes for %s: %w", l.size, path, err), f.Truncate(0), f.Close(), os.Remove(path))
	}
	return newBox(storage{l, mem}, f, o), nil
}

// newBox makes a Box of memory that has a header and zeros. f is nil if it is of no file.
func newBox(s storage, f *os.File, o Options) *Box {
	if o.Period <= 0 {
		o.Period = time.Second
	}
	b := &Box{shared: s, file: f, options: o, build: thisBuild(), symbols: make(symbols), stop: make(chan struct{})}
	clock := o.Clock
	if clock == nil {
		b.coarse = ring.NewCoarseClock(time.Millisecond)
		clock = b.coarse
	}
	b.ring = stored.NewRing(int(s.events), clock, &b.shared).(*ring.Ring)
	b.Flush()
	b.done.Go(b.run)
	return b
}

func (b *Box) run() {
	timer := time.NewTimer(b.options.Period)
	defer timer.Stop()
	for {
		select {
		case <-b.stop:
			return
		case <-timer.C:
			start := time.Now()
			b.Flush()
			timer.Reset(max(b.options.Period, 99*time.Since(start)))
		}
	}
}

// Observe keeps e.
func (b *Box) Observe(ctx context.Context, e alloctrace.Event, err error) {
	b.ring.Observe(ctx, e, err)
}

// Attach implements [alloctrace.Attacher].
func (b *Box) Attach(to *alloctrace.Attachment) alloctrace.Hook { return b.ring.Attach(to) }

// Ring returns the Ring that writes the events: who has a Box needs no other. After Close it has only what came since.
func (b *Box) Ring() *ring.Ring { return b.ring }

// Watch names a Proxy whose numbers the file is to have, and those of its children. It may be called for several.
func (b *Box) Watch(p *alloctrace.Proxy) {
	if p == nil {
		panic("blackbox: Watch(nil): pass the Proxy that has the Box among its hooks")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Contains(b.proxies, p) {
		b.proxies = append(b.proxies, p)
	}
}

// Flush writes what is live, the peak and the numbers of Proxies now. Events need no Flush. It takes some microseconds for each
// site, and does nothing after Close.
func (b *Box) Flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.flush()
	}
}

func (b *Box) flush() {
	t := table{room: int(b.shared.tableLen) - tableHeader - omittedRoom, frames: make(map[Frame]int)}
	t.add(t.room/4, line{Build: &b.build})
	t.addProxies(b.proxies)
	if p := b.options.Profile; p != nil {
		live, samples := liveOf(p)
		limit := t.room
		if p.Peak() != nil {
			limit = (t.room + len(t.content)) / 2
		}
		t.omitted.Live = t.addSites(limit, line{Live: &live}, samples, b.symbols)
		if k := p.Peak(); k != nil {
			at := k.Get()
			peak := Sites{Time: at.Time, Rate: p.Rate(), Blocks: at.Blocks, Bytes: at.Bytes, Error: at.Error}
			t.omitted.Peak = t.addSites(t.room, line{Peak: &peak}, at.Samples, b.symbols)
		}
	}
	if t.omitted != (omitted{}) {
		t.add(t.room+omittedRoom, line{Omitted: &t.omitted})
	}
	b.generation++
	b.shared.writeTable(b.generation, time.Now().UnixNano(), t.content)
}

// Usage returns what b has done and takes on the Go heap. The file is not in it.
func (b *Box) Usage() hooks.Usage {
	u := b.ring.Usage()
	b.mu.Lock()
	defer b.mu.Unlock()
	u.Bytes += int64(unsafe.Sizeof(*b))
	for _, frames := range b.symbols {
		u.Bytes += int64(unsafe.Sizeof(&frames)) + int64(unsafe.Sizeof(frames)) + int64(cap(frames))*int64(unsafe.Sizeof(Frame{}))
	}
	return u
}

// Close writes all once more, says in the file that the process ended well, and ends the Box. Events that come later are in no file;
// on Windows they may still be: there the file is in use until the process ends. The Box keeps its address space. A second call does
// nothing.
func (b *Box) Close() error {
	b.mu.Lock()
	closed := b.closed
	if !closed {
		b.flush()
		b.closed = true
	}
	b.mu.Unlock()
	if closed {
		return nil
	}
	close(b.stop)
	b.done.Wait()
	if b.coarse != nil {
		_ = b.coarse.Close()
	}
	b.shared.word(closedAt).Store(little(uint64(time.Now().UnixNano())))
	if b.file == nil {
		return nil
	}
	err := pages.DetachFile(unsafe.Pointer(&b.shared.mem[0]), uintptr(len(b.shared.mem)))
	if err = errors.Join(err, b.file.Close()); err != nil {
		return fmt.Errorf("blackbox: Close: %w", err)
	}
	return nil
}
