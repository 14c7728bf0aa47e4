package history

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alloctrace/alloctrace/exporters/recording"
)

// End is the moment of the end of a recording.
const End = time.Duration(math.MaxInt64)

// A Change is what is live of a site at two moments.
type Change struct {
	Proxy  string            `json:"proxy,omitempty"`
	Child  string            `json:"child,omitempty"`
	Stack  []recording.Frame `json:"stack"`
	Before Amount            `json:"before"`
	After  Amount            `json:"after"`
	Change Amount            `json:"change"`
}

// A Comparison is what is live at two moments.
type Comparison struct {
	Before  Amount   `json:"before"`
	After   Amount   `json:"after"`
	Sites   []Change `json:"sites"`   // those that have changed, the largest change of bytes first
	Unknown Unknown  `json:"unknown"` // of the second recording, up to its end
	First   *Unknown `json:"unknown_before,omitempty"`
}

// Between compares two moments of a recording. Moments and Reached of o are not used.
func Between(r *Recording, from, to time.Duration, o Options) *Comparison {
	var list [2][]Change
	c := new(Comparison)
	o.Moments = []time.Duration{min(from, to), max(from, to)}
	read := func(i int, h *History) {
		list[i] = snapshot(h)
		*[]*Amount{&c.Before, &c.After}[i] = h.Live()
	}
	reached := 0
	o.Reached = func(i int, h *History) { read(i, h); reached++ }
	h := r.Read(o)
	for ; reached < 2; reached++ {
		read(reached, h)
	}
	if from > to {
		list[0], list[1] = list[1], list[0]
		c.Before, c.After = c.After, c.Before
	}
	c.Unknown = h.Unknown()
	c.Sites = compare(list[0], list[1], true)
	return c
}

// Compare compares a moment of two recordings: the same since they began, or [End]. Their sites are the same if the functions are: lines
// differ between builds. Moments and Reached of o are not used.
func Compare(before, after *Recording, at time.Duration, o Options) *Comparison {
	var list [2][]Change
	var unknown [2]Unknown
	c := new(Comparison)
	o.Moments = []time.Duration{at}
	for i, r := range []*Recording{before, after} {
		reached := false
		read := func(_ int, h *History) {
			reached = true
			list[i] = snapshot(h)
			*[]*Amount{&c.Before, &c.After}[i] = h.Live()
		}
		o.Reached = read
		h := r.Read(o)
		if !reached {
			read(0, h)
		}
		unknown[i] = h.Unknown()
	}
	c.First, c.Unknown = &unknown[0], unknown[1]
	c.Sites = compare(list[0], list[1], false)
	return c
}

// snapshot returns what is live, as After.
func snapshot(h *History) (list []Change) {
	for _, s := range h.sites.list {
		if s.Live.Blocks > 0 {
			list = append(list, Change{Proxy: s.Proxy, Child: s.Child, Stack: s.Stack, After: s.Live})
		}
	}
	return list
}

// compare joins two snapshots by site.
func compare(before, after []Change, lines bool) (list []Change) {
	list = []Change{}
	number := make(map[string]int)
	at := func(c *Change) *Change {
		var name strings.Builder
		name.WriteString(c.Proxy + "\x00" + c.Child)
		for _, f := range c.Stack {
			name.WriteString("\x00" + f.Function)
			if lines {
				name.WriteString("\x00" + f.File + "\x00" + strconv.Itoa(f.Line))
			}
		}
		n, ok := number[name.String()]
		if !ok {
			n = len(list)
			number[name.String()] = n
			list = append(list, Change{})
		}
		list[n].Proxy, list[n].Child, list[n].Stack = c.Proxy, c.Child, c.Stack
		return &list[n]
	}
	for i := range before {
		at(&before[i]).Before.add(before[i].After.Blocks, before[i].After.Bytes)
	}
	for i := range after {
		at(&after[i]).After.add(after[i].After.Blocks, after[i].After.Bytes)
	}
	for i := range list {
		list[i].Change = list[i].After.Sub(list[i].Before)
	}
	list = slices.DeleteFunc(list, func(c Change) bool { return c.Change == Amount{} })
	slices.SortStableFunc(list, func(a, b Change) int {
		if a, b := magnitude(a.Change.Bytes), magnitude(b.Change.Bytes); a != b {
			return sign(b - a)
		}
		return sign(magnitude(b.Change.Blocks) - magnitude(a.Change.Blocks))
	})
	return list
}

func magnitude(n int64) int64 { return max(n, -n) }
