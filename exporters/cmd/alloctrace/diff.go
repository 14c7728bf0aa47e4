package main

import (
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/recording/history"
)

func diffFlags(f *flag.FlagSet) func(args []string, out, errOut io.Writer) (int, error) {
	r := readingFlags(f, true)
	r.textFlags(f, "sites")
	from := f.String("from", "", "the first `moment` of one recording; without it the beginning")
	to := f.String("to", "", "the second `moment` of one recording; without it the end")
	at := f.String("at", "", "the `moment` of both recordings; without it their ends")
	return r.command(2, func(args []string, in []*history.Recording) (a answer, err error) {
		if len(args) == 1 && *at != "" || len(args) == 2 && *from+*to != "" {
			return a, errUsage
		}
		var c *history.Comparison
		var names [2]string
		if len(in) == 1 {
			begin, end := in[0].Span()
			if begin, err = momentOr(*from, in[0], begin); err != nil {
				return a, err
			}
			if end, err = momentOr(*to, in[0], end); err != nil {
				return a, err
			}
			c = history.Between(in[0], begin, end, r.options())
			names = [2]string{"at " + since(begin), "at " + since(end)}
		} else {
			end, err := momentOr(*at, in[0], history.End)
			if err != nil {
				return a, err
			}
			if other, err := momentOr(*at, in[1], history.End); err != nil {
				return a, err
			} else if other != end {
				return a, fmt.Errorf("-at is %q: for two recordings use the time since they began, such as 90s", *at)
			}
			c = history.Compare(in[0], in[1], end, r.options())
			names = [2]string{line(args[0]), line(args[1])}
		}
		a = answer{c, writeString(diffText(c, names, r)), []*history.Unknown{&c.Unknown}}
		if c.First != nil {
			a.unknown = append(a.unknown, c.First)
		}
		return a, nil
	})
}

func diffText(c *history.Comparison, names [2]string, r *reading) string {
	var b strings.Builder
	fmt.Fprintf(&b, "live %s: %s\nlive %s: %s\nchanged by %s, at %s\n", names[0], amount(c.Before), names[1], amount(c.After),
		changed(c.After.Sub(c.Before)), number(int64(len(c.Sites)), "site"))
	shown, rest := r.rows(len(c.Sites)), history.Amount{}
	for i := range c.Sites {
		s := &c.Sites[i]
		if i >= shown {
			rest.Blocks, rest.Bytes = rest.Blocks+s.Change.Blocks, rest.Bytes+s.Change.Bytes
			continue
		}
		fmt.Fprintf(&b, "  %s, from %s to %s%s: %s\n", changed(s.Change), counter.FormatBytes(s.Before.Bytes), counter.FormatBytes(s.After.Bytes), ownedBy(s.Proxy, s.Child), r.stackLine(s.Stack))
	}
	if shown < len(c.Sites) {
		fmt.Fprintf(&b, "  and %s at %s\n", changed(rest), number(int64(len(c.Sites)-shown), "more site"))
	}
	if c.First != nil {
		b.WriteString("\nsites of two recordings are the same if their functions are: lines are those of the second\n")
		writeUnknownOf(&b, c.First, " of the first")
		writeUnknownOf(&b, &c.Unknown, " of the second")
	} else {
		writeUnknown(&b, &c.Unknown)
	}
	return b.String()
}

// changed writes a difference for people.
func changed(a history.Amount) string {
	bytes, blocks := counter.FormatBytes(a.Bytes), fmt.Sprintf("%+d blocks", a.Blocks)
	if a.Bytes > 0 {
		bytes = "+" + bytes
	}
	switch a.Blocks {
	case 0:
		blocks = "0 blocks"
	case 1, -1:
		blocks = strings.TrimSuffix(blocks, "s")
	}
	return bytes + " in " + blocks
}
