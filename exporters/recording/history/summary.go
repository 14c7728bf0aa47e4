package history

import (
	"fmt"
	"slices"
	"time"

	"github.com/alloctrace/alloctrace/exporters/recording"
)

// A Summary is what a recording has, in short.
type Summary struct {
	Files  []string         `json:"files"`
	Size   int64            `json:"size"` // bytes of the files
	Header recording.Header `json:"header"`
	Closed bool             `json:"closed"`   // the Recorder was
	First  time.Duration    `json:"first_ns"` // since Header.Began
	Last   time.Duration    `json:"last_ns"`

	Counts  Counts        `json:"counts"`
	Owners  []Owner       `json:"owners"`
	Sites   int           `json:"sites"`
	Live    Amount        `json:"live"` // at the end
	Peak    Amount        `json:"peak"`
	PeakAt  time.Duration `json:"peak_ns"`
	Unknown Unknown       `json:"unknown"`
}

// Summarize reads a recording.
func Summarize(r *Recording, o Options) *Summary {
	h := r.Read(o)
	s := &Summary{
		Files: r.Files(), Size: r.Size(), Header: r.Header(), Closed: r.closed, First: r.first, Last: h.Now(),
		Counts: h.Counts(), Owners: h.Owners(), Sites: len(h.Sites()), Live: h.Live(), Unknown: h.Unknown(),
	}
	s.Peak, s.PeakAt = h.Peak()
	return s
}

// A Ranked is a Site with what of it was live at the peak of all.
type Ranked struct {
	*Site
	Peak Amount `json:"peak"`
}

// A Ranking is the sites in the order of what they hold or have allocated.
type Ranking struct {
	Live      Amount        `json:"live"` // at the end
	Allocated Amount        `json:"allocated"`
	Peak      Amount        `json:"peak"`
	PeakAt    time.Duration `json:"peak_ns"`
	Sites     []Ranked      `json:"sites"` // those that have some of it, the most bytes first
	Unknown   Unknown       `json:"unknown"`
}

// By returns the amount by which sites are ranked: "live", "allocated" or "peak".
func (r *Ranked) By(by string) Amount {
	return map[string]Amount{"live": r.Live, "allocated": r.Allocated, "peak": r.Peak}[by]
}

// Rank reads a recording, and ranks sites by what is "live" at the end, what they have "allocated", or what was live at the "peak"
// of all.
func Rank(r *Recording, by string, o Options) (*Ranking, error) {
	if !slices.Contains([]string{"live", "allocated", "peak"}, by) {
		return nil, fmt.Errorf("history: Rank(%q): use live, allocated or peak", by)
	}
	h := r.Read(o)
	k := &Ranking{Live: h.Live(), Sites: []Ranked{}, Unknown: h.Unknown()}
	k.Peak, k.PeakAt = h.Peak()
	for _, s := range h.Sites() {
		ranked := Ranked{s, h.AtPeak(s)}
		k.Allocated.add(s.Allocated.Blocks, s.Allocated.Bytes)
		if ranked.By(by).Blocks > 0 {
			k.Sites = append(k.Sites, ranked)
		}
	}
	slices.SortStableFunc(k.Sites, func(a, b Ranked) int { return bySize(a.By(by), b.By(by), a.number, b.number) })
	return k, nil
}
