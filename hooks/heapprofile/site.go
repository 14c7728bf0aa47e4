package heapprofile

import (
	"cmp"
	"context"
	"hash/maphash"
	"iter"
	"math"
	"runtime/pprof"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/text"
)

// A site is a place that allocates: the calls and the labels, with what it has allocated and
// freed. There is one for all blocks that have the same.
type site struct {
	stack  *stack
	text   string // the labels: length-prefixed keys and values
	labels []Label
	owner  string // by Options.Owner, or else the name of the child Proxy
	hash   uint64
	next   *site // in its bucket

	allocated, freed           atomic.Int64 // blocks, in units of 1/blockUnit
	allocatedBytes, freedBytes atomic.Int64

	endings atomic.Pointer[endings] // nil until a block was freed; see Options.Lifetimes

	variance variance // of the live bytes
}

const blockUnit = 1 << 16

// maxSites is how many different sites with labels are kept: labels may be those of each request.
const maxSites = 1 << 16

// allocate adds a block, weighted.
func (s *site) allocate(b *block) {
	sums := b.sums()
	s.allocated.Add(sums.blocks)
	s.allocatedBytes.Add(sums.bytes)
	s.variance.add(sums.variance)
}

// free takes out a block, weighted, or takes that back if times is -1.
func (s *site) free(b *block, times int64) {
	sums := b.sums()
	s.freed.Add(times * sums.blocks)
	s.freedBytes.Add(times * sums.bytes)
	s.variance.add(-float64(times) * sums.variance)
}

// A variance is one of bytes that are an estimate. Goroutines may add to it at once.
type variance struct{ bits atomic.Uint64 } // of a float64

func (v *variance) add(by float64) {
	for by != 0 {
		bits := v.bits.Load()
		if v.bits.CompareAndSwap(bits, math.Float64bits(math.Float64frombits(bits)+by)) {
			return
		}
	}
}

func (v *variance) load() float64 { return math.Float64frombits(v.bits.Load()) }

// live returns what is live of s. Others may allocate and free between its numbers, unless peaks.mu is held.
func (s *site) live() liveSums {
	freed, freedBytes := s.freed.Load(), s.freedBytes.Load() // before what was allocated, so as not to be more
	allocated, allocatedBytes := s.allocated.Load(), s.allocatedBytes.Load()
	return liveSums{allocated - freed, allocatedBytes - freedBytes, s.variance.load()}
}

// liveSums are what is live of one site, or in all.
type liveSums struct {
	blocks, bytes int64 // blocks in units of 1/blockUnit
	variance      float64
}

func (s *liveSums) add(other liveSums, times int64) {
	s.blocks += times * other.blocks
	s.bytes += times * other.bytes
	s.variance += float64(times) * other.variance
}

// standardError returns that of the bytes. The variance of what has come and gone may be less than nothing by a rounding.
func (s *liveSums) standardError() int64 { return int64(math.Sqrt(max(0, s.variance)) + 0.5) }

// sums returns what b adds to what is live. Its variance is that of the bytes which b stands for, where the blocks that were chosen stand for
// all (Horvitz and Thompson).
func (b *block) sums() liveSums {
	weight, size := b.weight(), float64(b.size)
	return liveSums{int64(weight*blockUnit + 0.5), int64(weight*size + 0.5), weight * (weight - 1) * size * size}
}

// sites keeps each site once, and for ever. Sites are found as stacks are, without a lock.
type sites struct {
	seed    maphash.Seed
	buckets [1 << 10]atomic.Pointer[site]
	kept    atomic.Int64
	ended   atomic.Int64 // of them have endings
	texts   atomic.Int64 // bytes that labels take
}

func newSites() *sites { return &sites{seed: maphash.MakeSeed()} }

// A Label is a key of [runtime/pprof.Labels] with its value.
type Label struct{ Key, Value string }

// Beside those of the context, the name of a child Proxy is a label, and what Options.Owner
// returns.
const (
	childLabel = "allocator"
	ownerLabel = "owner"
)

// of returns the site of a stack, the labels of a context, a child Proxy, and an owner if it is
// not nil.
func (t *sites) of(stack *stack, ctx context.Context, child string, owner *string) *site {
	var buffer [128]byte
	labels := buffer[:0]
	pprof.ForLabels(ctx, func(key, value string) bool {
		if key != childLabel || child == "" { // as tracer.WithProfilerLabels sets it
			labels = appendText(appendText(labels, key), value)
		}
		return true
	})
	if child != "" {
		labels = appendText(appendText(labels, childLabel), child)
	}
	if owner != nil {
		labels = appendText(appendText(labels, ownerLabel), *owner)
	}
	return t.keep(stack, labels, child != "" || owner != nil)
}

