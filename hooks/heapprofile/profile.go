// Package heapprofile knows who holds memory: a [Profile] samples blocks, all or some by their
// bytes, and keeps for each place that allocates how much it has allocated and how much of it is
// live, and each sampled block while it lives.
//
//	profile := heapprofile.New(heapprofile.Options{})
//	mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithHooks(profile))
//
// Package exporters/pprof serves it to go tool pprof, and [Profile.Report] is a text.
package heapprofile

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/internal/callers"
)

// DefaultRate is the rate of a [Profile] unless another is set, as it is for Go's heap profile: see
// [runtime.MemProfileRate].
const DefaultRate = 512 << 10

// defaultMaxBlocks is how many live blocks are remembered unless the options say otherwise.
const defaultMaxBlocks = 1 << 18

// Options configure [New]. The zero value is for production.
type Options struct {
	// Rate is how many bytes are allocated for each block that is sampled, on average: 1 for every
	// block, 0 for [DefaultRate]. [Profile.SetRate] changes it.
	Rate int

	// Owner says whose a block is, by the context that the hook is given: such as the region of
	// [alloctrace.Proxy.WithContext], or the request. It is called for each block that is sampled,
	// concurrently. Samples have what it returns as the label "owner". If it is nil, the owner is
	// the child Proxy that allocated the block.
	Owner func(ctx context.Context) string

	// MaxBlocks is how many live blocks are remembered. Those beyond are counted as
	// [Stats].Untracked. 0 is 262,144, or no bound if Rate is 1.
	MaxBlocks int

	// Skip are packages whose calls reports leave out where they are the innermost, by import path:
	// such as "github.com/apache/arrow-go/..." for that and all packages below. Who called such an adapter is
	// then shown, and blocks are put together by that. A stack that would be empty stays as it is, as do
	// calls in files of tests. [Profile.Samples] and listings have whole stacks.
	Skip []string

	// Lifetimes has [Profile.Lifetimes] know how long blocks live. It costs a reading of the clock and a stack for each
	// sampled block that is freed, and 800 bytes for each site of which one was.
	Lifetimes bool

	// Peak has [Profile.Peak] know what was live when most was, and [Profile.PeakOf] what was live of one Proxy or child when
	// most of that was. It allows [Profile.NewPeak]. Blocks that are sampled, and their frees, take one lock then.
	Peak bool

	// Watcher is called for each block that is sampled and remembered. If it is nil, nobody is.
	Watcher Watcher
}

// Profile is a Hook that samples who allocates how much and holds how much, as Go's own heap
// profile does for the Go heap: by the calls, by the labels of [runtime/pprof] in the context, and
// by the child Proxy. It must observe blocks from their allocation on, so that it belongs into the
// options of the Proxy. It may be used by several goroutines at once, and by several Proxies.
//
// A block of size bytes is sampled with the probability 1-exp(-size/rate), each by itself, and is
// weighted by 1/probability: sums are right on average, whatever the sizes. One that is not
// sampled costs a random number, and a load when it is freed. One that is costs some 300
// nanoseconds, and nothing on the Go heap once there were as many.
//
// A Profile takes 50 KiB, and some 140 bytes for each of the most sampled blocks that were live at
// once: as many as live bytes by the rate, or live blocks where they are larger. It takes some 500
// bytes for each different stack, of which it keeps 65,536, and for each site: a stack with
// labels. Once there are 65,536 sites, it leaves out the labels of further ones.
type Profile struct {
	likely    [65]atomic.Uint32 // those of sampler, for a look at them to cost a load
	sampler   atomic.Pointer[sampler]
	owner     func(context.Context) string
	maxBlocks int64
	watcher   Watcher
	start     time.Time

	stacks  *stackTable
	sites   *sites
	live    liveTable
	foreign foreignFrees
	peaks   *peaks // nil unless Options.Peak says so
	direct  *part  // observes the events that no Proxy delivers

	serial           atomic.Uint64 // of the block that was sampled last, from 1 on
	inUse, untracked atomic.Int64
}

var (
	_ alloctrace.Attacher = (*Profile)(nil)
	_ hooks.UsageSource   = (*Profile)(nil)
)

// New returns a Profile. It panics if an option is negative, or Skip has what is no import path.
func New(o Options) *Profile {
	if o.Rate < 0 || o.MaxBlocks < 0 {
		panic(fmt.Sprintf("heapprofile: New with rate %d and %d blocks: use 0 for the defaults, or more", o.Rate, o.MaxBlocks))
	}
	skip, err := callers.NewSkip(o.Skip)
	if err != nil {
		panic("heapprofile: New: Options." + err.Error())
	}
	p := &Profile{
		owner:     o.Owner,
		maxBlocks: int64(cmp.Or(o.MaxBlocks, defaultMaxBlocks)),
		watcher:   o.Watcher,
		start:     time.Now(),
		stacks:    newStackTable(skip, maxStacks),
		sites:     newSites(),
	}
	if o.Rate == 1 {
		if o.MaxBlocks == 0 {
			p.maxBlocks = math.MaxInt64
		}
		p.live.setComplete()
	}
	if o.Lifetimes {
		p.live.end = p.end
	}
	if o.Peak {
		p.peaks = &peaks{whole: newPeak(p), named: make(map[partName]*Peak)}
	}
	p.setSampler(newSampler(int64(cmp.Or(o.Rate, DefaultRate))))
	p.direct = p.newPart(nil)
	return p
}

