package recording

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/bits"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/internal/callers"
	"github.com/alloctrace/alloctrace/internal/region"
	"github.com/alloctrace/alloctrace/internal/shard"
)

// Options configure a [Recorder]. The zero value is right for most.
type Options struct {
	// MaxBytes bounds the bytes on the disk of a Recorder of [Create]: when its file has half of them, it becomes path.old,
	// in place of the one before, and a new one begins. Zero means 1 GiB.
	MaxBytes int64

	// NoStacks leaves out who asked for the memory, which takes most of the time.
	NoStacks bool

	// FreeStacks adds who freed it.
	FreeStacks bool

	// Skip are packages, such as those of an adapter, that stacks leave out where they are the innermost: import paths, or
	// with "/..." after them for all packages below as well.
	Skip []string

	// FlushEvery is how much of the past a crash may cost, at most a little more. Zero means a second.
	FlushEvery time.Duration

	// Queue is how many events of each processor wait for the writer: of more, events are dropped and counted. They take 40
	// bytes each, the end of a reallocation twice as much. It is rounded up to a power of two. Zero means 32768.
	Queue int
}

// maxFrames is how many return addresses of a stack are kept, those of this library included.
const maxFrames = 32

// A Recorder is a [alloctrace.Hook] that writes events to a file or an io.Writer. It never waits for that, and allocates
// nothing on the Go heap: an event goes to a queue of the processor, from which a goroutine of the Recorder takes it. An
// event that finds the queue full is dropped, and the recording says where and how many.
//
// An event costs a look at the clock and some nanoseconds; with stacks an acquisition costs a walk up the stack and a
// look-up more. A Recorder takes 1.3 MiB for each processor that allocates, and for each stack that it has seen some 300
// bytes.
//
// Events of one goroutine are in the order in which they happened. So are those of two if one waited for the other. Times
// never go back, and are behind by as much as an event was overtaken. Where the clock is too coarse to tell that order, as on Windows, there
// is one queue for all processors, with a lock.
//
// Several goroutines and several Proxies may use a Recorder at once. Close it to have the last events.
type Recorder struct {
	options Options
	skip    callers.Skip
	began   time.Time
	queues  []atomic.Pointer[queue] // by processor, nil until its first event; none if the clock is not fine
	others  atomic.Pointer[queue]   // for processors that have none
	stacks  stackTable
	regions names
	parts   parts
	closed  atomic.Bool

	wake chan struct{}
	ask  chan chan error // to flush, or if nil to end
	done chan struct{}

	out     output
	encoder encoder
	cursors []cursor
	written atomic.Int64 // events
	dropped atomic.Int64
	err     error // the last that a write returned; the writer's
}

var (
	_ alloctrace.Attacher = (*Recorder)(nil)
	_ hooks.UsageSource   = (*Recorder)(nil)
)

// New returns a Recorder that writes to w, from one goroutine, some ten to hundred thousand bytes at a time.
func New(w io.Writer, o Options) (*Recorder, error) {
	if w == nil {
		return nil, errors.New("recording: New(nil): pass a writer, or use Create")
	}
	r, err := start(&stream{w: w}, o)
	if err != nil {
		return nil, fmt.Errorf("recording: New: %w", err)
	}
	return r, nil
}

// Create returns a Recorder that writes to a new file. If there is one at path, it becomes path.old, in place of the one before.
func Create(path string, o Options) (*Recorder, error) {
	if o.MaxBytes == 0 {
		o.MaxBytes = 1 << 30
	}
	f, err := createFile(path, o.MaxBytes)
	if err == nil {
		var r *Recorder
		if r, err = start(f, o); err == nil {
			return r, nil
		}
		f.Close()
		os.Remove(path)
	}
	return nil, fmt.Errorf("recording: Create(%q): %w", path, err)
}

