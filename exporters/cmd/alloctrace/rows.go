package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/history"
	"github.com/alloctrace/alloctrace/internal/text"
)

// An eventRow is an event in a table. What is not known is 0, which optional columns of Parquet have as NULL.
type eventRow struct {
	Time      int64  `parquet:"time_ns,delta"`
	Event     string `parquet:"event,dict"`
	Address   uint64 `parquet:"address,optional"`
	Size      uint64 `parquet:"size,dict"`
	Requested uint64 `parquet:"requested,optional,dict"`
	Alignment uint64 `parquet:"alignment,optional,dict"`
	Proxy     string `parquet:"proxy,dict"`
	Child     string `parquet:"child,dict"`
	Region    string `parquet:"region,dict"`
	Stack     string `parquet:"stack,dict"`
	Dropped   int64  `parquet:"dropped"`

	// Reallocation is that of recording.Event.
	Reallocation uint64 `parquet:"reallocation,optional,delta"`
}

// A blockRow is a block in a table.
type blockRow struct {
	Acquired  int64  `parquet:"acquired_ns,delta"`
	Released  int64  `parquet:"released_ns,delta"`
	State     string `parquet:"state,dict"`
	Address   uint64 `parquet:"address,optional"`
	Size      uint64 `parquet:"size,dict"`
	Requested uint64 `parquet:"requested,optional,dict"`
	Proxy     string `parquet:"proxy,dict"`
	Child     string `parquet:"child,dict"`
	Region    string `parquet:"region,dict"`
	Stack     string `parquet:"stack,dict"`
}

// columns returns what a row of CSV has. That of dropped events has but their time and number.
func (r *eventRow) columns() []string {
	if r.Dropped > 0 {
		return []string{decimal(r.Time), r.Event, "", "", "", "", "", "", "", "", decimal(r.Dropped), ""}
	}
	return []string{
		decimal(r.Time), r.Event, address(r.Address), unsigned(r.Size), unsigned(r.Requested), unsigned(r.Alignment), r.Proxy, r.Child, r.Region, r.Stack, "0",
		unsigned(r.Reallocation),
	}
}

func (r *blockRow) columns() []string {
	return []string{
		decimal(r.Acquired), decimal(r.Released), r.State, address(r.Address), unsigned(r.Size), unsigned(r.Requested), r.Proxy, r.Child, r.Region, r.Stack,
	}
}

func decimal(n int64) string     { return strconv.FormatInt(n, 10) }
func unsigned(n uint64) string   { return strconv.FormatUint(n, 10) }
func address(addr uint64) string { return "0x" + strconv.FormatUint(addr, 16) }

// events calls add for each event that was selected.
func (e *export) events(in *history.Recording, add func(r *eventRow)) history.Unknown {
	o := e.options()
	stacks := make(stackNames)
	o.Observe = func(r recording.Event) {
		if r.Dropped > 0 {
			add(&eventRow{Time: int64(r.At), Event: "dropped", Dropped: r.Dropped})
			return
		}
		if stack := stackOf(&r); e.selects(&r, stack) {
			add(&eventRow{
				int64(r.At), r.Kind.String(), uint64(r.Addr), uint64(r.Size), uint64(r.Requested), uint64(r.Align), text.Name(r.Proxy), text.Name(r.Child), text.Name(r.Region), stacks.of(stack), 0, r.Reallocation,
			})
		}
	}
	h := in.Read(o)
	return h.Unknown()
}

func (r *reading) selects(e *recording.Event, stack []recording.Frame) bool {
	return is(r.proxy, e.Proxy) && is(r.child, e.Child) && is(r.region, e.Region) && r.inStack(stack)
}

func stackOf(e *recording.Event) []recording.Frame {
	if e.Stack == nil {
		return nil
	}
	return e.Stack.Frames
}

// blockRows calls add for each block that was selected, in the order in which it is certain what has become of them.
func (e *export) blockRows(in *history.Recording, add func(r *blockRow)) history.Unknown {
	o := e.options()
	stacks := make(stackNames)
	o.Ended = func(b history.Block) {
		add(&blockRow{
			int64(b.Acquired), int64(b.Released), stateOf(&b), uint64(b.Addr), uint64(b.Size), uint64(b.Requested), text.Name(b.Site.Proxy), text.Name(b.Site.Child), text.Name(b.Region), stacks.of(b.Site.Stack),
		})
	}
	h := in.Read(o)
	return h.Unknown()
}

// stateOf returns what has become of a block.
func stateOf(b *history.Block) string {
	switch {
	case b.Live:
		return "live"
	case b.Lost:
		return "lost"
	case b.Older:
		return "older"
	}
	return "released"
}

// stackNames are stacks as columns have them, by their first frame: a recording has each stack in one place of memory.
type stackNames map[*recording.Frame]string

// mostStackNames is how many are kept. Those of segments that have ended are forgotten with the others.
const mostStackNames = 1 << 14

func (s stackNames) of(stack []recording.Frame) string {
	if len(stack) == 0 {
		return ""
	}
	name, ok := s[&stack[0]]
	if !ok {
		if len(s) == mostStackNames {
			clear(s)
		}
		name = stackColumn(stack)
		s[&stack[0]] = name
	}
	return name
}

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