// keep returns the site of a stack and labels, which may be a new one. If it is owned, the last
// label says by whom.
func (t *sites) keep(stack *stack, labels []byte, owned bool) *site {
	hash := stack.hash
	if len(labels) > 0 {
		hash ^= maphash.Bytes(t.seed, labels)
	}
	bucket := &t.buckets[hash%uint64(len(t.buckets))]
	var added *site
	for {
		first := bucket.Load()
		for known := first; known != nil; known = known.next {
			if known.hash == hash && known.stack == stack && known.text == string(labels) {
				return known
			}
		}
		if added == nil {
			if len(labels) > 0 && t.kept.Load() >= maxSites {
				return t.keep(stack, nil, false)
			}
			added = &site{stack: stack, text: string(labels), hash: hash}
			added.labels = labelsOf(added.text)
			if owned {
				added.owner = added.labels[len(added.labels)-1].Value
			}
		}
		added.next = first
		if bucket.CompareAndSwap(first, added) {
			t.kept.Add(1)
			t.texts.Add(int64(len(added.text)) + int64(cap(added.labels))*int64(unsafe.Sizeof(Label{})))
			return added
		}
	}
}

// all yields each site.
func (t *sites) all() iter.Seq[*site] {
	return func(yield func(*site) bool) {
		for i := range t.buckets {
			for s := t.buckets[i].Load(); s != nil; s = s.next {
				if !yield(s) {
					return
				}
			}
		}
	}
}

// bytes returns what t holds on the Go heap.
func (t *sites) bytes() int64 {
	return int64(unsafe.Sizeof(*t)) + t.kept.Load()*int64(unsafe.Sizeof(site{})) + t.ended.Load()*int64(unsafe.Sizeof(endings{})) + t.texts.Load()
}

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

// A Sample is what one site has allocated: estimates, but with rate 1.
type Sample struct {
	Stack                       []uintptr // return addresses, for [runtime.CallersFrames]; the innermost first
	Labels                      []Label   // of the context, the name of the child Proxy as "allocator", and the owner as "owner", see Options
	AllocatedBlocks, LiveBlocks int64
	AllocatedBytes, LiveBytes   int64
	LiveError                   int64 // the standard error of LiveBytes: two times in three, what is live differs by less

	from  *stack
	owner string
}

// Owner returns whose the blocks are, as a [Site] has it: "" if they are nobody's.
func (s Sample) Owner() string { return text.Name(s.owner) }

// Frames returns the calls that allocated the blocks, as a [Site] has them. A Sample that no Profile has made has none. It costs a
// microsecond for each frame.
func (s Sample) Frames() []Frame {
	if s.from == nil {
		return nil
	}
	return s.from.frames()
}

// Samples returns all that was sampled since the Profile was made, the most live bytes
// first. Blocks and bytes of a site are read one after the other; at rest they are
// exact.
func (p *Profile) Samples() []Sample {
	samples := make([]Sample, 0, p.sites.kept.Load())
	for s := range p.sites.all() {
		live := s.live() // before what was allocated, so as not to be more
		sample := s.sample(live)
		sample.AllocatedBlocks, sample.AllocatedBytes = rounded(s.allocated.Load()), s.allocatedBytes.Load()
		samples = append(samples, sample)
	}
	sortSamples(samples)
	return samples
}

// SamplesOf returns the live blocks for which keep returns true, by site, the most bytes first: what was allocated is what is live.
// keep is as in [Profile.ReportOf].
func (p *Profile) SamplesOf(keep func(b Block) bool) []Sample {
	sites := make(map[*site]*liveSums)
	for _, b := range p.kept(keep) {
		if sites[b.site] == nil {
			sites[b.site] = new(liveSums)
		}
		sites[b.site].add(b.sums(), 1)
	}
	samples := make([]Sample, 0, len(sites))
	for s, live := range sites {
		samples = append(samples, s.sample(*live))
	}
	sortSamples(samples)
	return samples
}

// sample returns what is live of s as a Sample of which nothing more was allocated.
func (s *site) sample(live liveSums) Sample {
	blocks := rounded(live.blocks)
	return Sample{s.stack.pcs, s.labels, blocks, blocks, live.bytes, live.bytes, live.standardError(), s.stack, s.owner}
}

func sortSamples(samples []Sample) {
	slices.SortFunc(samples, func(a, b Sample) int {
		return cmp.Or(cmp.Compare(b.LiveBytes, a.LiveBytes), cmp.Compare(b.AllocatedBytes, a.AllocatedBytes), slices.Compare(a.Stack, b.Stack))
	})
}

func rounded(blocks int64) int64 { return (blocks + blockUnit/2) / blockUnit }
