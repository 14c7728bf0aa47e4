package replay

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/internal/text"
)

// An Event is one of a recording, without its Reallocation.
type Event struct {
	Number int64 // in the recording, counted from 1 as a Reader yields events
	recording.Event
}

// A Reason is what a [Failure] is about.
type Reason string

// The reasons.
const (
	Refused    Reason = "refused"    // the allocator returned an error
	Panicked   Reason = "panicked"   // the allocator panicked, or a block's memory cannot be accessed
	TooSmall   Reason = "too small"  // a block has fewer bytes than were asked for
	Misaligned Reason = "misaligned" // a block's address is no multiple of its alignment
	Overlaps   Reason = "overlaps"   // a block shares bytes with one that is live
	Changed    Reason = "changed"    // a block's contents are not what they were
	Stuck      Reason = "stuck"      // the allocator has not returned from a call when the replay was to end
)

// A Failure says which event of a recording an allocator fails at, and why.
type Failure struct {
	Event    Event
	Op       string // what was called: "allocate", "reallocate" or "free"
	AtEnd    bool   // after the last event, to free what was left; Event is then the block's acquisition
	Acquired *Event // which acquired the block that was to be reallocated or freed
	Other    *Event // which acquired the live block that shares bytes with this one, or that has the byte that changed
	Reason   Reason
	Err      error // that of the allocator, if it returned one
}

func (f *Failure) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "replay: %s", f.Op)
	if f.AtEnd {
		b.WriteString(" at the end, of the block of")
	} else {
		b.WriteString(" at")
	}
	fmt.Fprintf(&b, " %v", f.Event)
	if f.Acquired != nil && !f.AtEnd {
		fmt.Fprintf(&b, ", of the block of %v", *f.Acquired)
	}
	fmt.Fprintf(&b, ": %s: %v", f.Reason, f.Err)
	if f.Other != nil {
		fmt.Fprintf(&b, "; these bytes are in the block of %v", *f.Other)
	}
	return b.String()
}

// Unwrap returns the allocator's error.
func (f *Failure) Unwrap() error { return f.Err }

// mostCalls is how many calls of a stack a line has.
const mostCalls = 4

// String returns, for example, "event 17 (allocated 64 B aligned to 8 after 1.2ms by main.grow (main.go:12))".
func (e Event) String() string {
	size := e.Requested
	if size == 0 {
		size = e.Size
	}
	s := fmt.Sprintf("event %d (%s %d B aligned to %d after %v", e.Number, e.Kind, size, e.Align, e.At)
	for _, name := range []string{e.Proxy, e.Child, e.Region} {
		if name != "" {
			s += fmt.Sprintf(", %q", text.Name(name))
		}
	}
	if e.Stack != nil {
		for i, f := range e.Stack.Frames {
			if i == mostCalls {
				s += ", …"
				break
			}
			s += fmt.Sprintf(", %s (%s", text.Line(f.Function[strings.LastIndexByte(f.Function, '/')+1:], text.MaxName), text.Line(path.Base(strings.ReplaceAll(f.File, `\`, "/")), text.MaxName))
			if f.Line > 0 { // or else it is a program or a library
				s += fmt.Sprintf(":%d", f.Line)
			}
			s += ")"
		}
	}
	return s + ")"
}

// MarshalJSON returns the event with its stack.
func (e Event) MarshalJSON() ([]byte, error) {
	o := struct {
		Number    int64             `json:"number"`
		At        time.Duration     `json:"at_ns"`
		Kind      string            `json:"kind"`
		Requested uintptr           `json:"requested,omitempty"`
		Granted   uintptr           `json:"granted"`
		Align     uintptr           `json:"align"`
		Proxy     string            `json:"proxy,omitempty"`
		Child     string            `json:"child,omitempty"`
		Region    string            `json:"region,omitempty"`
		Stack     []recording.Frame `json:"stack,omitempty"`
	}{e.Number, e.At, e.Kind.String(), e.Requested, e.Size, e.Align, text.Name(e.Proxy), text.Name(e.Child), text.Name(e.Region), nil}
	if e.Stack != nil {
		o.Stack = e.Stack.Frames
	}
	return json.Marshal(o)
}

// MarshalJSON returns what Error says, in fields.
func (f *Failure) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Event    Event  `json:"event"`
		Op       string `json:"op"`
		AtEnd    bool   `json:"at_end"`
		Acquired *Event `json:"acquired,omitempty"`
		Other    *Event `json:"other,omitempty"`
		Reason   Reason `json:"reason"`
		Err      string `json:"error"`
	}{f.Event, f.Op, f.AtEnd, f.Acquired, f.Other, f.Reason, text.Text(f.Err.Error())})
}

var (
	errEnded   = errors.New("the allocator ended the goroutine")
	errOverlap = errors.New("the block overlaps one that is live")
)
