package main

import (
	"encoding/csv"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/history"
)

func timelineFlags(f *flag.FlagSet) func(args []string, out, errOut io.Writer) (int, error) {
	r := readingFlags(f, true)
	r.textFlags(f, "groups")
	by := f.String("by", "", "what is told apart, the `GROUP`: child, site, region or proxy")
	steps := f.Int("steps", 40, "divide the time into `N` steps")
	asCSV := f.Bool("csv", false, "print it as CSV: docs/read-a-recording.md has the columns")
	return r.command(1, func(_ []string, in []*history.Recording) (answer, error) {
		if r.asJSON && *asCSV {
			return answer{}, errUsage
		}
		if err := checkSteps(*steps); err != nil {
			return answer{}, err
		}
		t, err := history.NewTimeline(in[0], *by, *steps, r.options())
		if err != nil {
			return answer{}, err
		}
		a := answer{t, writeString(timelineText(t, *by, r)), []*history.Unknown{&t.Unknown}}
		if *asCSV {
			a.write = func(w io.Writer) error { return timelineCSV(w, t, *by) }
		}
		return a, nil
	})
}

// mostSteps is how many steps of time can be asked for: a timeline takes 8 bytes for each step of each group.
const mostSteps = 1_000_000

func checkSteps(n int) error {
	if n < 1 || n > mostSteps {
		return fmt.Errorf("-steps %d: use 1 to %d", n, mostSteps)
	}
	return nil
}

const barWidth = 60

func timelineText(t *history.Timeline, by string, r *reading) string {
	var b strings.Builder
	fmt.Fprintf(&b, "the most live bytes of each %s: peak %s, %s at the end\n", since(t.Step), counter.FormatBytes(t.Total.Peak), counter.FormatBytes(t.Total.Live))
	for i, bytes := range t.Total.Values {
		bar := strings.Repeat("#", scale(bytes, t.Total.Peak, barWidth))
		row := fmt.Sprintf("%10s  %10s  %s", since(t.Begin+t.Step*time.Duration(i)), counter.FormatBytes(bytes), bar)
		b.WriteString(strings.TrimRight(row, " ") + "\n")
	}
	if by != "" {
		fmt.Fprintf(&b, "\nby %s, the largest peak first, each in proportion to the first:\n%10s  %10s\n", by, "peak", "end")
	}
	shown := r.rows(len(t.Groups))
	for i := range t.Groups[:shown] {
		g := &t.Groups[i]
		fmt.Fprintf(&b, "%10s  %10s  %s  %s\n", counter.FormatBytes(g.Peak), counter.FormatBytes(g.Live), sparks(g.Values, t.Groups[0].Peak), r.groupName(g, by))
	}
	if shown < len(t.Groups) {
		fmt.Fprintf(&b, "and %d more, whose peaks are %s at most\n", len(t.Groups)-shown, counter.FormatBytes(t.Groups[shown].Peak))
	}
	writeUnknown(&b, &t.Unknown)
	return b.String()
}

const sparkLevels = " ▁▂▃▄▅▆▇█"

// sparks draws values in proportion to the most that there is. What is not 0 can be seen.
func sparks(values []int64, most int64) string { return sparksOf(values, most, sparkLevels) }

func sparksOf(values []int64, most int64, characters string) string {
	levels := []rune(characters)
	var b strings.Builder
	for _, v := range values {
		level := scale(v, most, len(levels)-1)
		if v > 0 {
			level = max(1, level)
		}
		b.WriteRune(levels[level])
	}
	return b.String()
}

// scale returns n in proportion to most, which becomes to.
func scale(n, most int64, to int) int {
	if n <= 0 || most <= 0 {
		return 0
	}
	return min(to, int(float64(n)/float64(most)*float64(to)))
}

func (r *reading) groupName(g *history.Group, by string) string {
	switch by {
	case "region":
		if g.Region == "" {
			return "no region"
		}
		return fmt.Sprintf("%q", g.Region)
	case "site":
		return strings.TrimPrefix(ownedBy(g.Site.Proxy, g.Site.Child)+": "+r.stackLine(g.Site.Stack), " of ")
	}
	return ownerName(g.Proxy, g.Child)
}

// timelineCSV writes a row for each step of each group.
func timelineCSV(out io.Writer, t *history.Timeline, by string) error {
	w := csv.NewWriter(out)
	row := func(columns ...string) { _ = w.Write(columns) } // w.Error returns it
	row("begin_ns", "end_ns", "proxy", "child", "region", "stack", "bytes")
	groups := t.Groups
	if by == "" {
		groups = []history.Group{t.Total}
	}
	for i := range groups {
		g := groups[i]
		var stack []recording.Frame
		if g.Site != nil {
			g.Proxy, g.Child, stack = g.Site.Proxy, g.Site.Child, g.Site.Stack
		}
		for step, bytes := range g.Values {
			begin := t.Begin + t.Step*time.Duration(step)
			row(decimal(int64(begin)), decimal(int64(begin+t.Step)), g.Proxy, g.Child, g.Region, stackColumn(stack), decimal(bytes))
		}
	}
	w.Flush()
	return w.Error()
}
