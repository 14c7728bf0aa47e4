package main

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/history"
)

// An export is what the flags of the command say.
type export struct {
	*reading
	peak, blocks bool
	steps        int
}

func exportFlags(f *flag.FlagSet) func(args []string, out, errOut io.Writer) (int, error) {
	e := export{reading: readingFlags(f, true)}
	to := f.String("o", "-", "write to this `FILE`; - is the standard output")
	f.BoolVar(&e.peak, "peak", false, "pprof: in use is what was live at the peak, and not at the end")
	f.BoolVar(&e.blocks, "blocks", false, "csv: a row is a block, and not an event")
	f.IntVar(&e.steps, "steps", 2000, "chrome: live bytes have a value for each of `N` steps of time, the most of it")
	return func(args []string, out, errOut io.Writer) (int, error) {
		if len(args) != 2 {
			return failed, errUsage
		}
		write := map[string]func(w io.Writer, in *history.Recording) (history.Unknown, error){"pprof": e.pprof, "chrome": e.chrome, "csv": e.csv}[args[0]]
		if write == nil || e.peak && args[0] != "pprof" || e.blocks && args[0] != "csv" {
			return failed, errUsage
		}
		in, err := e.open(args[1], errOut)
		if err != nil {
			return failed, err
		}
		var unknown history.Unknown
		err = writeFile(*to, out, func(w io.Writer) (err error) {
			buffer := bufio.NewWriter(w)
			if unknown, err = write(buffer, in); err != nil {
				return err
			}
			return buffer.Flush()
		})
		return statusOf(err, &unknown)
	}
}

func (e *export) pprof(w io.Writer, in *history.Recording) (history.Unknown, error) {
	k, err := history.Rank(in, "allocated", e.options())
	if err != nil {
		return history.Unknown{}, err
	}
	return k.Unknown, profileOfSites(in, k, e.peak).Write(w)
}

// A traceEvent is one of the Trace Event Format, which Perfetto and Chrome open.
type traceEvent struct {
	Name  string  `json:"name"`
	Phase string  `json:"ph"`
	Time  float64 `json:"ts"` // microseconds
	PID   int     `json:"pid"`
	TID   int     `json:"tid"`
	Scope string  `json:"s,omitempty"`
	Args  any     `json:"args,omitempty"`
}

// maxInstants is how many events that fail or were dropped a trace has.
const maxInstants = 10_000

// chrome writes the live bytes of each child as a counter, and what failed or was dropped as an instant.
func (e *export) chrome(w io.Writer, in *history.Recording) (history.Unknown, error) {
	h := in.Header()
	at := func(d time.Duration) float64 { return float64(d) / 1e3 }
	var instants []traceEvent
	more := 0
	in.Read(history.Options{Observe: func(r recording.Event) {
		name, args := r.Kind.String(), map[string]any{}
		switch {
		case r.Dropped > 0:
			name, args["events"] = "events dropped", r.Dropped
		case !r.Kind.Failed() || !is(e.proxy, r.Proxy) || !is(e.child, r.Child) || !is(e.region, r.Region):
			return
		default:
			args["of"], args["size"], args["region"] = ownerName(r.Proxy, r.Child), r.Size, r.Region
		}
		if len(instants) == maxInstants {
			more++
			return
		}
		instants = append(instants, traceEvent{name, "i", at(r.At), h.PID, 1, "p", args})
	}})
	t, err := history.NewTimeline(in, "child", e.steps, e.options())
	if err != nil {
		return history.Unknown{}, err
	}
	if more > 0 {
		instants = append(instants, traceEvent{fmt.Sprintf("%d more failures or gaps", more), "i", at(t.Begin + t.Step*time.Duration(len(t.Total.Values)-1)), h.PID, 1, "p", nil})
	}
	all := traceWriter{w: w}
	all.add(traceEvent{"process_name", "M", 0, h.PID, 1, "", map[string]string{"name": h.Program}})
	for i := range t.Groups {
		g := &t.Groups[i]
		for step, bytes := range g.Values {
			if step > 0 && step < len(g.Values)-1 && bytes == g.Values[step-1] {
				continue // a counter keeps its value
			}
			all.add(traceEvent{"live bytes of " + ownerName(g.Proxy, g.Child), "C", at(t.Begin + t.Step*time.Duration(step)), h.PID, 1, "", map[string]int64{"bytes": bytes}})
		}
	}
	for _, i := range instants {
		all.add(i)
	}
	return t.Unknown, all.end()
}

// A traceWriter writes a trace event by event.
type traceWriter struct {
	w   io.Writer
	n   int
	err error
}

func (t *traceWriter) add(e traceEvent) {
	b, err := json.Marshal(e)
	before := ",\n"
	if t.n == 0 {
		before = "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n"
	}
	t.n++
	if t.err == nil && err == nil {
		_, err = fmt.Fprintf(t.w, "%s%s", before, b)
	}
	if t.err == nil {
		t.err = err
	}
}

func (t *traceWriter) end() error {
	if t.err == nil {
		_, t.err = io.WriteString(t.w, "\n]}\n")
	}
	return t.err
}

// csv writes a row for each event, or each block.
func (e *export) csv(out io.Writer, in *history.Recording) (history.Unknown, error) {
	w := csv.NewWriter(out)
	row := func(columns ...string) { _ = w.Write(columns) } // w.Error returns it
	o := e.options()
	if e.blocks {
		row("acquired_ns", "released_ns", "state", "address", "size", "requested", "proxy", "child", "region", "stack")
		o.Ended = func(b history.Block) {
			state := "released"
			switch {
			case b.Live:
				state = "live"
			case b.Lost:
				state = "lost"
			case b.Older:
				state = "older"
			}
			row(nanoseconds(b.Acquired), nanoseconds(b.Released), state, address(b.Addr), size(b.Size), size(b.Requested), b.Site.Proxy, b.Site.Child, b.Region, stackColumn(b.Site.Stack))
		}
	} else {
		row("time_ns", "event", "address", "size", "requested", "alignment", "proxy", "child", "region", "stack", "dropped")
		o.Observe = func(r recording.Event) {
			var stack []recording.Frame
			if r.Stack != nil {
				stack = r.Stack.Frames
			}
			switch {
			case r.Dropped > 0:
				row(nanoseconds(r.At), "dropped", "", "", "", "", "", "", "", "", strconv.FormatInt(r.Dropped, 10))
			case is(e.proxy, r.Proxy) && is(e.child, r.Child) && is(e.region, r.Region) && e.inStack(stack):
				row(nanoseconds(r.At), r.Kind.String(), address(r.Addr), size(r.Size), size(r.Requested), size(r.Align), r.Proxy, r.Child, r.Region, stackColumn(stack), "0")
			}
		}
	}
	h := in.Read(o)
	w.Flush()
	return h.Unknown(), w.Error()
}

func nanoseconds(d time.Duration) string { return strconv.FormatInt(int64(d), 10) }
func address(addr uintptr) string        { return "0x" + strconv.FormatUint(uint64(addr), 16) }
func size(n uintptr) string              { return strconv.FormatUint(uint64(n), 10) }

// stackColumn returns a stack, the innermost call first, as function (file:line) with semicolons between them.
func stackColumn(stack []recording.Frame) string {
	var b strings.Builder
	for i, f := range stack {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s (%s:%d)", line(f.Function), line(f.File), f.Line)
	}
	return b.String()
}