func start(out output, o Options) (*Recorder, error) {
	if o.Queue == 0 {
		o.Queue = 1 << 15
	}
	if o.FlushEvery == 0 {
		o.FlushEvery = time.Second
	}
	if o.Queue < 2 || o.Queue > 1<<24 {
		return nil, fmt.Errorf("Options.Queue is %d: use 2 to %d, or 0 for %d", o.Queue, 1<<24, 1<<15)
	}
	if o.FlushEvery < time.Millisecond {
		return nil, fmt.Errorf("Options.FlushEvery is %v: use a millisecond or more, or 0 for a second", o.FlushEvery)
	}
	o.Queue = 1 << bits.Len(uint(o.Queue-1))
	skip, err := callers.NewSkip(o.Skip)
	if err != nil {
		return nil, fmt.Errorf("Options.%w", err)
	}
	r := &Recorder{
		options: o,
		skip:    skip,
		began:   time.Now(),
		wake:    make(chan struct{}, 1),
		ask:     make(chan chan error),
		done:    make(chan struct{}),
		out:     out,
	}
	if isFine() {
		r.queues = make([]atomic.Pointer[queue], shard.NumProcs)
	} else { // what processors do at one time is in the order in which they come to the one queue
		r.options.Queue <<= bits.Len(uint(shard.NumProcs - 1))
	}
	r.stacks.init()
	if err := r.encoder.init(r, r.header()); err != nil {
		return nil, err
	}
	if err := r.flush(); err != nil { // the header, so that a file that cannot be written is an error now
		return nil, err
	}
	go r.run()
	return r, nil
}

// header returns what the recording says of this process.
func (r *Recorder) header() Header {
	h := Header{
		Began: r.began.UTC(), PID: os.Getpid(), GOOS: runtime.GOOS, GOARCH: runtime.GOARCH, Go: runtime.Version(),
		PageSize: os.Getpagesize(), Stacks: !r.options.NoStacks, FreeStacks: r.options.FreeStacks,
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		h.Program = info.Path
	}
	return h
}

// Observe records e, of a Proxy that did not attach the Recorder.
func (r *Recorder) Observe(ctx context.Context, e alloctrace.Event, _ error) {
	p := part{r, 0}
	p.record(ctx, e, 0, 0)
}

// Attach returns the part for a Proxy or child.
func (r *Recorder) Attach(to *alloctrace.Attachment) alloctrace.Hook {
	p := &part{r, r.parts.number(to.Proxy, to.Child) << whoShift}
	if to.ID == 0 { // it is of no Proxy, but of somebody who hands on events alone
		return observer{p}
	}
	to.OnRequested(p.record)
	return p
}

// A part observes the events of one Proxy or child.
type part struct {
	recorder *Recorder
	who      uint64 // its number, as a record has it
}

// Observe records e but for what a Proxy calls record for.
func (p *part) Observe(ctx context.Context, e alloctrace.Event, _ error) {
	if e.Kind == alloctrace.Freeing || e.Kind == alloctrace.AllocateFailed || e.Kind == alloctrace.FreeFailed {
		p.record(ctx, e, 0, 0)
	}
}

// An observer is a part that is told nothing but events.
type observer struct{ *part }

func (o observer) Observe(ctx context.Context, e alloctrace.Event, _ error) { o.record(ctx, e, 0, 0) }

// record puts an event in the queue of its processor. Of Reallocating it returns the number of the reallocation, and what ends that
// comes with began.
func (p *part) record(ctx context.Context, e alloctrace.Event, requested uintptr, began uint64) (number uint64) {
	r := p.recorder
	if r.closed.Load() {
		return 0
	}
	granted := min(uint64(e.Size), maxSize)<<sizeShift | uint64(bits.TrailingZeros64(uint64(e.Align)))%(1<<alignBits)<<kindBits | uint64(e.Kind)
	asked := uint64(0)
	if e.Kind <= alloctrace.Reallocated {
		asked = min(uint64(requested), maxSize)
	}
	if in := region.From(ctx); in != nil {
		asked |= r.regions.number(in.Name()) << sizeBits
	}
	who := p.who
	if e.Kind <= alloctrace.Reallocated && !r.options.NoStacks || r.options.FreeStacks {
		who |= uint64(r.stacks.caller())
	}
	proc := shard.Pin()
	if shard.Pinned && e.Kind != alloctrace.Reallocating && uint(proc.Index) < uint(len(r.queues)) {
		if q := r.queues[proc.Index].Load(); q != nil {
			wake := q.put(proc, uint64(e.Addr), granted, asked, uint64(time.Since(r.began)), who, began)
			proc.Unpin()
			if wake {
				r.wakeWriter()
			}
			return 0
		}
	}
	return r.recordShared(proc, uint64(e.Addr), granted, asked, who, began)
}

