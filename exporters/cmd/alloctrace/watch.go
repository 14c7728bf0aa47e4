package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"time"
)

// A watch is what the flags of top say of a program that runs.
type watch struct {
	count    int
	interval time.Duration
	sites    bool
	sort     string
	wrong    []string // flags that are set, and are for recordings
}

func watchFlags(f *flag.FlagSet) *watch {
	w := new(watch)
	f.IntVar(&w.count, "count", 0, "of a program: print `N` tables and exit; without a terminal the default is 1")
	f.DurationVar(&w.interval, "interval", time.Second, "of a program: the `TIME` between two tables")
	f.BoolVar(&w.sites, "sites", false, "of a program: print sites, and not children")
	f.StringVar(&w.sort, "sort", "live", "of a program: sort by this `COLUMN`: live, change, alloc/s, blocks, peak, failed or name")
	return w
}

// refuse refuses a flag that is for recordings.
func (w *watch) refuse(name string) {
	if slices.Contains([]string{"alone", "proxy", "child", "region", "stack", "by"}, name) {
		w.wrong = append(w.wrong, "-"+name)
	}
}

// run shows the program whose page is at a URL.
func (w *watch) run(at string, r *reading, out io.Writer) (int, error) {
	switch {
	case len(w.wrong) > 0:
		return failed, fmt.Errorf("%s of a program: use it with a recording", w.wrong[0])
	case !slices.ContainsFunc(liveColumns, func(c liveColumn) bool { return c.name == w.sort }):
		return failed, fmt.Errorf("-sort is %q: use live, change, alloc/s, blocks, peak, failed or name", w.sort)
	case w.count < 0 || w.interval < 100*time.Millisecond:
		return failed, fmt.Errorf("-count %d, -interval %s: use a positive count, and 100ms or more", w.count, w.interval)
	}
	page, err := newLivePage(at)
	if err != nil {
		return failed, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	view := &liveView{sites: w.sites, sort: w.sort, calls: r.calls}
	interactive := w.count == 0 && !r.asJSON && isTerminal(out) && isTerminal(os.Stdin)
	for i := 0; i == 0 || i < w.count; i++ {
		if i > 0 {
			select {
			case <-ctx.Done():
				return whole, nil
			case <-time.After(w.interval):
			}
		}
		m, err := page.moment(ctx)
		if ctx.Err() != nil {
			return whole, nil
		} else if err != nil {
			return failed, err
		}
		view.add(m)
		switch {
		case interactive:
			if err := monitorProgram(ctx, page, view, w.interval, out); err != nil && ctx.Err() == nil {
				return failed, err
			}
		case r.asJSON:
			err = json.NewEncoder(out).Encode(m)
		case i > 0:
			_, err = io.WriteString(out, "\n"+view.text(r.most))
		default:
			_, err = io.WriteString(out, view.text(r.most))
		}
		if err != nil {
			return failed, err
		}
	}
	return whole, nil
}
