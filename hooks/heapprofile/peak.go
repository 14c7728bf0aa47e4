package heapprofile

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/counter"
)

// A Peak knows what was live when most was: of the blocks that its Profile samples, or of those of some owners, of one Proxy or of one child,
// since it was made or reset. [Profile.NewPeak] makes one. Several goroutines may use it at once.
//
// Estimates of what is live are above and below the truth by chance, and a Peak is the highest of them. So it is too high where a program stays
// at its peak for long, as one with a full cache does: by two standard errors once its blocks have been replaced ten times, by three and a half
// after a thousand times. The peak of a Proxy's Stats is exact within its bound, and so is a Peak with a rate of 1.
//
// A sampled block, and its free, look at each Peak that is theirs, in some 30 nanoseconds for both. A Peak takes some 100 bytes for each site
// whose blocks it has seen come or go.
type Peak struct {
	of     *Profile
	owners []string // nil for all
	outer  *Peak    // of a child that of its Proxy, of a Proxy that of the whole

	// What follows is guarded by peaks.mu.
	most, live liveSums
	at         time.Duration // since Profile.start
	number     uint64        // of the peak, of those that there were one after the other
	sites      map[*site]*sitePeak
	closed     bool
}

// sitePeak is what is live of a site, and what was before it changed first after the peak of that number. If that is not the last peak, it has
// not changed since that.
type sitePeak struct {
	number  uint64
	was, is liveSums
}

// atPeak returns what was live of s at k.
func (k *Peak) atPeak(s *sitePeak) liveSums {
	if s.number == k.number {
		return s.was
	}
	return s.is
}

// peaks are the Peaks of a Profile.
type peaks struct {
	whole *Peak // of all blocks, from the start

	mu    sync.Mutex // guards what is live of all sites too, for who counts and reads it to see all that belongs together
	named map[partName]*Peak
	list  []*Peak // those that NewPeak has made
}

// partName is that of a Proxy, or of a child.
type partName struct{ proxy, child string }

// maxNamed is how many Proxies and children have a Peak, the first.
const maxNamed = 64

// begin counts a block that was allocated.
func (p *Profile) begin(b *block) {
	if p.peaks != nil {
		p.peaks.mu.Lock()
		defer p.peaks.mu.Unlock()
		p.peaks.change(b, 1)
	}
	b.site.allocate(b)
}

// leave counts a block that is no longer live, or takes that back if times is -1.
func (p *Profile) leave(b *block, times int64) {
	if p.peaks != nil {
		p.peaks.mu.Lock()
		defer p.peaks.mu.Unlock()
		p.peaks.change(b, -times)
	}
	b.site.free(b, times)
}

// change counts that b is live, or is no longer if times is -1.
func (p *peaks) change(b *block, times int64) {
	sums := b.sums()
	for k := b.by.peak; k != nil; k = k.outer {
		k.change(b.site, sums, times)
	}
	for _, k := range p.list {
		if k.counts(b.site) {
			k.change(b.site, sums, times)
		}
	}
}

func (k *Peak) change(at *site, sums liveSums, times int64) {
	if k.closed {
		return
	}
	s := k.sites[at]
	if s == nil {
		s = new(sitePeak)
		k.sites[at] = s
	}
	if s.number != k.number {
		s.number, s.was = k.number, s.is
	}
	s.is.add(sums, times)
	if k.live.add(sums, times); k.live.bytes > k.most.bytes {
		k.setPeak()
	}
}

// setPeak says that the peak is now.
func (k *Peak) setPeak() {
	k.most, k.at = k.live, time.Since(k.of.start)
	k.number++
}

func (k *Peak) counts(s *site) bool { return k.owners == nil || slices.Contains(k.owners, s.owner) }

// Peak returns that of all blocks since p was made, nil unless Options.Peak was set.
func (p *Profile) Peak() *Peak {
	if p.peaks == nil {
		return nil
	}
	return p.peaks.whole
}

// PeakOf returns that of the blocks of the Proxies of a name, children included, or of those of their children of a name, whose children are not
// included. It is nil if p has observed no such one, if it had observed 64 names before, and unless Options.Peak was set.
func (p *Profile) PeakOf(proxy, child string) *Peak {
	if p.peaks == nil {
		return nil
	}
	p.peaks.mu.Lock()
	defer p.peaks.mu.Unlock()
	return p.peaks.named[partName{proxy, child}]
}

