package debugpage

import (
	"maps"
	"slices"

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
	for i, p := range l.proxies {
		n := numbered{node: l.book.Node(-1, l.names[i]), of: []*alloctrace.Proxy{p}}
		if sources.Try(func() error { n.stats = p.Stats(); return nil }) != nil {
			continue
		}
		sum = sum.Add(n.stats)
		all = l.appendChildren(append(all, n), n)
	}
	return all, sum
}

// appendChildren appends the children of a node, and theirs. Those whose names the page has no room for are one.
func (l *live) appendChildren(all []numbered, of numbered) []numbered {
	alive := make(map[string][]*alloctrace.Proxy)
	children := make(map[int]*numbered)
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
	for _, node := range slices.Sorted(maps.Keys(children)) {
		all = l.appendChildren(append(all, *children[node]), *children[node])
	}
	return all
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
