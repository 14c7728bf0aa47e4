package blackbox

import (
	"encoding/binary"
	"slices"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/hooks/ring"
	"github.com/alloctrace/alloctrace/internal/stored"
	"github.com/alloctrace/alloctrace/internal/text"
)

func (r *reader) readNames() {
	names := part(r.second, r.namesAt, r.namesLen)
	if len(names) < 8 {
		r.damaged("the names of children are missing")
		return
	}
	used := order.Uint64(names)
	if names = names[8:]; used > uint64(len(names)) {
		r.damaged("the names of children have %d bytes, and %d are there", used, len(names))
		used = uint64(len(names))
	}
	for names = names[:used]; len(names) >= 2; {
		n := int(order.Uint16(names))
		if names = names[2:]; n > len(names) {
			break
		}
		r.names = append(r.names, text.Valid(string(names[:n]), maxName))
		names = names[n:]
	}
	if len(names) > 0 {
		r.damaged("the name of child %d is cut", len(r.names)+1)
	}
}

// readOverflows reads those that no other reading has otherwise.
func (r *reader) readOverflows() {
	r.overflowed = make(map[uint64]Event)
	for i := range uint64(r.overflows) {
		at := r.overflowsAt + i*uint64(r.overflowLen)
		b := part(r.second, at, uint64(r.overflowLen))
		if uint64(len(b)) < uint64(r.overflowLen) {
			r.damaged("overflows from %d on are missing", i)
			return
		}
		number := order.Uint64(b)
		if number == 0 || number != order.Uint64(part(r.first, at, 8)) {
			continue
		}
		child, failure := uint64(order.Uint16(b[10:])), uint64(order.Uint16(b[12:]))
		if child+failure > uint64(len(b)-overflowText) || order.Uint16(b[8:]) > 255 {
			r.damaged("overflow %d has texts of %d and %d bytes in %d", i, child, failure, len(b)-overflowText)
			continue
		}
		texts := b[overflowText:]
		r.overflowed[number] = Event{
			Kind: alloctrace.Kind(b[8]), Addr: order.Uint64(b[16:]), Size: order.Uint64(b[24:]), Align: order.Uint64(b[32:]),
			Child: text.Valid(string(texts[:child]), maxName), Err: text.Text(string(texts[child:][:failure])),
		}
	}
}

// words are a record: its last one is the number, with the epoch above.
type words [4]uint64

func (w *words) number() uint32 { return uint32(w[3]) }
func (w *words) epoch() int32   { return int32(w[3] >> stored.EpochShift) }
func (w *words) kind() uint64   { return w[1] & (1<<stored.KindBits - 1) }

// before reports whether w comes before v, of another shard.
func (w *words) before(v *words) bool {
	if epochs := w.epoch() - v.epoch(); epochs != 0 {
		return epochs < 0
	}
	return w[2] < v[2]
}

// readEvents reads what a Ring has, in its order: see ring.Ring.Records.
func (r *reader) readEvents() {
	r.contents.Events = []Event{}
	var shards [][]words
	var lost bool
	var since int32 // the last epoch that may have begun with an event that was overwritten
	for i := range uint64(r.shards) {
		if i > 0 && r.eventsAt+i*uint64(r.events)*recordSize >= uint64(len(r.second)) {
			r.damaged("the events of processors %d to %d are missing", i, r.shards-1)
			break
		}
		s, overwritten := r.readShard(i)
		if len(s) == 0 {
			continue
		}
		shards = append(shards, s)
		if overwritten && (!lost || s[0].epoch()-since > 0) {
			lost, since = true, s[0].epoch()
		}
	}
	gapless := false
	for len(shards) > 0 {
		first := 0
		for i := range shards {
			if shards[i][0].before(&shards[first][0]) {
				first = i
			}
		}
		w := &shards[first][0]
		if !gapless && (!lost || w.epoch()-since >= 0) {
			gapless = true
			r.contents.Gapless = len(r.contents.Events)
		}
		r.contents.Events = append(r.contents.Events, r.event(w))
		if shards[first] = shards[first][1:]; len(shards[first]) == 0 {
			shards = append(shards[:first], shards[first+1:]...)
		}
	}
}

