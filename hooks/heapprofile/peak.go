package heapprofile

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace/counter"
)

// A Peak knows what was live when most was: of the blocks that its Profile samples, or of those of some owners, since it was made
// or reset. [Profile.NewPeak] makes one. Several goroutines may use it at once.
//
// A sampled block, and its free, look at each Peak in turn, in some 70 nanoseconds for both. A Peak takes some 100 bytes for each site
// whose blocks it has seen come or go.
type Peak struct {
	of     *Profile
	owners []string // nil for all

	// What follows is guarded by peaks.mu.
	most, live liveSums
	at         time.Duration // since Profile.start
	number     uint64        // of the peak, of those that there were one after the other
	sites      map[*site]sitePeak
	closed     bool // sites has all
}

// sitePeak is what was live of a site at the peak of that number. A site that has not changed since the last peak has none
// of that: what is live is what was.
type sitePeak struct {
	number uint64
	liveSums
}

// peaks are the Peaks of a Profile.
type peaks struct {
	whole *Peak // of all blocks, from the start

	mu   sync.Mutex // guards what is live of all sites too, for who counts and reads it to see all that belongs together
	list []*Peak
}

// begin counts a block that was allocated.
func (p *Profile) begin(b *block) {
	if p.peaks == nil {
		b.site.allocate(b)
		return
	}
	p.peaks.mu.Lock()
	defer p.peaks.mu.Unlock()
	p.peaks.before(b.site)
	b.site.allocate(b)
	p.peaks.after(b, 1)
}

// leave counts a block that is no longer live, or takes that back if times is -1.
func (p *Profile) leave(b *block, times int64) {
	if p.peaks == nil {
		b.site.free(b, times)
		return
	}
	p.peaks.mu.Lock()
	defer p.peaks.mu.Unlock()
	p.peaks.before(b.site)
	b.site.free(b, times)
	p.peaks.after(b, -times)
}

// before keeps what is live of a site, which is about to change, for the Peaks for which it is what was live at the peak.
func (p *peaks) before(s *site) {
	for _, peak := range p.list {
		if peak.counts(s) && peak.sites[s].number != peak.number {
			peak.sites[s] = sitePeak{peak.number, s.live()}
		}
	}
}

// after counts that b is live, or is no longer if times is -1.
func (p *peaks) after(b *block, times int64) {
	change := b.sums()
	for _, peak := range p.list {
		if !peak.counts(b.site) {
			continue
		}
		if peak.live.add(change, times); peak.live.bytes > peak.most.bytes {
			peak.most, peak.at = peak.live, time.Since(peak.of.start)
			peak.number++
		}
	}
}

func (k *Peak) counts(s *site) bool { return k.owners == nil || slices.Contains(k.owners, s.owner) }

// Peak returns that of all blocks since p was made, nil unless Options.Peak was set.
func (p *Profile) Peak() *Peak {
	if p.peaks == nil {
		return nil
	}
	return p.peaks.whole
}

// NewPeak returns a Peak of what is live from now on: of all blocks, or of those of these owners. They are what Options.Owner
// returns, such as the names of regions or requests, or else the names of child Proxies, "" for those of no child.
// Close it when it is no longer of use. NewPeak panics unless Options.Peak was set.
func (p *Profile) NewPeak(owners ...string) *Peak {
	if p.peaks == nil {
		panic("heapprofile: Profile.NewPeak: set Peak in the Options of New")
	}
	k := &Peak{of: p, owners: slices.Clone(owners)}
	p.peaks.mu.Lock()
	defer p.peaks.mu.Unlock()
	k.reset()
	p.peaks.list = append(p.peaks.list, k)
	return k
}

// Profile returns the Profile whose blocks k is of.
func (k *Peak) Profile() *Profile { return k.of }

// Reset has the Peak begin anew with what is live now.
func (k *Peak) Reset() {
	k.of.peaks.mu.Lock()
	defer k.of.peaks.mu.Unlock()
	k.reset()
}

func (k *Peak) reset() {
	k.live, k.sites = liveSums{}, make(map[*site]sitePeak)
	for s := range k.of.sites.all() {
		if k.counts(s) {
			k.live.add(s.live(), 1)
		}
	}
	k.most, k.at = k.live, time.Since(k.of.start)
	k.number++
}

// Close ends the Peak: it stays what it is. A second call does nothing.
func (k *Peak) Close() {
	p := k.of.peaks
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.list, k); i >= 0 {
		for s := range k.of.sites.all() { // what has not changed since the peak may from now on
			if k.counts(s) && k.sites[s].number != k.number {
				k.sites[s] = sitePeak{k.number, s.live()}
			}
		}
		p.list = slices.Delete(p.list, i, i+1)
		k.closed = true
	}
}

// AtPeak is what was live at a peak: estimates, but with rate 1.
type AtPeak struct {
	Time          time.Time
	Blocks, Bytes int64
	Error         int64    // the standard error of Bytes
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
	for s := range k.of.sites.all() {
		if !k.counts(s) {
			continue
		}
		was := k.sites[s]
		if was.number != k.number && !k.closed {
			was = sitePeak{k.number, s.live()}
		}
		if was.number == k.number && was.bytes > 0 {
			at.Samples = append(at.Samples, s.sample(was.liveSums))
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
	for _, k := range p.list {
		sum += int64(unsafe.Sizeof(*k)) + int64(len(k.sites))*int64(unsafe.Sizeof(sitePeak{})+unsafe.Sizeof(k))*2
	}
	return sum + int64(unsafe.Sizeof(*p))
}
