package main

import (
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/recording/history"
)

func infoFlags(f *flag.FlagSet) func(args []string, out, errOut io.Writer) (int, error) {
	r := readingFlags(f, false)
	r.jsonFlag(f)
	return r.command(1, func(_ []string, in []*history.Recording) (answer, error) {
		s := history.Summarize(in[0], r.options())
		return answer{s, writeString(infoText(s)), []*history.Unknown{&s.Unknown}}, nil
	})
}

func infoText(s *history.Summary) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", line(strings.Join(s.Files, ", ")), counter.FormatBytes(s.Size))
	if s.Counts.Events > 0 {
		fmt.Fprintf(&b, ", %.1f bytes an event", float64(s.Size)/float64(s.Counts.Events))
	}
	h := &s.Header
	fmt.Fprintf(&b, "\nprocess %d", h.PID)
	if h.Program != "" {
		fmt.Fprintf(&b, ", %s", line(h.Program))
	}
	if h.Go != "" {
		fmt.Fprintf(&b, ", %s", line(h.Go))
	}
	fmt.Fprintf(&b, ", %s/%s\n", line(h.GOOS), line(h.GOARCH))
	fmt.Fprintf(&b, "recording began %s, and has %s to %s of it\n", date(h.Began), since(s.First), since(s.Last))
	if s.Closed {
		b.WriteString("closed\n")
	} else {
		b.WriteString("not closed: the process was killed, has crashed, or still runs; what came after the last flush is missing\n")
	}
	stacks := "stacks of who allocated and who freed"
	switch {
	case !h.Stacks && !h.FreeStacks:
		stacks = "no stacks"
	case !h.Stacks:
		stacks = "stacks of who freed"
	case !h.FreeStacks:
		stacks = "stacks of who allocated"
	}
	fmt.Fprintf(&b, "%s, %s\n", stacks, number(int64(s.Sites), "site"))
	c := &s.Counts
	fmt.Fprintf(&b, "\n%s: %s, %s, %s; failures: %d to allocate, %d to reallocate, %d to free\n", number(c.Events, "event"), number(c.Allocations, "allocation"),
		number(c.Reallocations, "reallocation"), number(c.Frees, "free"), c.AllocateFailures, c.ReallocateFailures, c.FreeFailures)
	fmt.Fprintf(&b, "live at the end: %s; at the peak, at %s: %s\n", amount(s.Live), since(s.PeakAt), amount(s.Peak))
	proxies := make(map[string]bool)
	for _, o := range s.Owners {
		proxies[o.Proxy] = true
		fmt.Fprintf(&b, "  %s: live %s, peak %s at %s, allocated %s\n", ownerName(o.Proxy, o.Child), amount(o.Live), amount(o.Peak), since(o.PeakAt), amount(o.Allocated))
	}
	if len(proxies) > 1 {
		b.WriteString("  if one of these Proxies is around another, its memory is counted twice in all: use -proxy\n")
	}
	writeUnknown(&b, &s.Unknown)
	return b.String()
}
