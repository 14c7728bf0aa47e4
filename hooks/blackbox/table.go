package blackbox

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/internal/callers"
	"github.com/alloctrace/alloctrace/internal/text"
)

// A line is one of a table, which is lines of JSON: it has one of these.
type line struct {
	Build *Build       `json:"build,omitempty"`
	Proxy *Proxy       `json:"proxy,omitempty"`
	Frame *Frame       `json:"frame,omitempty"` // they are numbered as they come, from 0 on
	Live  *Sites       `json:"live,omitempty"`  // without its sites, which follow
	Peak  *Sites       `json:"peak,omitempty"`  // likewise
	Site  *siteOfTable `json:"site,omitempty"`

	Omitted *omitted `json:"omitted,omitempty"`
}

// siteOfTable is a Site whose stack is the numbers of frames.
type siteOfTable struct {
	Site
	Stack []int `json:"stack"`
}

// omitted says for how much there was no room.
type omitted struct {
	Proxies int `json:"proxies,omitempty"`
	Live    int `json:"live,omitempty"`
	Peak    int `json:"peak,omitempty"`
}

// A table is what is written now and then: see line. It has room for so many bytes, and then some for what was omitted.
type table struct {
	content []byte
	room    int
	frames  map[Frame]int
	omitted omitted
}

// omittedRoom is for the last line, which says what was omitted.
const omittedRoom = 128

// add appends the lines, all or none, as long as limit bytes suffice. It reports whether they do.
func (t *table) add(limit int, lines ...line) bool {
	begin := len(t.content)
	for _, l := range lines {
		b, err := json.Marshal(l)
		if err != nil || len(t.content)+len(b)+1 > limit {
			t.content = t.content[:begin]
			return false
		}
		t.content = append(append(t.content, b...), '\n')
	}
	return true
}

// addProxies appends the numbers of Proxies, each followed by its children, those with the most live bytes first. They take a quarter of the room at
// most, of which children leave some for the Proxies that follow.
func (t *table) addProxies(all []*alloctrace.Proxy) {
	for i, p := range all {
		name := text.Name(p.Name())
		t.addProxy(t.room/4, Proxy{Name: name, Stats: p.Stats()})
		children := p.ChildStats()
		byLive := slices.SortedFunc(maps.Keys(children), func(a, b string) int {
			return cmp.Or(cmp.Compare(children[b].LiveBytes, children[a].LiveBytes), cmp.Compare(a, b))
		})
		for _, child := range byLive {
			t.addProxy(t.room/4-(len(all)-1-i)*proxyRoom, Proxy{Name: name, Child: text.Name(child), Stats: children[child]})
		}
	}
}

// proxyRoom is how many bytes are left for the line of a Proxy.
const proxyRoom = 4 << 10

func (t *table) addProxy(limit int, p Proxy) {
	if !t.add(limit, line{Proxy: &p}) {
		t.omitted.Proxies++
	}
}

// addSites appends the line of the whole, and what was live of each site, as long as limit bytes suffice. It returns how many sites
// were omitted.
func (t *table) addSites(limit int, whole line, samples []heapprofile.Sample, names symbols) (omitted int) {
	if !t.add(limit, whole) {
		return len(samples)
	}
	for i, s := range samples {
		if !t.addSite(limit, s, names.of(s.Stack)) {
			return len(samples) - i
		}
	}
	return 0
}

func (t *table) addSite(limit int, s heapprofile.Sample, stack []Frame) bool {
	site := siteOfTable{Site: Site{Blocks: s.LiveBlocks, Bytes: s.LiveBytes, Error: s.LiveError}, Stack: []int{}}
	for _, l := range s.Labels {
		site.Labels = append(site.Labels, Label{text.Name(l.Key), text.Name(l.Value)})
	}
	var lines []line
	for _, f := range stack {
		n, known := t.frames[f]
		if !known {
			n = len(t.frames)
			t.frames[f] = n
			lines = append(lines, line{Frame: &f})
		}
		site.Stack = append(site.Stack, n)
	}
	if t.add(limit, append(lines, line{Site: &site})...) {
		return true
	}
	for _, l := range lines {
		delete(t.frames, *l.Frame)
	}
	return false
}

// symbols are the frames of stacks that were asked for before, by the first word of the stack: a Profile keeps a stack for ever.
type symbols map[*uintptr][]Frame

func (s symbols) of(stack []uintptr) []Frame {
	if len(stack) == 0 {
		return nil
	}
	frames, known := s[&stack[0]]
	if !known {
		for _, f := range callers.Frames(stack) {
			frames = append(frames, Frame{text.Name(f.Function), text.Name(f.File), f.Line, uint64(f.PC)})
		}
		s[&stack[0]] = frames
	}
	return frames
}

// liveOf returns what is live of samples, and the sum.
func liveOf(p *heapprofile.Profile) (Sites, []heapprofile.Sample) {
	sum := Sites{Time: time.Now(), Rate: p.Rate()}
	samples := slices.DeleteFunc(p.Samples(), func(s heapprofile.Sample) bool { return s.LiveBytes <= 0 })
	for _, s := range samples {
		sum.Blocks += s.LiveBlocks
		sum.Bytes += s.LiveBytes
	}
	return sum, samples
}