// of returns the innermost Peak that the blocks of a Proxy or child are part of. It makes one before there are blocks of that name.
func (p *peaks) of(to *alloctrace.Attachment) *Peak {
	if p == nil {
		return nil
	}
	if to == nil {
		return p.whole
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	outer := p.whole
	for _, name := range []partName{{to.Proxy, ""}, {to.Proxy, to.Child}} {
		k := p.named[name]
		if k == nil {
			if len(p.named) == maxNamed {
				return outer
			}
			k = newPeak(outer.of)
			k.outer = outer
			p.named[name] = k
		}
		outer = k
	}
	return outer
}

// NewPeak returns a Peak of what is live from now on: of all blocks, or of those of these owners. They are what Options.Owner
// returns, such as the names of regions or requests, or else the names of child Proxies, "" for those of no child.
// Close it when it is no longer of use. NewPeak panics unless Options.Peak was set.
func (p *Profile) NewPeak(owners ...string) *Peak {
	if p.peaks == nil {
		panic("heapprofile: Profile.NewPeak: set Peak in the Options of New")
	}
	p.peaks.mu.Lock()
	defer p.peaks.mu.Unlock()
	k := newPeak(p)
	k.owners = slices.Clone(owners)
	for s := range p.sites.all() {
		if live := s.live(); k.counts(s) && live.blocks > 0 {
			k.sites[s] = &sitePeak{is: live}
			k.live.add(live, 1)
		}
	}
	k.most = k.live
	p.peaks.list = append(p.peaks.list, k)
	return k
}

// newPeak returns a Peak of nothing.
func newPeak(of *Profile) *Peak {
	k := &Peak{of: of, sites: make(map[*site]*sitePeak)}
	k.setPeak()
	return k
}

// Profile returns the Profile whose blocks k is of.
func (k *Peak) Profile() *Profile { return k.of }

// Reset has the Peak begin anew with what is live now. It does nothing if the Peak is closed.
func (k *Peak) Reset() {
	k.of.peaks.mu.Lock()
	defer k.of.peaks.mu.Unlock()
	if !k.closed {
		maps.DeleteFunc(k.sites, func(_ *site, s *sitePeak) bool { return s.is.blocks == 0 })
		k.setPeak()
	}
}

// Close ends the Peak: it stays what it is. A second call does nothing.
func (k *Peak) Close() {
	p := k.of.peaks
	p.mu.Lock()
	defer p.mu.Unlock()
	k.closed = true
	p.list = slices.DeleteFunc(p.list, func(other *Peak) bool { return other == k })
}

// AtPeak is what was live at a peak: estimates, but with rate 1.
type AtPeak struct {
	Time          time.Time
	Blocks, Bytes int64
	Error         int64    // the standard error of an estimate at a given time; see Peak for what the highest of many is
	Samples       []Sample // of the sites, the most bytes first; what was allocated of them is what was live. Their bytes add up to Bytes
}

// String returns a line for the whole and one for each sample, 50 at most, for example
//
//	12 KiB in 3 blocks were live at the peak:
//	  8 KiB in 2 blocks: index.(*Index).grow (index.go:42), index.New (index.go:17)
//	  4 KiB in 1 block: cache.Load (cache.go:9), cache.Warm (cache.go:5), app.start (app.go:7), main.run (main.go:31) and 2 more calls
func (a AtPeak) String() string {
	if len(a.Samples) == 0 {
		return "nothing was live\n"
	}
	var lines strings.Builder
	fmt.Fprintf(&lines, "%s in %s were live at the peak:\n", estimate(a.Bytes, a.Error), number(a.Blocks, "block"))
	samples := a.Samples[:min(len(a.Samples), reportSites)]
	stacks := make([][]Frame, len(samples))
	for i, s := range samples {
		if s.from != nil {
			stacks[i] = s.from.frames()
		}
	}
	for i, most := range shown(stacks) {
		s := samples[i]
		fmt.Fprintf(&lines, "  %s in %s: %s\n", estimate(s.LiveBytes, s.LiveError), number(s.LiveBlocks, "block"), calls(stacks[i], most, len(s.Stack) == maxFrames))
	}
	if more := a.Samples[len(samples):]; len(more) > 0 {
		var bytes int64
		for _, s := range more {
			bytes += s.LiveBytes
		}
		fmt.Fprintf(&lines, "  %s at %s\n", counter.FormatBytes(bytes), number(int64(len(more)), "more site"))
	}
	return lines.String()
}

// Get returns what was live at the peak.
func (k *Peak) Get() AtPeak {
	k.of.peaks.mu.Lock()
	defer k.of.peaks.mu.Unlock()
	at := AtPeak{Time: k.of.start.Add(k.at), Blocks: rounded(k.most.blocks), Bytes: k.most.bytes, Error: k.most.standardError()}
	for s, peak := range k.sites {
		if was := k.atPeak(peak); was.bytes > 0 {
			at.Samples = append(at.Samples, s.sample(was))
		}
	}
	sortSamples(at.Samples)
	return at
}

// bytes returns what p holds on the Go heap.
func (p *peaks) bytes() (sum int64) {
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range append(slices.Concat(slices.Collect(maps.Values(p.named)), p.list), p.whole) {
		sum += int64(unsafe.Sizeof(*k)) + int64(len(k.sites))*int64(unsafe.Sizeof(sitePeak{})+4*unsafe.Sizeof(k))
	}
	return sum + int64(unsafe.Sizeof(*p))
}
