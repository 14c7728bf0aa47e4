package debugpage

import (
	"maps"
	"slices"
	"strconv"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/sources"
)

// A numbered is a node with its numbers, and the Proxies of it that have not ended.
type numbered struct {
	node  int
	stats counter.Stats
	of    []*alloctrace.Proxy
}

// nodes returns all nodes, parents first, and the sum of the Proxies that the page is of. A Proxy whose numbers cannot be read is left out.
func (l *live) nodes() (all []numbered, sum counter.Stats) {
	return l.appendProxies(nil, nil, -1, nil)
}

// appendProxies appends the Proxies that allocate from one of those that are shown, or from none of them if that is nil, and returns their sum.
// Taken are names that the parent's children have.
func (l *live) appendProxies(all []numbered, from *alloctrace.Proxy, parent int, taken map[string]bool) ([]numbered, counter.Stats) {
	var sum counter.Stats
	for _, i := range l.stacked[from] {
		p := l.proxies[i]
		name := l.names[i]
		for n := 2; taken[name]; n++ {
			name = l.names[i] + "#" + strconv.Itoa(n)
		}
		n := numbered{node: l.book.Node(parent, name), of: []*alloctrace.Proxy{p}}
		if sources.Try(func() error { n.stats = p.Stats(); return nil }) != nil {
			continue
		}
		var above counter.Stats
		all, above = l.appendChildren(append(all, n), n)
		sum = sum.Add(withFailures(n.stats, above))
	}
	return all, sum
}

// appendChildren appends the children of a node, and theirs, and the Proxies that allocate from them or from the node, and returns the sum of these.
// Children whose names the page has no room for are one.
func (l *live) appendChildren(all []numbered, of numbered) (list []numbered, above counter.Stats) {
	alive := make(map[string][]*alloctrace.Proxy)
	children := make(map[int]*numbered)
	taken := make(map[string]bool)
	for _, p := range of.of {
		var stats map[string]counter.Stats
		if sources.Try(func() error { stats = p.ChildStats(); return nil }) != nil {
			continue
		}
		for _, c := range p.Children() {
			alive[c.Name()] = append(alive[c.Name()], c)
		}
		for _, name := range slices.Sorted(maps.Keys(stats)) {
			node := l.book.Node(of.node, name)
			taken[name] = true
			c := children[node]
			if c == nil {
				c = &numbered{node: node}
				children[node] = c
			}
			c.stats = c.stats.Add(stats[name])
			c.of = append(c.of, alive[name]...)
			delete(alive, name)
		}
	}
	var more counter.Stats
	for _, node := range slices.Sorted(maps.Keys(children)) {
		all, more = l.appendChildren(append(all, *children[node]), *children[node])
		above = above.Add(more)
	}
	for _, p := range of.of {
		all, more = l.appendProxies(all, p, of.node, taken)
		above = above.Add(more)
	}
	return all, above
}

// limit returns the limit of a node's only Proxy, -1 if there is none.
func (n *numbered) limit() int64 {
	if len(n.of) == 1 {
		below := sources.LookBelow(n.of[0])
		if limit := below.Limit(); limit != nil {
			return limit()
		}
	}
	return -1
}
