package preload

import (
	"cmp"
	"container/heap"
	"fmt"
	"io"
	"iter"
	"math/bits"
	"time"

	"github.com/alloctrace/alloctrace"
)

// Events yields the events in order. It ends with an error if the file cannot be read, or is damaged; of one that is cut off after all
// that it has. It has in memory a chunk of each thread that is recording.
func (f *File) Events() iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		var open cursors
		rest, next, damage := f.chunks, uint64(1), f.damage
		all, read := f.size*int64(len(rest)), int64(0)
		progress := func(read int64) {
			if f.Progress != nil {
				f.Progress(read, all)
			}
		}
		defer progress(all)
		for len(open) > 0 || len(rest) > 0 {
			for len(rest) > 0 && (len(open) == 0 || rest[0].first < open[0].seq) {
				c := &cursor{file: f}
				if err := c.read(rest[0].offset); err != nil {
					yield(Event{}, err)
					return
				}
				if c.begin() {
					heap.Push(&open, c)
				} else {
					damage = cmp.Or(damage, c.cut)
				}
				rest = rest[1:]
			}
			if len(open) == 0 {
				break
			}
			c := open[0]
			if c.seq < next || c.seq > maxEvents {
				yield(Event{}, fmt.Errorf("%w: at byte %d event %d comes after event %d", ErrFormat, c.at(), c.seq, next-1))
				return
			}
			if c.seq > next && !yield(Event{Number: next, Lost: c.seq - next}, nil) {
				return
			}
			next = c.seq + 1
			e, err := c.event()
			if !yield(e, err) || err != nil {
				return
			}
			if c.advance() {
				heap.Fix(&open, 0)
				continue
			}
			heap.Pop(&open)
			damage = cmp.Or(damage, c.cut)
			read += f.size
			progress(read)
		}
		if f.events >= next && !yield(Event{Number: next, Lost: f.events - next + 1}, nil) {
			return
		}
		if damage != nil {
			yield(Event{}, damage)
		}
	}
}

// A cursor is at an event of a chunk.
type cursor struct {
	file  *File
	end   int64  // the offset of the end of bytes
	cut   error  // what is wrong if the chunk is cut off
	bytes []byte // from the event on
	seq   uint64 // its number
	stack []uint64
}

// read reads the chunk at offset.
func (c *cursor) read(offset int64) error {
	b, err := io.ReadAll(io.NewSectionReader(c.file.in, offset, c.file.size))
	if err != nil {
		return err
	}
	if c.end = offset + int64(len(b)); int64(len(b)) < c.file.size {
		c.cut = fmt.Errorf("%w: the chunk at byte %d is cut off at byte %d", ErrFormat, offset, c.end)
	}
	c.bytes = b[min(len(b), chunkHeader):]
	return nil
}

// at returns the offset of the event.
func (c *cursor) at() int64 { return c.end - int64(len(c.bytes)) }

// begin reports whether an event begins here.
func (c *cursor) begin() bool {
	if len(c.bytes) < recordSize || c.cut != nil && len(c.bytes) < recordSize+8*int(c.bytes[46]) {
		return false
	}
	c.seq = c.file.order.Uint64(c.bytes)
	return c.seq > 0
}

// advance goes to the next event, and reports whether there is one.
func (c *cursor) advance() bool {
	c.bytes = c.bytes[recordSize+8*int(c.bytes[46]):] // which event has seen to be there
	return c.begin()
}

// event returns the event that c is at.
func (c *cursor) event() (Event, error) {
	b, order := c.bytes, c.file.order
	e := Event{
		Time: time.Duration(order.Uint64(b[8:]) - c.file.began), Addr: order.Uint64(b[16:]), Size: order.Uint64(b[24:]),
		Usable: order.Uint64(b[32:]), Number: c.seq, Thread: order.Uint32(b[40:]), Kind: alloctrace.Kind(b[44]), Align: 1 << min(b[45], bits.UintSize-1),
	}
	frames := int(b[46])
	if e.Kind == 0 || e.Kind > alloctrace.ReallocateFailed || b[45] > 63 || len(b) < recordSize+8*frames {
		return Event{}, fmt.Errorf("%w: event %d, at byte %d, is damaged", ErrFormat, c.seq, c.at())
	}
	c.stack = c.stack[:0]
	for i := range frames {
		c.stack = append(c.stack, order.Uint64(b[recordSize+8*i:]))
	}
	e.Stack = c.stack
	return e, nil
}

// cursors is a heap of them, by event.
type cursors []*cursor

func (c cursors) Len() int           { return len(c) }
func (c cursors) Less(i, j int) bool { return c[i].seq < c[j].seq }
func (c cursors) Swap(i, j int)      { c[i], c[j] = c[j], c[i] }
func (c *cursors) Push(x any)        { *c = append(*c, x.(*cursor)) }
func (c *cursors) Pop() any {
	last := (*c)[len(*c)-1]
	*c = (*c)[:len(*c)-1]
	return last
}
