package hooks

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/internal/random"
)

// DefaultProfileRate is how many bytes are allocated for each block that a [Profile]
// samples, on average, as it is for Go's heap profile: see [runtime.MemProfileRate].
const DefaultProfileRate = 512 << 10

// Profile is a Hook that samples, by the calls that allocate and the labels of
// [runtime/pprof] in the context, how much was allocated and how much of it is in use, as
// Go's own heap profile does for the Go heap. Package exporters/pprof serves it to
// go tool pprof. It must be told of blocks from their allocation on, so that it belongs into the
// options of the Proxy. It may be used by several goroutines at once.
//
// A block of size bytes is sampled with the probability 1-exp(-size/rate), each by
// itself, and stands for as many of its size as that is of one: sums are right on
// average, whatever the sizes. One that is not sampled costs a random number, and a load
// when it is freed. One that is costs some 30 atomic additions, and nothing on the Go
// heap once there were as many.
//
// A Profile takes 100 KiB, and some 80 bytes for each of the most sampled blocks that were
// live at once: as many as live bytes by the rate, or live blocks where they are larger;
// 262,144 are remembered, and those beyond counted as [ProfileStats].Untracked. It takes some 500
// bytes for each different stack, of which it keeps 65,536, and with other labels; once
// there are 65,536 stacks with labels, it leaves out the labels of further ones.
type Profile struct {
	sampler atomic.Pointer[sampler] // nil if nothing is sampled
	stacks  *stacks
	live    liveTable[profiled]

	mu      sync.Mutex // guards buckets, not what they point to
	buckets map[bucketKey]*bucket
	texts   int64 // bytes that labels take

	sampled, inUse, untracked atomic.Int64
}

var _ alloctrace.Attacher = (*Profile)(nil)

// maxProfiled is how many live blocks are remembered at most.
const maxProfiled = 1 << 18

// A bucketKey tells samples apart.
type bucketKey struct {
	stack  *stack
	labels string // length-prefixed keys and values, sorted by keys
}

// A bucket sums up what one place has allocated and freed.
type bucket struct {
	labels                     []Label
	allocated, freed           atomic.Int64 // blocks, in units of 1/blockUnit
	allocatedBytes, freedBytes atomic.Int64
}

const blockUnit = 1 << 16

// A profiled is what a block that was sampled stands for.
type profiled struct {
	by            *bucket
	blocks, bytes int64 // as in bucket
}

// NewProfile returns a Profile that samples a block for each rate bytes allocated, on
// average; all blocks if rate is 1, none if it is 0. [DefaultProfileRate] is a good one.
func NewProfile(rate int) *Profile {
	p := &Profile{stacks: newStacks(), buckets: make(map[bucketKey]*bucket)}
	p.SetRate(rate)
	return p
}

// SetRate changes the rate for what is allocated from now on. What was sampled before
// keeps what it stands for.
func (p *Profile) SetRate(rate int) {
	switch {
	case rate < 0:
		panic(fmt.Sprintf("hooks: Profile.SetRate(%d): use 0 for nothing, 1 for every block, or %d", rate, DefaultProfileRate))
	case rate == 0:
		p.sampler.Store(nil)
	default:
		s := newSampler(int64(rate))
		p.sampler.Store(&s)
	}
}

// Rate returns the rate.
func (p *Profile) Rate() int {
	if s := p.sampler.Load(); s != nil {
		return int(s.rate)
	}
	return 0
}

// Observe samples e.
func (p *Profile) Observe(ctx context.Context, e alloctrace.Event, err error) {
	(&trackedProfile{Profile: p}).Observe(ctx, e, err)
}

// Attach implements [alloctrace.Attacher].
func (p *Profile) Attach(to *alloctrace.Attachment) alloctrace.Hook {
	part := &trackedProfile{Profile: p, proxy: to.ID, child: to.Child}
	part.pending = to.OnReleased(part.released)
	return part
}

// trackedProfile is the part of a Profile for one Proxy.
type trackedProfile struct {
	*Profile
	proxy   uint32
	child   string
	pending *atomic.Int64 // nil if no Proxy delivers events
}

func (p *trackedProfile) Observe(ctx context.Context, e alloctrace.Event, _ error) {
	if e.Kind > alloctrace.Reallocated { // a release, or a failure
		if p.live.mayContain(e.Addr) {
			p.release(e)
		}
	} else if s := p.sampler.Load(); s != nil {
		if drawn := random.Uint32(); drawn <= s.bound(e.Size) {
			p.acquire(ctx, s, e.Addr, e.Size, drawn)
		}
	}
}

func (p *trackedProfile) acquire(ctx context.Context, s *sampler, addr, size uintptr, drawn uint32) {
	if !s.chosen(drawn, size) {
		return
	}
	weight := s.weight(size)
	of := profiled{
		by:     p.bucket(p.stacks.caller(), ctx, p.child),
		blocks: int64(math.Round(weight * blockUnit)),
		bytes:  int64(math.Round(weight * float64(size))),
	}
	of.by.allocated.Add(of.blocks)
	of.by.allocatedBytes.Add(of.bytes)
	p.sampled.Add(1)
	if p.inUse.Add(1) > maxProfiled {
		p.inUse.Add(-1)
		p.untracked.Add(1)
		of.by.freed.Add(of.blocks)
		of.by.freedBytes.Add(of.bytes)
		return
	}
	if was, ok := p.live.add(addr, size, 1, p.proxy, of); ok {
		p.forget(was)
	}
}

// forget takes a block out of what is in use.
func (p *Profile) forget(of profiled) {
	of.by.freed.Add(of.blocks)
	of.by.freedBytes.Add(of.bytes)
	p.inUse.Add(-1)
}

