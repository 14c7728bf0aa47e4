package ring

import (
	"fmt"
	"sync"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/internal/hidden"
	"github.com/alloctrace/alloctrace/internal/stored"
)

// overflow has the last events of a Ring that do not fit into a record.
type overflow struct {
	mu    sync.Mutex
	count uint64 // of all that were kept
	last  [stored.Overflows]struct {
		number uint64
		Record
	}
	storage stored.Storage // nil if nobody else keeps them
}

// keep keeps an event, and returns what its record has beside the address.
func (o *overflow) keep(e alloctrace.Event, err error, child string) (rest uint64) {
	var failure string
	if err != nil && o.storage != nil {
		failure = textOf(err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.count++
	at := &o.last[o.count%uint64(len(o.last))]
	at.number, at.Record = o.count, Record{Event: e, Err: err, Child: child}
	if o.storage != nil {
		o.storage.Keep(o.count, stored.Overflow{Kind: uint8(e.Kind), Addr: e.Addr, Size: e.Size, Align: e.Align, Child: child, Err: failure})
	}
	at.Event.Addr = uintptr(hidden.OfAddr(e.Addr))
	return o.count<<kindBits | overflowed
}

// textOf returns the text of an error, whose method is somebody else's and may panic.
func textOf(err error) (text string) {
	defer func() {
		if r := recover(); r != nil {
			text = fmt.Sprintf("the error's text cannot be had: %v", r)
		}
	}()
	return err.Error()
}

func (o *overflow) find(rest uint64, addr uintptr) Record {
	o.mu.Lock()
	defer o.mu.Unlock()
	number := rest >> kindBits
	if at := &o.last[number%uint64(len(o.last))]; at.number == number {
		found := at.Record
		found.Event.Addr = addr
		return found
	}
	return Record{Event: alloctrace.Event{Addr: addr}, Err: ErrForgotten}
}