// SetRate changes the rate for what is allocated from now on: 0 samples nothing more. What was
// sampled before keeps its weight. Once the rate was other than 1, [Profile.ForeignFrees] has
// nothing new.
func (p *Profile) SetRate(rate int) {
	if rate < 0 {
		panic(fmt.Sprintf("heapprofile: Profile.SetRate(%d): use 0 for nothing, 1 for every block, or %d", rate, DefaultRate))
	}
	if rate != 1 {
		p.live.setIncomplete()
	}
	p.setSampler(newSampler(int64(rate)))
}

func (p *Profile) setSampler(s sampler) {
	p.sampler.Store(&s)
	for i, bound := range s.likely {
		p.likely[i].Store(bound)
	}
}

// Rate returns the rate.
func (p *Profile) Rate() int { return int(p.sampler.Load().rate) }

// Observe observes an event that no Proxy has delivered to a part of p.
func (p *Profile) Observe(ctx context.Context, e alloctrace.Event, err error) {
	p.direct.Observe(ctx, e, err)
}

// Attach implements [alloctrace.Attacher].
func (p *Profile) Attach(to *alloctrace.Attachment) alloctrace.Hook {
	part := p.newPart(to)
	part.pending = to.OnReleased(part.released)
	to.OnQuiet(func() { part.quiet.Store(true) })
	return part
}

// A Block is a live block that was sampled.
type Block struct {
	Addr, Size, Align uintptr // as in the event that delivered it
	Allocated         time.Time
	Owner             string  // see Options; "" if it is nobody's
	Weight            float64 // how many blocks of its size it stands for
	Stack             []Frame // from the function that allocated it outwards, 32 frames at most; see Options.Skip
}

// Blocks returns the sampled blocks that are live, the oldest first.
func (p *Profile) Blocks() []Block {
	var list []Block
	p.kept(func(b Block) bool {
		list = append(list, b)
		return true
	})
	return list
}

// kept returns the blocks for which keep returns true, the oldest first.
func (p *Profile) kept(keep func(Block) bool) []placed {
	all := p.blocks()
	if keep == nil {
		return all
	}
	frames := make(map[*stack][]Frame)
	return slices.DeleteFunc(all, func(b placed) bool {
		stack := b.site.stack
		if frames[stack] == nil {
			frames[stack] = stack.frames()
		}
		return !keep(Block{b.addr, b.size, 1 << b.align, p.start.Add(b.since), p.ownerOf(&b.block), b.weight(), frames[stack]})
	})
}

// A placed is a block with its address.
type placed struct {
	addr uintptr
	block
}

// placed returns the blocks, in no order.
func (p *Profile) placed() []placed {
	list := make([]placed, 0, max(0, p.inUse.Load())+spare)
	p.live.each(func(addr uintptr, b *block) { list = append(list, placed{addr, *b}) })
	return list
}

// spare is how many blocks may come meanwhile without a second list.
const spare = 64

// blocks returns the blocks, the oldest first.
func (p *Profile) blocks() []placed {
	list := p.placed()
	slices.SortFunc(list, func(a, b placed) int { return cmp.Compare(a.serial, b.serial) })
	return list
}

// An origin is the calls that allocated blocks, and whose they are.
type origin struct {
	stack *stack
	owner string
}

func (p *Profile) originOf(b *block) origin { return origin{b.site.stack, p.ownerOf(b)} }

func (p *Profile) ownerOf(b *block) string {
	if p.owner == nil {
		return b.by.child
	}
	return b.site.owner
}

// Stats is what a [Profile] has done.
type Stats struct {
	Sampled      int64 // blocks, since it was made
	Live         int64 // of them are live and remembered
	Untracked    int64 // were sampled while Options.MaxBlocks were remembered: they are in what was allocated, and not in what is live
	Sites        int   // different stacks and labels
	Stacks       int   // different stacks; once there are 65,536, others are put together, as one without frames
	ForeignFrees int64 // see Profile.ForeignFrees
}

// Stats returns what p has done.
func (p *Profile) Stats() Stats {
	return Stats{
		int64(p.serial.Load()), p.inUse.Load(), p.untracked.Load(),
		int(p.sites.kept.Load()), p.stacks.Len(), p.foreign.number(),
	}
}

// Usage returns what p has done and takes. Blocks that are Untracked in [Stats] are both Sampled
// and Dropped.
func (p *Profile) Usage() hooks.Usage {
	return hooks.Usage{
		Sampled: int64(p.serial.Load()),
		Dropped: p.untracked.Load(),
		Bytes: int64(unsafe.Sizeof(*p)+unsafe.Sizeof(sampler{})+unsafe.Sizeof(part{})) +
			p.stacks.bytes() + p.sites.bytes() + p.live.bytes() + p.foreign.bytes() + p.peaks.bytes(),
	}
}
