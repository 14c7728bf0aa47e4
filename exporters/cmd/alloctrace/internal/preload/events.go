package preload

import (
	"container/heap"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/alloctrace/alloctrace"
)

// Events yields the events in order. It ends with an error if the file cannot be read, or is damaged. It has in memory a chunk of
// each thread that is recording.
func (f *File) Events() iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		var open cursors
		rest, next := f.chunks, uint64(1)
		for len(open) > 0 || len(rest) > 0 {
			for len(rest) > 0 && (len(open) == 0 || rest[0].first < open[0].seq) {
				c := &cursor{file: f, offset: rest[0].offset}
				if err := c.read(); err != nil {
					yield(Event{}, err)
					return
				}
				heap.Push(&open, c)
				rest = rest[1:]
			}
			c := open[0]
			if c.seq < next {
				yield(Event{}, fmt.Errorf("%w: after event %d comes %d", ErrFormat, next-1, c.seq))
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
			} else {
				heap.Pop(&open)
			}
		}
		if f.events >= next {
			yield(Event{Number: next, Lost: f.events - next + 1}, nil)
		}
	}
}

// A cursor is at an event of a chunk.
type cursor struct {
	file   *File
	offset int64
	bytes  []byte // from the event on
	seq    uint64 // its number
	stack  []uint64
}

// read reads the chunk.
func (c *cursor) read() error {
	b, err := io.ReadAll(io.NewSectionReader(c.file.in, c.offset, c.file.size))
	if err != nil {
		return err
	}
	if c.bytes = b[min(len(b), chunkHeader):]; !c.begin() {
		return fmt.Errorf("%w: the chunk at byte %d is cut off", ErrFormat, c.offset)
	}
	return nil
}

// begin reports whether an event begins here.
func (c *cursor) begin() bool {
	if len(c.bytes) < recordSize {
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
		Usable: order.Uint64(b[32:]), Number: c.seq, Thread: order.Uint32(b[40:]), Kind: alloctrace.Kind(b[44]), Align: 1 << (b[45] & 63),
	}
	frames := int(b[46])
	if e.Kind == 0 || e.Kind > alloctrace.ReallocateFailed || b[45] > 47 || len(b) < recordSize+8*frames {
		return Event{}, fmt.Errorf("%w: event %d is damaged", ErrFormat, c.seq)
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
