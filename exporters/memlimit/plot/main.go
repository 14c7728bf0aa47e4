// Command plot shows what memlimit does. It runs a program that takes 70 % of its budget
// off-heap and gives it back, while it makes garbage for Go's collector: with a Limiter,
// with GOMEMLIMIT at the budget all the time, and with GOMEMLIMIT at what is the ideal
// at the top, each in a process of its own. It prints figures and writes a picture:
//
//	go run ./memlimit/plot -o memlimit.svg
//
// Only Linux says how much is resident, so that it runs there alone.
package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/memlimit/internal/growth"
)

func main() {
	out := flag.String("o", "memlimit.svg", "write the picture to `file`")
	container := flag.Int64("container", 288, "the `MiB` above which a container would be killed; the budget is 0.9 of it")
	gogc := flag.String("gogc", "400", "GOGC of the program")
	rounds := flag.Int("rounds", 5, "run each mode so `often`; the figures are those of the round that took least, which was disturbed least")
	mode := flag.String("mode", "", "run the program itself, in this `mode`, and print JSON")
	flag.Parse()
	if *rounds < 1 {
		check(fmt.Errorf("-rounds is %d: want at least 1", *rounds))
	}
	kill := *container << 20
	budget := kill * 9 / 10
	if *mode != "" {
		r, err := growth.Run(growth.Config{Mode: growth.Mode(*mode), Budget: budget, OffHeap: budget * 7 / 10, Live: budget * 12 / 100, Hold: 800, Shrink: true})
		check(err)
		check(json.NewEncoder(os.Stdout).Encode(r))
		return
	}
	modes := []growth.Mode{growth.Limiter, growth.Static, growth.Ideal}
	all := make(map[growth.Mode][]growth.Result)
	for i := range *rounds * len(modes) {
		m := modes[i%len(modes)]
		cmd := exec.Command(os.Args[0], "-mode", string(m), "-container", fmt.Sprint(*container))
		cmd.Env = append(os.Environ(), "GOGC="+*gogc, "GOMEMLIMIT=off")
		cmd.Stderr = os.Stderr
		text, err := cmd.Output()
		check(err)
		var r growth.Result
		check(json.Unmarshal(text, &r))
		all[m] = append(all[m], r)
	}
	results := make(map[growth.Mode]growth.Result) // the round that took least processor time
	fmt.Printf("container %s, budget %s, GOGC=%s, least of %d rounds\n%-8s %24s %8s %20s %15s %15s %12s\n", counter.FormatBytes(kill), counter.FormatBytes(budget),
		*gogc, *rounds, "", "peak RSS, least to most", "", "collections at top", "GC CPU at top", "CPU at top", "GC gave up")
	for _, m := range modes {
		slices.SortFunc(all[m], func(a, b growth.Result) int { return cmp.Compare(a.Peak, b.Peak) })
		gaveUp := 0
		for _, r := range all[m] {
			if r.GaveUp != 0 {
				gaveUp++
			}
		}
		least, most := all[m][0].Peak, all[m][*rounds-1].Peak
		verdict := "survives"
		if most > kill {
			verdict = "killed"
		}
		slices.SortFunc(all[m], func(a, b growth.Result) int { return cmp.Compare(a.HoldCPU, b.HoldCPU) })
		r := all[m][0]
		results[m] = r
		fmt.Printf("%-8s %11s to %10s %8s %20d %13.2f s %13.2f s %12d\n", m, counter.FormatBytes(least), counter.FormatBytes(most), verdict, r.Cycles, r.HoldGC, r.HoldCPU, gaveUp)
	}
	fmt.Println(results[growth.Limiter].Limit)
	l, i := results[growth.Limiter], results[growth.Ideal]
	fmt.Printf("at the top, limiter / ideal: collections %.2f, GC CPU %.2f, CPU %.2f\n",
		float64(l.Cycles)/float64(i.Cycles), l.HoldGC/i.HoldGC, l.HoldCPU/i.HoldCPU)
	check(os.WriteFile(*out, []byte(picture(kill, budget, results)), 0o644))
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "plot:", err)
		os.Exit(1)
	}
}

const (
	width, height           = 860, 420
	left, right, top, under = 64, 200, 34, 40
)

// picture draws what was resident over time, and what the Limiter did about it.
func picture(kill, budget int64, results map[growth.Mode]growth.Result) string {
	limited, static := results[growth.Limiter], results[growth.Static]
	end, most := 0.0, float64(max(limited.Peak, static.Peak, kill))*1.04
	for _, r := range []growth.Result{limited, static} {
		end = max(end, r.Samples[len(r.Samples)-1].At.Seconds())
	}
	x := func(seconds float64) float64 { return left + (width-left-right)*seconds/end }
	y := func(size float64) float64 { return height - under - (height-top-under)*size/most }

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" fill="#333">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", width, height)
	text := func(atX, atY float64, anchor, colour, s string) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s">%s</text>`+"\n", atX, atY, anchor, colour, s)
	}
	line := func(x1, y1, x2, y2 float64, style string) {
		fmt.Fprintf(&b, `<path d="M%.1f %.1fL%.1f %.1f" fill="none" %s/>`+"\n", x1, y1, x2, y2, style)
	}
	text(left, 20, "start", "#333", "Resident memory of a program that takes 70 % of its budget off-heap, with a memlimit.Limiter and without")
	for mib := 0.0; mib*(1<<20) < most; mib += 50 {
		line(left, y(mib*(1<<20)), width-right, y(mib*(1<<20)), `stroke="#e4e4e4"`)
		text(left-8, y(mib*(1<<20))+4, "end", "#333", fmt.Sprintf("%.0f MiB", mib))
	}
	for s := 0.0; s <= end; s++ {
		text(x(s), height-under+18, "middle", "#333", fmt.Sprintf("%.0f s", s))
	}
	for _, c := range []struct {
		name, colour string
		size         int64
	}{{"killed above", "#c00", kill}, {"budget", "#777", budget}} {
		line(left, y(float64(c.size)), width-right, y(float64(c.size)), `stroke="`+c.colour+`" stroke-dasharray="6 4"`)
		text(width-right+8, y(float64(c.size))+4, "start", c.colour, c.name+" "+counter.FormatBytes(c.size))
	}
	curve := func(r growth.Result, colour string, thick float64, of func(growth.Sample) int64) {
		fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="%.1f" points="`, colour, thick)
		for _, s := range r.Samples {
			fmt.Fprintf(&b, "%.1f,%.1f ", x(s.At.Seconds()), y(float64(of(s))))
		}
		b.WriteString(`"/>` + "\n")
	}
	rss := func(s growth.Sample) int64 { return s.RSS }
	curve(static, "#e08214", 1.5, rss)
	curve(limited, "#2166ac", 1.5, func(s growth.Sample) int64 { return s.OffHeap })
	curve(limited, "#1b7837", 1.5, func(s growth.Sample) int64 { return s.Limit })
	curve(limited, "#000", 1.8, rss)
	for i, k := range []struct{ colour, name string }{{"#e08214", "RSS, GOMEMLIMIT = budget"}, {"#000", "RSS with the Limiter"},
		{"#2166ac", "off-heap, with the Limiter"}, {"#1b7837", "Go's limit, by the Limiter"}} {
		at := float64(height-under) - 100 + 20*float64(i)
		line(width-right+8, at-4, width-right+28, at-4, `stroke-width="2" stroke="`+k.colour+`"`)
		text(width-right+34, at, "start", k.colour, k.name)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
