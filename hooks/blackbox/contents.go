package blackbox

import (
	"encoding/json"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/counter"
)

// Contents are what a black box has. They go into JSON as they are.
type Contents struct {
	Damage  []string  `json:"damage,omitempty"` // what could not be read, a sentence each; none if the file is whole
	PID     int       `json:"pid"`              // of the process that wrote it
	Created time.Time `json:"created"`
	Closed  time.Time `json:"closed,omitzero"` // when Box.Close was called; zero if it was not
	Build   Build     `json:"build"`

	// Written is when what follows, but for the events, was written: Options.Period before the end, or less.
	Written time.Time `json:"written,omitzero"`
	Proxies []Proxy   `json:"proxies,omitempty"` // those that Box.Watch was called for, each followed by its children, those with the most live bytes first
	Live    Sites     `json:"live,omitzero"`     // what was live, by Options.Profile
	Peak    Sites     `json:"peak,omitzero"`     // what was live when most was, if the Profile has Options.Peak
	Omitted int       `json:"omitted,omitempty"` // proxies and children for which the file had no room

	// Events are the last ones, in order. Those from Gapless on are all that there were until the end. Some that came between the
	// ones before it were overwritten.
	Events  []Event `json:"events"`
	Gapless int     `json:"gapless"`
}

// A Build says which program it was.
type Build struct {
	Executable string            `json:"executable,omitempty"` // its path
	ID         string            `json:"id,omitempty"`         // as go tool buildid prints it; "" if it was not found
	Go         string            `json:"go,omitempty"`         // the version of Go
	Package    string            `json:"package,omitempty"`    // the main package
	Module     string            `json:"module,omitempty"`     // the main module
	Version    string            `json:"version,omitempty"`    // of the module
	Settings   map[string]string `json:"settings,omitempty"`   // GOOS, GOARCH, vcs.revision, vcs.time and vcs.modified, as far as they are known
}

// A Proxy is the numbers of a Proxy, or of the children of one name.
type Proxy struct {
	Name  string        `json:"name,omitempty"`
	Child string        `json:"child,omitempty"` // "" for the Proxy itself
	Stats counter.Stats `json:"stats"`
}

// Sites are what was live at one time, by who allocated it: estimates, unless the rate of the Profile is 1.
type Sites struct {
	Time    time.Time `json:"time,omitzero"`
	Rate    int       `json:"rate,omitempty"` // the rate of the Profile
	Blocks  int64     `json:"blocks"`
	Bytes   int64     `json:"bytes"`
	Error   int64     `json:"bytes_error,omitempty"` // the standard error of Bytes; of a peak alone
	Sites   []Site    `json:"sites"`                 // the most bytes first
	Omitted int       `json:"omitted,omitempty"`     // further sites, with fewer bytes, for which the file had no room
}

// A Site is what was live of one place that allocates.
type Site struct {
	Blocks int64   `json:"blocks"`
	Bytes  int64   `json:"bytes"`
	Error  int64   `json:"bytes_error,omitempty"` // the standard error of Bytes
	Labels []Label `json:"labels,omitempty"`      // as in heapprofile.Sample
	Stack  []Frame `json:"stack"`                 // from the function that allocated outwards, 32 frames at most
}

// A Frame is a function that was called, and where in it.
type Frame struct {
	Function string `json:"function"` // with the path of its package
	File     string `json:"file"`
	Line     int    `json:"line"`
	PC       uint64 `json:"pc"` // the return address in the process
}

// A Label is one of [runtime/pprof.Labels], the name of a child Proxy as "allocator", or an owner as "owner".
type Label struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// An Event is one that a Proxy delivered.
type Event struct {
	Time  time.Time       // zero if the file is damaged there
	Kind  alloctrace.Kind // 0 if the event has been forgotten, as Err says
	Addr  uint64
	Size  uint64
	Align uint64
	Child string // the name of the child Proxy, "" if it is of none
	Err   string // with failures; see ring.ErrForgotten
}

// MarshalJSON implements [json.Marshaler]. The event has the name that Kind has.
func (e Event) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Time  time.Time `json:"time,omitzero"`
		Event string    `json:"event"`
		Addr  uint64    `json:"addr"`
		Size  uint64    `json:"size"`
		Align uint64    `json:"align"`
		Child string    `json:"child,omitempty"`
		Err   string    `json:"error,omitempty"`
	}{e.Time, e.Kind.String(), e.Addr, e.Size, e.Align, e.Child, e.Err})
}
