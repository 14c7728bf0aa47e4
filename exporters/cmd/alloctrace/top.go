package main

import (
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/alloctrace/alloctrace/exporters/recording/history"
)

func topFlags(f *flag.FlagSet) func(args []string, out, errOut io.Writer) (int, error) {
	r := readingFlags(f, true)
	r.textFlags(f, "sites")
	by := f.String("by", "live", "the `ORDER` of sites: live at the end, allocated in all, or live at the peak of all")
	w := watchFlags(f)
	recording := r.command(1, func(_ []string, in []*history.Recording) (answer, error) {
		k, err := history.Rank(in[0], *by, r.options())
		if err != nil {
			return answer{}, err
		}
		return answer{k, writeString(topText(k, *by, r)), []*history.Unknown{&k.Unknown}}, nil
	})
	return func(args []string, out, errOut io.Writer) (int, error) {
		if len(args) != 1 || !isPage(args[0]) {
			return recording(args, out, errOut)
		}
		f.Visit(func(set *flag.Flag) { w.refuse(set.Name) })
		return w.run(args[0], r, out)
	}
}

func topText(k *history.Ranking, by string, r *reading) string {
	var b strings.Builder
	total := k.Live
	switch by {
	case "allocated":
		total = k.Allocated
		b.WriteString("allocated")
	case "peak":
		total = k.Peak
		fmt.Fprintf(&b, "live at the peak, at %s", since(k.PeakAt))
	default:
		b.WriteString("live at the end")
	}
	fmt.Fprintf(&b, ": %s, by %s\n", amount(total), number(int64(len(k.Sites)), "site"))
	shown, rest := r.rows(len(k.Sites)), history.Amount{}
	for i := range k.Sites {
		s := &k.Sites[i]
		has := s.By(by)
		if i >= shown {
			rest.Blocks, rest.Bytes = rest.Blocks+has.Blocks, rest.Bytes+has.Bytes
			continue
		}
		fmt.Fprintf(&b, "  %s, %s%s: %s\n", percent(has.Bytes, total.Bytes), amount(has), ownedBy(s.Proxy, s.Child), r.stackLine(s.Stack))
	}
	writeRest(&b, len(k.Sites)-shown, rest)
	writeUnknown(&b, &k.Unknown)
	return b.String()
}

// writeRest writes what was left out.
func writeRest(b *strings.Builder, sites int, rest history.Amount) {
	if sites > 0 {
		fmt.Fprintf(b, "  and %s by %s\n", amount(rest), number(int64(sites), "more site"))
	}
}

func percent(part, of int64) string {
	if of == 0 {
		return "0.0 %"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(of))
}