// release forgets a block, or knows it again when its release has failed.
func (p *trackedProfile) release(e alloctrace.Event) {
	if e.Kind.Failed() {
		p.failed(e.Addr, e.Size)
		return
	}
	of, ok, waits := p.live.release(e.Addr, e.Size, p.proxy)
	if ok {
		p.forget(of)
	}
	if waits && p.pending != nil {
		p.pending.Add(1)
	}
}

func (p *trackedProfile) failed(addr, size uintptr) {
	of, ok, kept := p.live.failed(addr, size, p.proxy)
	if ok {
		of.by.freed.Add(-of.blocks)
		of.by.freedBytes.Add(-of.bytes)
		p.inUse.Add(1)
	}
	if kept && p.pending != nil {
		p.pending.Add(-1)
	}
}

func (p *trackedProfile) released(addr, size uintptr) {
	if p.live.ended(addr, size, p.proxy) {
		p.pending.Add(-1)
	}
}

// A Label is a key of [runtime/pprof.Labels] with its value.
type Label struct{ Key, Value string }

// bucket returns the bucket of a stack, the labels of a context, and a child Proxy.
func (p *Profile) bucket(of *stack, ctx context.Context, child string) *bucket {
	var buffer [128]byte
	labels := buffer[:0]
	pprof.ForLabels(ctx, func(key, value string) bool {
		labels = appendText(appendText(labels, key), value)
		return true
	})
	if child != "" {
		labels = appendText(appendText(labels, childLabel), child)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if b := p.buckets[bucketKey{of, string(labels)}]; b != nil {
		return b
	}
	if len(p.buckets) >= maxStacks { // labels of each request, say
		labels = labels[:0]
		if b := p.buckets[bucketKey{of, ""}]; b != nil {
			return b
		}
	}
	text := string(labels)
	b := &bucket{labels: labelsOf(text)}
	p.buckets[bucketKey{of, text}] = b
	p.texts += int64(len(text)) + int64(cap(b.labels))*int64(unsafe.Sizeof(Label{}))
	return b
}

// childLabel is the key under which the name of a child Proxy is found.
const childLabel = "allocator"

// appendText appends a text in a form that labelsOf finds the end of.
func appendText(to []byte, text string) []byte {
	n := uint32(len(text))
	to = append(to, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
	return append(to, text...)
}

// labelsOf returns the labels that were appended.
func labelsOf(appended string) (labels []Label) {
	text := func() (text string) {
		n := int(appended[0]) | int(appended[1])<<8 | int(appended[2])<<16 | int(appended[3])<<24
		text, appended = appended[4:4+n], appended[4+n:]
		return text
	}
	for appended != "" {
		labels = append(labels, Label{text(), text()})
	}
	return labels
}

// A ProfileSample is what one place has allocated, with one set of labels: estimates,
// but with rate 1.
type ProfileSample struct {
	Stack                       []uintptr // return addresses, for [runtime.CallersFrames]; the innermost first
	Labels                      []Label   // of the context, and the name of the child Proxy as "allocator"
	AllocatedBlocks, LiveBlocks int64
	AllocatedBytes, LiveBytes   int64
}

// Samples returns all that was sampled since the Profile was made, the most live bytes
// first. Blocks and bytes of a place are read one after the other; at rest they are
// exact.
func (p *Profile) Samples() []ProfileSample {
	p.mu.Lock()
	defer p.mu.Unlock()
	samples := make([]ProfileSample, 0, len(p.buckets))
	for key, b := range p.buckets {
		freed, freedBytes := b.freed.Load(), b.freedBytes.Load() // before what was allocated, so as not to be more
		allocated, allocatedBytes := b.allocated.Load(), b.allocatedBytes.Load()
		samples = append(samples, ProfileSample{
			Stack: key.stack.pcs, Labels: b.labels,
			AllocatedBlocks: rounded(allocated), LiveBlocks: rounded(allocated - freed),
			AllocatedBytes: allocatedBytes, LiveBytes: allocatedBytes - freedBytes,
		})
	}
	slices.SortFunc(samples, func(a, b ProfileSample) int {
		return cmp.Or(cmp.Compare(b.LiveBytes, a.LiveBytes), cmp.Compare(b.AllocatedBytes, a.AllocatedBytes), slices.Compare(a.Stack, b.Stack))
	})
	return samples
}

func rounded(blocks int64) int64 { return (blocks + blockUnit/2) / blockUnit }

// ProfileStats is what a [Profile] has done, and what it takes.
type ProfileStats struct {
	Sampled   int64 // blocks, since it was made
	Live      int64 // of them are live and remembered
	Untracked int64 // were sampled while 262,144 were remembered: they are in what was allocated, and not in what is live
	Places    int   // different stacks and labels
	Stacks    int   // different stacks; once there are 65,536, others are put together, as one without frames
}

// Stats returns what p has done.
func (p *Profile) Stats() ProfileStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return ProfileStats{p.sampled.Load(), p.inUse.Load(), p.untracked.Load(), len(p.buckets), p.stacks.number()}
}

// Usage returns what p has done and takes. Blocks that are Untracked in [ProfileStats] are both
// Sampled and Dropped.
func (p *Profile) Usage() Usage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Usage{
		Sampled: p.sampled.Load(),
		Dropped: p.untracked.Load(),
		Bytes: int64(unsafe.Sizeof(*p)+unsafe.Sizeof(sampler{})) + p.stacks.bytes() + p.live.bytes() +
			int64(len(p.buckets))*int64(unsafe.Sizeof(bucketKey{})+unsafe.Sizeof((*bucket)(nil))+unsafe.Sizeof(bucket{})) + p.texts,
	}
}
