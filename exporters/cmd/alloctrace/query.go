package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/history"
)

// orders are those that blocks can be sorted by.
var orders = map[string]func(a, b *history.Block) int{
	"size": func(a, b *history.Block) int { return cmp.Compare(b.Size, a.Size) },
	"life": func(a, b *history.Block) int { return cmp.Compare(b.Life(), a.Life()) },
	"time": func(a, b *history.Block) int { return cmp.Compare(a.Acquired, b.Acquired) },
}

// A query says which blocks are looked for.
type query struct {
	at, grew        string
	longer, shorter time.Duration
	size            string
}

func queryFlags(f *flag.FlagSet) func(args []string, out, errOut io.Writer) (int, error) {
	r := readingFlags(f, true)
	r.textFlags(f, "blocks")
	var q query
	f.StringVar(&q.at, "at", "", "blocks that were live at this `moment`")
	f.StringVar(&q.grew, "grew", "", "blocks that were acquired between two moments, `A:B`, and live at the second; A: is up to the end")
	life := func(to *time.Duration, name, usage string) {
		f.Func(name, usage, func(s string) (err error) {
			if *to, err = time.ParseDuration(s); err == nil && *to <= 0 {
				err = errors.New("use a time above 0, such as 90s or 5ms")
			}
			return err
		})
	}
	life(&q.longer, "longer", "blocks that have lived for this `time` or longer, the live ones so far")
	life(&q.shorter, "shorter", "blocks that were released and had lived for less than this `time`")
	f.StringVar(&q.size, "size", "", "blocks of `MIN:MAX` granted bytes, such as 4KiB:1MiB; either may be left out")
	order := f.String("sort", "size", "the `ORDER` of blocks: the largest size or life first, or by the time at which they were acquired")
	return r.command(1, func(_ []string, in []*history.Recording) (answer, error) {
		less, ok := orders[*order]
		if !ok {
			return answer{}, fmt.Errorf("-sort is %q: use size, life or time", *order)
		}
		match, err := q.match(in[0])
		if err != nil {
			return answer{}, err
		}
		found := history.FindBlocks(in[0], match, less, r.most, r.options())
		return answer{foundJSON(found), writeString(queryText(found, r)), []*history.Unknown{&found.Unknown}}, nil
	})
}

// match returns a function that reports whether a block is looked for.
func (q *query) match(in *history.Recording) (func(b *history.Block) bool, error) {
	var all []func(b *history.Block) bool
	if q.at != "" {
		at, err := moment(q.at, in)
		if err != nil {
			return nil, err
		}
		all = append(all, func(b *history.Block) bool { return b.LiveAt(at) })
	}
	if q.grew != "" {
		from, to, err := span(q.grew, in)
		if err != nil {
			return nil, err
		}
		all = append(all, func(b *history.Block) bool { return !b.Older && from <= b.Acquired && b.LiveAt(to) })
	}
	if q.longer > 0 {
		all = append(all, func(b *history.Block) bool { return !b.Lost && b.Life() >= q.longer })
	}
	if q.shorter > 0 {
		all = append(all, func(b *history.Block) bool { return !b.Live && !b.Lost && !b.Older && b.Life() < q.shorter })
	}
	if q.size != "" {
		least, most, ok := strings.Cut(q.size, ":")
		from, to := int64(0), int64(math.MaxInt64)
		var err error
		if !ok {
			err = fmt.Errorf("-size is %q: use MIN:MAX", q.size)
		}
		if err == nil && least != "" {
			from, err = parseBytes(least)
		}
		if err == nil && most != "" {
			to, err = parseBytes(most)
		}
		if err == nil && to < from {
			err = fmt.Errorf("-size is %q: put the smaller size first", q.size)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, func(b *history.Block) bool { return from <= int64(b.Size) && int64(b.Size) <= to })
	}
	return func(b *history.Block) bool {
		for _, is := range all {
			if !is(b) {
				return false
			}
		}
		return true
	}, nil
}

// span returns two moments with a colon between them. Dates have colons too.
func span(s string, in *history.Recording) (from, to time.Duration, err error) {
	first, last := in.Span()
	err = fmt.Errorf("-grew is %q: use two moments, A:B", s)
	for i := range s {
		if s[i] != ':' {
			continue
		}
		a, errA := momentOr(s[:i], in, first)
		b, errB := momentOr(s[i+1:], in, last)
		if errA == nil && errB == nil && a <= b {
			return a, b, nil
		}
		if err = cmp.Or(errA, errB); err == nil {
			err = fmt.Errorf("-grew is %q: put the earlier moment first", s)
		}
	}
	return 0, 0, err
}

func queryText(f *history.Found, r *reading) string {
	var b strings.Builder
	fmt.Fprintf(&b, "found: %s; of them live at the end: %s\n", amount(f.Matched), amount(f.Live))
	for i := range f.Blocks {
		block := &f.Blocks[i]
		fmt.Fprintf(&b, "  %s at %#x%s", counter.FormatBytes(int64(block.Size)), block.Addr, ownedBy(block.Site.Proxy, block.Site.Child))
		if block.Region != "" {
			fmt.Fprintf(&b, ", region %q", block.Region)
		}
		acquired, life := "acquired at", "released after"
		switch {
		case block.Lost:
			life = "released after at most"
		case block.Live:
			life = "lives for"
		case block.Older:
			acquired, life = "acquired before", "released after at least"
		}
		fmt.Fprintf(&b, ", %s %s, %s %s: %s\n", acquired, since(block.Acquired), life, since(block.Life()), r.stackLine(block.Site.Stack))
	}
	if more := f.Matched.Blocks - int64(len(f.Blocks)); more > 0 {
		fmt.Fprintf(&b, "  and %s\n", number(more, "more block"))
	}
	writeUnknown(&b, &f.Unknown)
	return b.String()
}

// A foundBlock is a block with its site, in JSON.
type foundBlock struct {
	*history.Block
	Proxy string            `json:"proxy,omitempty"`
	Child string            `json:"child,omitempty"`
	Stack []recording.Frame `json:"stack"`
}

func foundJSON(f *history.Found) any {
	list := make([]foundBlock, len(f.Blocks))
	for i := range f.Blocks {
		s := f.Blocks[i].Site
		list[i] = foundBlock{&f.Blocks[i], s.Proxy, s.Child, s.Stack}
	}
	return struct {
		Matched history.Amount  `json:"matched"`
		Live    history.Amount  `json:"live"`
		Blocks  []foundBlock    `json:"blocks"`
		Unknown history.Unknown `json:"unknown"`
	}{f.Matched, f.Live, list, f.Unknown}
}
