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
		Record
	}
}

// keep keeps an event, and returns what its record has beside the address.
func (o *overflow) keep(e alloctrace.Event, err error, child string) (rest uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.count++
	at := &o.last[o.count%uint64(len(o.last))]
	at.number, at.Record = o.count, Record{Event: e, Err: err, Child: child}
	return o.count<<kindBits | overflowed
}

func (o *overflow) find(rest uint64, addr uintptr) Record {
	o.mu.Lock()
	defer o.mu.Unlock()
	number := rest >> kindBits
	if at := &o.last[number%uint64(len(o.last))]; at.number == number {
		return at.Record
	}
	return Record{Event: alloctrace.Event{Addr: addr}, Err: ErrForgotten}
}
