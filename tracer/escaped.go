package tracer

import (
	"context"
	"math"
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
	attributes atomic.Pointer[[]attribute.KeyValue] // see Region.SetAttributes
	ended      atomic.Pointer[time.Time]            // nil until the region has ended

	// What is live of the blocks that were sampled, weighted: blocks in units of 1/blockUnit, bytes, and
	// the bits of a float64, the variance of bytes.
	blocks, bytes atomic.Int64
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
	t := &tag{name: r.name, outer: tagOfRegion(inside.Outer)}
	if !r.tag.CompareAndSwap(nil, t) {
		return r.tag.Load()
	}
	if r.ended.Load() { // it looks for a tag after it has ended
		t.end()
	}
	return t
}

func (t *tag) end() {
	now := time.Now()
	t.ended.CompareAndSwap(nil, &now)
}

// more returns the attributes that the region was given.
func (t *tag) more() []attribute.KeyValue {
	if a := t.attributes.Load(); a != nil {
		return *a
	}
	return nil
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

// knowledge is how many Lifetimes are open, and how many of them sample.
type knowledge struct{ all, sampling atomic.Int32 }

var knowing knowledge

func (k *knowledge) add(exact bool, n int32) {
	if !exact {
		k.sampling.Add(n)
	}
	k.all.Add(n)
}

// escaped returns what is known of r's blocks that are live.
func (r *Region) escaped() (e Escaped) {
	e.Known = knowing.all.Load() > 0
	e.Exact = e.Known && knowing.sampling.Load() == 0
	if t := r.tag.Load(); t != nil {
		e.Blocks = max(0, (t.blocks.Load()+blockUnit/2)/blockUnit)
		e.Bytes = max(0, t.bytes.Load())
		if e.Blocks > 0 { // else what is left are roundings
			e.BytesError = int64(math.Sqrt(max(0, math.Float64frombits(t.variance.Load()))))
		}
	}
	return e
}

// SetAttributes sets attributes on the region's span, and on the spans of blocks that were
// allocated in it by then, see [Lifetimes]: such as the route of a request, which is known when it
// has been served.
func (r *Region) SetAttributes(attributes ...attribute.KeyValue) {
	if r == nil {
		return
	}
	r.span.SetAttributes(attributes...)
	t := r.tag.Load()
	if t == nil {
		return
	}
	for {
		old := t.attributes.Load()
		all := append(t.more()[:len(t.more()):len(t.more())], attributes...)
		if t.attributes.CompareAndSwap(old, &all) {
			return
		}
	}
}
