package ring

import (
	"sync"

	"github.com/alloctrace/alloctrace"
)

// overflow has the last events of a Ring that do not fit into a record.
type overflow struct {
	mu    sync.Mutex
	count uint64 // of all that were kept
	last  [64]struct {
		number uint64
		event  alloctrace.Event
		err    error
	}
}

// keep keeps e and returns its number.
func (o *overflow) keep(e alloctrace.Event, err error) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.count++
	at := &o.last[o.count%uint64(len(o.last))]
	at.number, at.event, at.err = o.count, e, err
	return o.count
}

func (o *overflow) find(number uint64, addr uintptr) (alloctrace.Event, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if at := &o.last[number%uint64(len(o.last))]; at.number == number {
		return at.event, at.err
	}
	return alloctrace.Event{Addr: addr}, ErrForgotten
}
