package recording

import (
	"encoding/binary"
	"encoding/json"

	"github.com/klauspost/compress/zstd"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/internal/text"
)

// The bounds of a segment, after which another begins that builds on nothing: so those who read need little memory.
const (
	batchEvents  = 1 << 16
	batchNames   = 1 << 20 // bytes
	maxBatch     = 3 << 20 // bytes: 29 an event at most, and the names
	maxShapes    = 1 << 20
	recentBlocks = 1 << 16 // an event can name a block by one of so many acquisitions before it
)

// Bits of an event's first byte, above its kind.
const (
	hasRef   = 1 << 4 // the address is that of an acquisition
	hasStack = 1 << 5
)

// A shape is what many events have in common.
type shape struct {
	granted, requested uint64
	align              uint8 // its binary logarithm
	owner, region      uint64
}

// A cachedShape is a shape as the source has it, and its number in the segment.
type cachedShape struct {
	shape
	number uint64
}

// A source has what the events that it gives to an encoder name by numbers. Number 0 is what is not known.
type source interface {
	owner(number uint64) owner
	region(number uint64) string
	stack(number uint64) []Frame
}

// An encoder makes batches of events.
type encoder struct {
	from   source
	header Header
	zstd   *zstd.Encoder
	ended  bool // the next batch is the last

	events      int    // with those that say that some were dropped
	marks       int    // of them
	missing     uint64 // events that were dropped, by the marks
	first, last uint64 // nanoseconds since Header.Began
	names       []byte // what the events name for the first time
	columns     [columnCount][]byte
	plain, out  []byte

	// Of the segment.
	fresh        bool   // its first batch is still to come
	addr         uint64 // the last in columnAddrs; its complement, as in recent: see package hidden
	reallocation uint64 // the last in columnReallocations
	shapes       map[shape]uint64
	cached       [1 << 8]cachedShape
	stacks       numbers
	frames       map[Frame]uint64
	owners       numbers
	regions      numbers
	acquired     uint64 // acquisitions
	recent       [recentBlocks]uint64
	byAddr       [2 * recentBlocks]uint32 // by hash of an address: an acquisition, counted from 1
}

// The columns of a batch.
const (
	columnKinds = iota
	columnTimes
	columnRefs
	columnAddrs
	columnShapes
	columnStacks
	columnReallocations
	columnCount
)

// numbers gives numbers that begin at 1 to those of the source, in the order in which a segment has them.
type numbers struct {
	of   []uint32
	many uint32
}

func (n *numbers) reset() { clear(n.of); n.many = 0 }

// number returns the number of i, and whether it is new.
func (n *numbers) number(i uint64) (number uint64, added bool) {
	for uint64(len(n.of)) <= i {
		n.of = append(n.of, 0)
	}
	if n.of[i] == 0 {
		n.many++
		n.of[i], added = n.many, true
	}
	return uint64(n.of[i]), added
}

func (e *encoder) init(from source, h Header) (err error) {
	e.from, e.header = from, h
	e.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true))
	e.begin()
	return err
}

// begin begins a segment. It is called between batches.
func (e *encoder) begin() {
	e.fresh = true
	e.addr, e.reallocation, e.acquired = ^uint64(0), 0, 0
	e.shapes, e.frames = make(map[shape]uint64), make(map[Frame]uint64)
	e.stacks.reset()
	e.owners.reset()
	e.regions.reset()
	clear(e.byAddr[:])
	clear(e.cached[:])
}

// full reports whether a batch has all the events it may have.
func (e *encoder) full() bool { return e.events == batchEvents || len(e.names) > batchNames }

// dropped adds that n events were dropped.
func (e *encoder) dropped(at, n uint64) {
	e.columns[columnKinds] = append(e.columns[columnKinds], lost)
	e.time(at)
	e.number(columnRefs, n)
	e.marks++
	e.missing += n
}

func (e *encoder) number(column int, n uint64) {
	e.columns[column] = binary.AppendUvarint(e.columns[column], n)
}

// time adds the time of an event, which is no earlier than that of the one before.
func (e *encoder) time(at uint64) {
	at = max(at, e.last)
	if e.events == 0 {
		e.first, e.last = at, at
	}
	e.number(columnTimes, at-e.last)
	e.last = at
	e.events++
}

// reallocates reports whether an event of a kind is one of a reallocation.
func reallocates(k alloctrace.Kind) bool {
	return k == alloctrace.Reallocating || k == alloctrace.Reallocated || k == alloctrace.ReallocateFailed
}

