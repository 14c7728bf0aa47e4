package main

import (
	"slices"
	"time"

	"github.com/alloctrace/alloctrace/exporters/recording/history"
)

// The heaps of Perfetto's heap profile. Its user interface puts these names into queries as they are.
const (
	offHeap = "off-heap"
	atPeak  = "off-heap at the peak"
)

// packetSamples is how many samples a packet has at most.
const packetSamples = 1000

// A heapProfile writes what sites hold at some moments. Perfetto computes the difference of a site's samples, and refuses what is
// less than before.
type heapProfile struct {
	to    *perfettoWriter
	begin time.Duration // of what the next snapshot is of
	sent  map[*history.Site]*sent
	times map[time.Duration]bool
	index uint64
}

// sent is what was last sent of a site.
type sent struct {
	allocated, freed history.Amount
	again            history.Amount // releases that were taken back after a snapshot: they are allocated and freed once more
}

func newHeapProfile(to *perfettoWriter, begin time.Duration) *heapProfile {
	return &heapProfile{to: to, begin: begin, sent: make(map[*history.Site]*sent), times: make(map[time.Duration]bool)}
}

// snapshot writes what sites have allocated and freed up to a moment, of those that have changed.
func (p *heapProfile) snapshot(h *history.History, at time.Duration) {
	var samples []message
	for _, s := range h.Sites() {
		was := p.sent[s]
		if was == nil {
			was = new(sent)
			p.sent[s] = was
		}
		freed := s.Allocated.Sub(s.Live)
		was.again.Blocks = max(was.again.Blocks, was.freed.Blocks-freed.Blocks)
		was.again.Bytes = max(was.again.Bytes, was.freed.Bytes-freed.Bytes)
		allocated := plus(s.Allocated, was.again)
		freed = plus(freed, was.again)
		if allocated != was.allocated || freed != was.freed {
			was.allocated, was.freed = allocated, freed
			samples = append(samples, p.sample(s, allocated, freed))
		}
	}
	p.dump(offHeap, p.begin, at, h.Now(), samples)
	p.begin = at
	p.times[at] = true
}

// peak writes what was live at the peak, as the last dump: by then no site has another sample.
func (p *heapProfile) peak(h *history.History) {
	var samples []message
	for _, s := range h.Sites() {
		if live := h.AtPeak(s); live.Blocks > 0 {
			samples = append(samples, p.sample(s, live, history.Amount{}))
		}
	}
	_, at := h.Peak()
	for p.times[at] { // Perfetto would take two dumps of one moment for one
		at++
	}
	if len(samples) > 0 {
		p.dump(atPeak, at, at, h.Now(), samples)
	}
}

func (p *heapProfile) sample(s *history.Site, allocated, freed history.Amount) message {
	return message(nil).number(sampleCallstack, p.to.site(s)).
		number(sampleAllocated, uint64(allocated.Bytes)).number(sampleAllocations, uint64(allocated.Blocks)).
		number(sampleFreed, uint64(freed.Bytes)).number(sampleFrees, uint64(freed.Blocks))
}

// dump writes the samples of a heap, from a moment to another, in packets of the moment now.
func (p *heapProfile) dump(heap string, from, to, now time.Duration, samples []message) {
	for list := range slices.Chunk(append(samples, nil), packetSamples) {
		dump := message(nil).number(dumpPID, p.to.pid).text(dumpHeap, heap).number(dumpInterval, 1).
			number(dumpStart, p.to.time(from)).number(dumpTimestamp, p.to.time(to))
		continued := uint64(1)
		for _, s := range list {
			if s == nil {
				continued = 0
				break
			}
			dump = dump.message(dumpSamples, s)
		}
		profile := message(nil).message(profileDumps, dump).number(profileContinued, continued).number(profileIndex, p.index)
		p.index++
		p.to.send(p.to.at(now).message(packetProfile, profile))
	}
}

func plus(a, b history.Amount) history.Amount {
	return history.Amount{Blocks: a.Blocks + b.Blocks, Bytes: a.Bytes + b.Bytes}
}
