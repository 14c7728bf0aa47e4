package page

import (
	"math"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/internal/text"
)

// An EventRow is an event for an EventWriter.
type EventRow struct {
	Kind  alloctrace.Kind // 0 says that events are missing, Size of them, or that all but Addr was forgotten
	Addr  uint64          // 0 if there is none
	Size  uint64
	Owner int // a text
	Site  int // -1 if it is not known
	Timed bool
	AtNS  int64
	Err   error
}

// An EventWriter makes Events of rows.
type EventWriter struct {
	e     Events
	addrs []uint64
	last  int64
	sited bool
}

// maxErrors is how many errors Events have.
const maxErrors = 1000

// kinds are the names of Event kinds by number.
var kinds = func() []string {
	list := []string{"missing"}
	for k := alloctrace.Allocated; k <= alloctrace.FreeFailed; k++ {
		list = append(list, k.String())
	}
	return list
}()

// NewEventWriter returns an EventWriter with room for n rows.
func NewEventWriter(n int) *EventWriter {
	return &EventWriter{
		e: Events{
			Kinds: kinds, DeltaNS: make([]int64, 0, n), Kind: make([]int, 0, n), Size: make([]int64, 0, n), Owner: make([]int, 0, n), Site: make([]int, 0, n),
			ErrorRow: []int{}, ErrorText: []string{},
		},
		addrs: make([]uint64, 0, n),
	}
}

// Add adds a row.
func (w *EventWriter) Add(r EventRow) {
	e := &w.e
	if r.Timed && !e.Timed {
		e.Timed, e.BeginNS, w.last = true, r.AtNS, r.AtNS
	}
	at := w.last
	if r.Timed {
		at = r.AtNS
	}
	if r.Err != nil && len(e.ErrorRow) < maxErrors {
		e.ErrorRow, e.ErrorText = append(e.ErrorRow, len(e.Kind)), append(e.ErrorText, text.Name(r.Err.Error()))
	}
	e.DeltaNS = append(e.DeltaNS, at-w.last)
	w.last = at
	e.Kind = append(e.Kind, int(r.Kind))
	e.Size = append(e.Size, int64(min(r.Size, math.MaxInt64)))
	e.Owner = append(e.Owner, r.Owner)
	e.Site = append(e.Site, r.Site)
	w.sited = w.sited || r.Site >= 0
	w.addrs = append(w.addrs, r.Addr)
}

// Events returns what was added.
func (w *EventWriter) Events() *Events {
	e := &w.e
	least := uint64(0)
	for _, a := range w.addrs {
		if a != 0 && (least == 0 || a < least) {
			least = a
		}
	}
	e.AddrMin, e.Addr = int64(least), make([]int64, len(w.addrs))
	for i, a := range w.addrs {
		e.Addr[i] = int64(a) - int64(least)
	}
	if !w.sited {
		e.Site = nil
	}
	return e
}
