package main

import (
	"encoding/json"
	"io"
	"time"

	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/history"
)

// A chromeEvent is one of the Trace Event Format, which Perfetto and Chrome open.
type chromeEvent struct {
	Name  string  `json:"name"`
	Phase string  `json:"ph"`
	Time  float64 `json:"ts"` // microseconds
	PID   int     `json:"pid"`
	TID   int     `json:"tid"`
	Scope string  `json:"s,omitempty"`
	Args  any     `json:"args,omitempty"`
}

// chrome writes the live bytes of each child as a counter, and what failed or was dropped as an instant.
func (e *export) chrome(w io.Writer, in *history.Recording) (history.Unknown, error) {
	h := in.Header()
	c := &chromeWriter{w: w, pid: h.PID}
	c.add(chromeEvent{Name: "process_name", Phase: "M", Args: map[string]string{"name": h.Program}})
	t := newTracks(e, in, c)
	read := in.Read(t.options())
	t.end(read.Now())
	c.write("\n]}\n")
	return read.Unknown(), c.err
}

// A chromeWriter writes a trace event by event.
type chromeWriter struct {
	w     io.Writer
	pid   int
	began bool
	err   error
}

func (c *chromeWriter) counter(at time.Duration, s *series, bytes int64) {
	name := s.name
	if s.number > 0 {
		name = "live bytes of " + name
	}
	c.add(chromeEvent{Name: name, Phase: "C", Time: float64(at) / 1e3, Args: map[string]int64{"bytes": bytes}})
}

func (c *chromeWriter) instant(at time.Duration, name string, e *recording.Event) {
	args := map[string]any{}
	switch {
	case e == nil:
	case e.Dropped > 0:
		args["events"] = e.Dropped
	default:
		args["of"], args["size"], args["region"] = ownerName(e.Proxy, e.Child), e.Size, e.Region
	}
	c.add(chromeEvent{Name: name, Phase: "i", Time: float64(at) / 1e3, Scope: "p", Args: args})
}

func (c *chromeWriter) add(e chromeEvent) {
	e.PID, e.TID = c.pid, 1
	b, err := json.Marshal(e)
	if c.err == nil {
		c.err = err
	}
	before := ",\n"
	if !c.began {
		before, c.began = "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n", true
	}
	c.write(before)
	c.write(string(b))
}

func (c *chromeWriter) write(s string) {
	if c.err == nil {
		_, c.err = io.WriteString(c.w, s)
	}
}
