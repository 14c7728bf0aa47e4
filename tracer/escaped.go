package tracer

import (
	"context"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/internal/region"
)

// A tag is what blocks keep of the region that they were allocated in. It outlives the region,
// and keeps nothing else of it. A region has none until a block of it is sampled.
type tag struct {
	name       string
	outer      *tag
	attributes []attribute.KeyValue                 // see WithAttributes
	given      atomic.Pointer[[]attribute.KeyValue] // see Region.SetAttributes
	ended      atomic.Pointer[time.Time]            // nil until the region has ended

	// What is live of the blocks that were sampled, weighted: blocks in units of 1/blockUnit, bytes, and
	// the bits of a float64, the variance of bytes.
	blocks, bytes atomic.Int64
	certain       atomic.Int64 // bytes of all blocks that were sampled with certainty, freed ones too
	variance      atomic.Uint64
}

const blockUnit = 1 << 16

// tagOf returns the tag of the innermost region of ctx, nil if there is none.
func tagOf(ctx context.Context) *tag {
	return tagOfRegion(region.From(ctx))
}

func tagOfRegion(inside *region.Region) *tag {
	if inside == nil {
		return nil
	}
	r := (*Region)(inside.Observe.(*inner))
	if t := r.tag.Load(); t != nil {
		return t
	}
	t := &tag{name: r.name, outer: tagOfRegion(inside.Outer), attributes: r.failures.config.attributes}
	if !r.tag.CompareAndSwap(nil, t) {
		return r.tag.Load()
	}
	t.take(r)           // SetAttributes looks for a tag after it has given
	if r.ended.Load() { // it looks for a tag after it has ended
		t.end()
	}
	return t
}

func (t *tag) end() {
	now := time.Now()
	t.ended.CompareAndSwap(nil, &now)
}

// allEnded returns when the last of t's region and those around it has ended, and zero if one has not.
func (t *tag) allEnded() (last time.Time) {
	for ; t != nil; t = t.outer {
		ended := t.ended.Load()
		if ended == nil {
			return time.Time{}
		}
		if ended.After(last) {
			last = *ended
		}
	}
	return last
}

// more returns the attributes that the region was given.
func (t *tag) more() []attribute.KeyValue {
	if g := t.given.Load(); g != nil {
		return append(slices.Clip(t.attributes), *g...)
	}
	return t.attributes
}

// add adds a block to what is live, or takes it out if times is -1, in the regions around as well.
//
// The sum of size/p over the sampled blocks, which are sampled with probability p, is right on average.
// Its variance is estimated by the sum of size²·(1-p)/p², as Horvitz and Thompson do.
func (t *tag) add(b *heapprofile.Watched, times float64) {
	size := float64(b.Size)
	for ; t != nil; t = t.outer {
		t.blocks.Add(int64(math.Round(times * b.Weight * blockUnit)))
		t.bytes.Add(int64(math.Round(times * b.Weight * size)))
		for variance := times * size * size * b.Weight * (b.Weight - 1); variance != 0; {
			old := t.variance.Load()
			if t.variance.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+variance)) {
				break
			}
		}
	}
}

// sampled adds a block to what was sampled with certainty, if it was, in the regions around as well.
func (t *tag) sampled(b *heapprofile.Watched) {
	if b.Weight == 1 {
		for ; t != nil; t = t.outer {
			t.certain.Add(bytes(b.Size))
		}
	}
}

// openLifetimes is how many Lifetimes there are that are not closed.
var openLifetimes atomic.Int32

// escaped returns what is known of r's blocks that are live, of which it has allocated so many bytes.
// It is exact if those are the bytes of blocks that were sampled with certainty: then no block was
// untracked, sampled by chance, or allocated through a Proxy or a quiet view that nobody observes.
func (r *Region) escaped(allocated int64) (e Escaped) {
	e.Known = openLifetimes.Load() > 0
	var certain int64
	if t := r.tag.Load(); t != nil {
		certain = t.certain.Load()
		e.Blocks = max(0, (t.blocks.Load()+blockUnit/2)/blockUnit)
		e.Bytes = max(0, t.bytes.Load())
		if e.Blocks > 0 { // else what is left are roundings
			e.BytesError = int64(math.Sqrt(max(0, math.Float64frombits(t.variance.Load()))))
		}
	}
	e.Exact = e.Known && certain == allocated
	return e
}

// SetAttributes adds attributes to those of the region's span, which [Region.End] sets all at once, and to
// the spans of blocks that were allocated in it, see [Lifetimes], and end later: such as the route of a request,
// which is known when it has been served.
func (r *Region) SetAttributes(attributes ...attribute.KeyValue) {
	if r == nil || len(attributes) == 0 || !r.span.IsRecording() && openLifetimes.Load() == 0 {
		return
	}
	for {
		old := r.given.Load()
		all := attributes
		if old != nil {
			all = append((*old)[:len(*old):len(*old)], attributes...)
		} else {
			all = slices.Clone(attributes)
		}
		if r.given.CompareAndSwap(old, &all) {
			break
		}
	}
	if t := r.tag.Load(); t != nil {
		t.take(r)
	}
	if r.ended.Load() { // End may have been too early to see them
		r.span.SetAttributes(attributes...)
	}
}

// take has t take over what r is given. It ends with the newest, though several do it at once.
func (t *tag) take(r *Region) {
	for {
		given := r.given.Load()
		t.given.Store(given)
		if r.given.Load() == given {
			return
		}
	}
}
