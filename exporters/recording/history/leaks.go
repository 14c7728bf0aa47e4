package history

import (
	"slices"
	"time"
)

// A Leak is a site that has live blocks at the end. That they are live is all that is known: a cache has such blocks too.
type Leak struct {
	*Site
	Oldest    time.Duration `json:"oldest_ns"` // when its oldest live block was acquired
	Newest    time.Duration `json:"newest_ns"`
	Outlived  int64         `json:"outlived"`  // live blocks that have lived longer than any block of the site that was released
	Uncertain Amount        `json:"uncertain"` // of its live blocks: see Unknown

	// Quarters are the live bytes at Leaks.Moments. Grows reports whether each is more than the one before.
	Quarters [4]int64 `json:"quarters"`
	Grows    bool     `json:"grows"`
}

// Leaks is what is live at the end.
type Leaks struct {
	Moments [4]time.Duration `json:"moments_ns"` // after a quarter of the recording, a half, three quarters and all
	Live    Amount           `json:"live"`
	Sites   []Leak           `json:"sites"` // the most bytes first
	Unknown Unknown          `json:"unknown"`
}

// FindLeaks reads a recording, twice if it is damaged. Moments and Reached of o are not used.
func FindLeaks(r *Recording, o Options) *Leaks {
	l := &Leaks{Sites: []Leak{}}
	var quarters [3][]int64 // by number of a site
	h := r.readSpan(func(first, last time.Duration) Options {
		for i := range l.Moments {
			l.Moments[i] = first + (last-first)/4*time.Duration(i+1)
		}
		l.Moments[3] = last
		o.Moments = l.Moments[:3]
		o.Reached = func(i int, h *History) {
			quarters[i] = nil
			for _, s := range h.sites.list {
				quarters[i] = append(quarters[i], s.Live.Bytes)
			}
		}
		return o
	})
	byNumber := make(map[int]*Leak)
	for s := range h.slots() {
		k := byNumber[s.site.number]
		if k == nil {
			k = &Leak{Site: s.site, Oldest: s.acquired, Newest: s.acquired}
			byNumber[s.site.number] = k
		}
		k.Oldest, k.Newest = min(k.Oldest, s.acquired), max(k.Newest, s.acquired)
		if s.site.Freed.Blocks > 0 && h.now-s.acquired > s.site.Longest {
			k.Outlived++
		}
		if s.gap != h.blocks.gap {
			k.Uncertain.add(1, int64(s.size))
		}
	}
	for number, k := range byNumber {
		k.Grows = true
		for i, at := range quarters {
			if number < len(at) {
				k.Quarters[i] = at[number]
			}
		}
		k.Quarters[3] = k.Live.Bytes
		for i := 1; i < len(k.Quarters); i++ {
			k.Grows = k.Grows && k.Quarters[i] > k.Quarters[i-1]
		}
		l.Sites = append(l.Sites, *k)
	}
	slices.SortFunc(l.Sites, func(a, b Leak) int {
		return bySize(a.Live, b.Live, a.number, b.number)
	})
	l.Live, l.Unknown = h.Live(), h.Unknown()
	return l
}

// bySize orders the most bytes first, and among equals the first site.
func bySize(a, b Amount, first, second int) int {
	switch {
	case a.Bytes != b.Bytes:
		return sign(b.Bytes - a.Bytes)
	case a.Blocks != b.Blocks:
		return sign(b.Blocks - a.Blocks)
	}
	return first - second
}

func sign(n int64) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}