// readShard returns the records of a shard in order, and whether there were others before. The place of the one after the last may
// have been half written when the process ended: what is there is left out.
func (r *reader) readShard(i uint64) (list []words, overwritten bool) {
	at, size := r.eventsAt+i*uint64(r.events)*recordSize, uint64(r.events)*recordSize
	b, was := part(r.second, at, size), part(r.first, at, size)
	if uint64(len(b)) < size {
		r.damaged("%d bytes of the events of processor %d are missing", size-uint64(len(b)), i)
	}
	rounds := make(map[uint32]int) // how many records there are of each round through the places
	for place := uint32(0); len(b) >= recordSize; place++ {
		one := b[:recordSize]
		b = b[recordSize:]
		if string(one) != string(part(was, uint64(place)*recordSize, recordSize)) {
			continue // it was written meanwhile
		}
		w := r.words(one)
		if w[3] == 0 && (place != 0 || w.kind() == 0) {
			continue // nothing was written here, or not to its end; at place 0 it may be the record of number 1<<32
		}
		if w.number()&(r.events-1) != place {
			r.damaged("place %d of processor %d has record %d", place, i, w.number())
			continue
		}
		list = append(list, w)
		rounds[w.number()-place]++
	}
	last, ok := r.last(list, rounds)
	if !ok {
		return nil, false
	}
	kept := list[:0]
	for _, w := range list {
		switch age := last - w.number(); {
		case age == r.events-1: // its place is that of the one after the last
		case age >= r.events:
			r.damaged("processor %d has record %d beside %d", i, w.number(), last)
		case w.kind() != stored.Overflowed && (w.kind() == 0 || w.kind() > uint64(alloctrace.FreeFailed)):
			r.damaged("record %d of processor %d is of kind %d", w.number(), i, w.kind())
		default:
			kept = append(kept, w)
		}
	}
	slices.SortFunc(kept, func(v, w words) int { return int(int32(v.number() - w.number())) })
	return kept, len(kept) > 0 && kept[0].number() != 1
}

// last returns the number of the last record. Those of one round through the places are the most, and those of the rounds before and
// after are next to it: a number far from them is damaged.
func (r *reader) last(list []words, rounds map[uint32]int) (last uint32, ok bool) {
	var most uint32
	for round, n := range rounds {
		if n > rounds[most] || n == rounds[most] && int32(round-most) > 0 {
			most = round
		}
	}
	for _, w := range list {
		round := w.number() &^ (r.events - 1)
		if round-most+r.events <= 2*r.events && (!ok || int32(w.number()-last) > 0) {
			last, ok = w.number(), true
		}
	}
	return last, ok
}

// words returns a record as it was written by the machine.
func (r *reader) words(b []byte) (w words) {
	for n := range w {
		if r.flags&bigEndian != 0 {
			w[n] = binary.BigEndian.Uint64(b[8*n:])
		} else {
			w[n] = order.Uint64(b[8*n:])
		}
	}
	return w
}

// event returns the event of a record.
func (r *reader) event(w *words) (e Event) {
	if w.kind() == stored.Overflowed {
		number := w[1] >> stored.KindBits
		var known bool
		if e, known = r.overflowed[number]; !known {
			e = Event{Addr: ^w[0], Err: ring.ErrForgotten.Error()}
		}
	} else {
		e = Event{
			Kind: alloctrace.Kind(w.kind()), Addr: ^w[0], Size: w[1] >> stored.SizeShift,
			Align: 1 << (w[1] >> stored.AlignShift & (1<<stored.AlignBits - 1)), // 0 for 64, as it was
		}
		if n := w[1] >> stored.ChildShift & (1<<stored.ChildBits - 1); n > uint64(len(r.names)) {
			r.damaged("an event is of child %d, and there are %d names", n, len(r.names))
		} else if n > 0 {
			e.Child = r.names[n-1]
		}
	}
	e.Time = timeOf(w[2])
	return e
}
