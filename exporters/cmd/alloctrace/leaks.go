package main

import (
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/recording/history"
)

func leaksFlags(f *flag.FlagSet) func(args []string, out, errOut io.Writer) (int, error) {
	r := readingFlags(f, true)
	r.textFlags(f, "sites")
	return r.command(1, func(_ []string, in []*history.Recording) (answer, error) {
		l := history.FindLeaks(in[0], r.options())
		return answer{l, writeString(leaksText(l, r)), []*history.Unknown{&l.Unknown}}, nil
	})
}

func leaksText(l *history.Leaks, r *reading) string {
	var b strings.Builder
	end := l.Moments[3]
	fmt.Fprintf(&b, "live at the end, at %s: %s, by %s\n", since(end), amount(l.Live), number(int64(len(l.Sites)), "site"))
	shown, rest := r.rows(len(l.Sites)), history.Amount{}
	for i := range l.Sites {
		k := &l.Sites[i]
		if i >= shown {
			rest.Blocks, rest.Bytes = rest.Blocks+k.Live.Blocks, rest.Bytes+k.Live.Bytes
			continue
		}
		grows := ""
		if k.Grows {
			grows = "grows: "
		}
		fmt.Fprintf(&b, "  %s%s%s: %s\n", grows, amount(k.Live), ownedBy(k.Proxy, k.Child), r.stackLine(k.Stack))
		for i, at := range l.Moments {
			fmt.Fprintf(&b, "%s %s at %s", []string{"    live were", ",", ",", ","}[i], counter.FormatBytes(k.Quarters[i]), since(at))
		}
		fmt.Fprintf(&b, "\n    the oldest has lived for %s, the newest for %s; ", since(end-k.Oldest), since(end-k.Newest))
		if k.Freed.Blocks == 0 {
			fmt.Fprintf(&b, "none of %s was released\n", number(k.Allocated.Blocks, "block"))
		} else {
			fmt.Fprintf(&b, "%d of %s were released, after %s at most, and %d have lived for longer\n", k.Freed.Blocks, number(k.Allocated.Blocks, "block"), since(k.Longest), k.Outlived)
		}
		if k.Uncertain.Blocks > 0 {
			fmt.Fprintf(&b, "    of these, %s may have been released where events are missing\n", amount(k.Uncertain))
		}
	}
	writeRest(&b, len(l.Sites)-shown, rest)
	b.WriteString("\nThat a block is live does not say that it leaks: a cache has such blocks too.\n")
	writeUnknown(&b, &l.Unknown)
	return b.String()
}