// event adds an event. The owner, the region and the stack have the numbers of the source.
func (e *encoder) event(at uint64, k alloctrace.Kind, addr uint64, s shape, stack, reallocation uint64) {
	kind := byte(k)
	e.time(at)
	e.number(columnShapes, e.shapeOf(s))
	// An acquisition is often of a block that was there before, and a release is of one that was acquired.
	slot := &e.byAddr[addr*0x9e3779b97f4a7c15>>32%uint64(len(e.byAddr))]
	if ref := uint64(*slot); ref > 0 && e.acquired-ref < recentBlocks && e.recent[ref%recentBlocks] == ^addr {
		kind |= hasRef
		e.number(columnRefs, e.acquired-ref)
	} else {
		e.columns[columnAddrs] = binary.AppendVarint(e.columns[columnAddrs], int64(addr-^e.addr))
		e.addr = ^addr
	}
	if k <= alloctrace.Reallocated {
		e.acquired++
		e.recent[e.acquired%recentBlocks] = ^addr
		*slot = uint32(e.acquired)
	}
	if stack > 0 {
		kind |= hasStack
		e.number(columnStacks, e.stack(stack))
	}
	if reallocates(k) {
		e.columns[columnReallocations] = binary.AppendVarint(e.columns[columnReallocations], int64(reallocation-e.reallocation))
		e.reallocation = reallocation
	}
	e.columns[columnKinds] = append(e.columns[columnKinds], kind)
}

// What a batch names begins with one of these.
const (
	nameShape  = 1 + iota // granted, requested, align, owner, region
	nameStack             // how many frames, and of each its number, or 0 and what it is
	nameOwner             // Proxy, child
	nameRegion            // name
)

func (e *encoder) say(values ...uint64) {
	for _, v := range values {
		e.names = binary.AppendUvarint(e.names, v)
	}
}

func (e *encoder) text(s string) { e.names = appendBytes(e.names, s) }

// shapeOf returns the number of a shape as the source has it.
func (e *encoder) shapeOf(of shape) uint64 {
	c := &e.cached[(of.granted^of.requested<<16^of.owner<<48^of.region)*0x9e3779b97f4a7c15>>56]
	if c.number > 0 && c.shape == of {
		return c.number
	}
	s := of
	if s.owner > 0 {
		s.owner = e.owner(s.owner)
	}
	if s.region > 0 {
		s.region = e.region(s.region)
	}
	*c = cachedShape{of, e.shape(s)}
	return c.number
}

func (e *encoder) shape(s shape) uint64 {
	n, ok := e.shapes[s]
	if !ok {
		n = uint64(len(e.shapes) + 1)
		e.shapes[s] = n
		e.say(nameShape, s.granted, s.requested, uint64(s.align), s.owner, s.region)
	}
	return n
}

func (e *encoder) owner(number uint64) uint64 {
	n, added := e.owners.number(number)
	if added {
		of := e.from.owner(number)
		e.say(nameOwner)
		e.text(text.Name(of.proxy))
		e.text(text.Name(of.child))
	}
	return n
}

func (e *encoder) region(number uint64) uint64 {
	n, added := e.regions.number(number)
	if added {
		e.say(nameRegion)
		e.text(text.Name(e.from.region(number)))
	}
	return n
}

func (e *encoder) stack(number uint64) uint64 {
	n, added := e.stacks.number(number)
	if added {
		frames := e.from.stack(number)
		e.say(nameStack, uint64(len(frames)))
		for _, f := range frames {
			frame := Frame{text.Name(f.Function), text.Name(f.File), f.Line}
			known, ok := e.frames[frame]
			e.say(known)
			if !ok {
				e.frames[frame] = uint64(len(e.frames) + 1)
				e.text(frame.Function)
				e.text(frame.File)
				e.say(uint64(max(0, frame.Line)))
			}
		}
	}
	return n
}

// batch returns the events since the last batch as the file has them, how many they are, and how many were dropped
// meanwhile. It returns nil if there is nothing to say. The time is now, for a batch that has no events.
func (e *encoder) batch(now uint64) (out []byte, events, missing int64) {
	if e.events == 0 && !e.fresh && !e.ended {
		return nil, 0, 0
	}
	h := batchHeader{events: uint32(e.events)}
	e.plain = e.plain[:0]
	if e.fresh {
		h.flags |= flagFresh
		header, err := json.Marshal(e.header)
		if err != nil {
			panic(err) // a Header has nothing that can fail
		}
		e.plain = appendBytes(e.plain, header)
	}
	if e.ended {
		h.flags |= flagLast
	}
	e.plain = appendBytes(e.plain, e.names)
	for i, c := range e.columns {
		e.plain = appendBytes(e.plain, c)
		e.columns[i] = c[:0]
	}
	began := e.header.Began.UnixNano()
	h.first, h.last = began+int64(e.first), began+int64(e.last)
	if e.events == 0 {
		h.first, h.last = began+int64(now), began+int64(now)
	}
	e.out = e.zstd.EncodeAll(e.plain, append(e.out[:0], make([]byte, batchHeaderSize)...))
	h.plain, h.packed = uint32(len(e.plain)), uint32(len(e.out)-batchHeaderSize)
	h.put(e.out)
	events, missing = int64(e.events-e.marks), int64(e.missing)
	e.events, e.marks, e.missing, e.names, e.fresh = 0, 0, 0, e.names[:0], false
	if len(e.shapes) > maxShapes || e.acquired > 1<<31 {
		e.begin()
	}
	return e.out, events, missing
}

func appendBytes[T string | []byte](to []byte, b T) []byte {
	return append(binary.AppendUvarint(to, uint64(len(b))), b...)
}