// recordShared is record where the processor has no queue yet, or shares one, and of what gets a number. It unpins p.
func (r *Recorder) recordShared(p shard.Proc, addr, granted, asked, who, began uint64) (number uint64) {
	var wake bool
	for {
		own, shared, index := &r.others, true, len(r.queues)
		if p.Index < len(r.queues) {
			own, shared, index = &r.queues[p.Index], !shard.Pinned, p.Index
		}
		q := own.Load()
		if q != nil && !q.shared {
			number, wake = q.putNumbered(p, addr, granted, asked, uint64(time.Since(r.began)), who, began)
			p.Unpin()
			break
		}
		p.Unpin()
		if q == nil {
			own.CompareAndSwap(nil, newQueue(r.options.Queue, shared, index, len(r.queues)+1))
			q = own.Load()
		}
		if q.shared {
			q.mu.Lock()
			number, wake = q.putNumbered(p, addr, granted, asked, uint64(time.Since(r.began)), who, began)
			q.mu.Unlock()
			break
		}
		p = shard.Pin()
	}
	if wake {
		r.wakeWriter()
	}
	return number
}

func (r *Recorder) wakeWriter() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Flush writes what has happened before it was called.
func (r *Recorder) Flush() error {
	answer := make(chan error, 1)
	select {
	case r.ask <- answer:
		return <-answer
	case <-r.done:
		return fmt.Errorf("recording: Flush: %w", os.ErrClosed)
	}
}

// Close writes the last events and ends the recording. Events that come later are not recorded. It returns the last error
// of writing that there was. A second Close does nothing.
func (r *Recorder) Close() error {
	if r.closed.Swap(true) {
		<-r.done
		return nil
	}
	r.ask <- nil
	<-r.done
	if r.err != nil {
		return fmt.Errorf("recording: Close: %w", r.err)
	}
	return nil
}

// Usage returns what r has done and takes.
func (r *Recorder) Usage() hooks.Usage {
	queues := int64(0)
	for range r.all() {
		queues++
	}
	written, dropped := r.written.Load(), r.dropped.Load()
	return hooks.Usage{
		Events:  written + dropped,
		Sampled: written,
		Dropped: dropped,
		Bytes:   int64(unsafe.Sizeof(*r)) + queues*(int64(unsafe.Sizeof(queue{}))+int64(r.options.Queue)*int64(unsafe.Sizeof(record{}))) + r.stacks.bytes(),
	}
}

// all yields the queues that there are. None is ever removed.
func (r *Recorder) all() func(yield func(*queue) bool) {
	return func(yield func(*queue) bool) {
		for i := range r.queues {
			if q := r.queues[i].Load(); q != nil && !yield(q) {
				return
			}
		}
		if q := r.others.Load(); q != nil {
			yield(q)
		}
	}
}

// maxRegions is how many names of regions are told apart.
const maxRegions = 4096

// names gives numbers to the names of regions. Number 0 is that of none, and of those beyond maxRegions.
type names struct {
	mu    sync.Mutex
	known atomic.Pointer[map[string]uint64]
	list  []string
}

func (n *names) number(name string) uint64 {
	if known := n.known.Load(); known != nil {
		if number, ok := (*known)[name]; ok {
			return number
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	known := make(map[string]uint64)
	if old := n.known.Load(); old != nil {
		if number, ok := (*old)[name]; ok || len(n.list) == maxRegions {
			return number
		}
		maps.Copy(known, *old)
	}
	n.list = append(n.list, name)
	known[name] = uint64(len(n.list))
	n.known.Store(&known)
	return uint64(len(n.list))
}

func (n *names) name(number uint64) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.list[number-1]
}

// parts are the Proxies and children, by number. Number 0 is what is not known.
type parts struct {
	mu    sync.Mutex
	list  []owner
	known map[owner]uint64
}

// An owner is a Proxy, or a child of it.
type owner struct{ proxy, child string }

func (p *parts) number(proxy, child string) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	of := owner{proxy, child}
	n, ok := p.known[of]
	if !ok && len(p.list) < maxNumber {
		if p.known == nil {
			p.known = make(map[owner]uint64)
		}
		p.list = append(p.list, of)
		n = uint64(len(p.list))
		p.known[of] = n
	}
	return n
}

func (p *parts) owner(number uint64) owner {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.list[number-1]
}
