package recording

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/alloctrace/alloctrace"
)

// An Event is one that was recorded, or that some were dropped. Sizes of 2^48 bytes and more, which only what fails has, are
// one byte less than that.
type Event struct {
	alloctrace.Event

	Requested uintptr       // bytes; 0 but for acquisitions through a Proxy
	At        time.Duration // since Header.Began
	Stack     *Stack        // who acquired the block, or if the recording has that who released it; nil if it is not known
	Proxy     string        // its name
	Child     string        // its name, "" if it is of none
	Region    string        // the name of the innermost region, "" if there is none

	// Reallocation is a number that the events of one reallocation have, and no others: Reallocating, and Reallocated or
	// ReallocateFailed. Of one to nothing there is no second event. It is 0 if it is not known which belong together, and
	// with other events.
	Reallocation uint64

	// Dropped, if it is not 0, is how many events are missing here. The rest of the Event is zero then, but for At.
	Dropped int64
}

// A Stack is the calls that asked for memory, or gave it back, the innermost first. Stacks that are the same are one in a
// segment of a recording, which most recordings have only one of.
type Stack struct {
	Frames []Frame
}

// A DamagedError says from where on a recording cannot be read: because it was cut off, as that of a process that was
// killed may be, or was changed. What came before is whole.
type DamagedError struct {
	Offset int64 // bytes from the beginning of what was read
	Reason error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("recording: damaged from byte %d on: %v", e.Offset, e.Reason)
}

func (e *DamagedError) Unwrap() error { return e.Reason }

// ErrFormat is wrapped by errors that say that something is no recording, or is one of a later version.
var ErrFormat = errors.New("not a recording that can be read")

// A Reader reads a recording. It takes the memory of two batches, and of what a segment names: some MiB at most of
// recordings that a Recorder makes. One goroutine may use it.
type Reader struct {
	in     *bufio.Reader
	closer io.Closer
	zstd   *zstd.Decoder
	offset int64 // of what follows
	header Header
	ended  bool
	next   batchHeader // of the batch that follows, if have
	have   bool

	packed, plain []byte
	batch         batch

	// Of the segment.
	shapes   []shape
	stacks   []*Stack
	frames   []Frame
	owners   []owner
	regions  []string
	acquired uint64
	recent   [recentBlocks]uint64
	addr     uint64 // the last of its column, as reallocation

	reallocation uint64
}

// NewReader returns a Reader of what in returns. The error wraps [ErrFormat] if that is no recording.
func NewReader(in io.Reader) (*Reader, error) {
	r := &Reader{in: bufio.NewReader(in)}
	if err := r.open(); err != nil {
		return nil, fmt.Errorf("recording: NewReader: %w", err)
	}
	return r, nil
}

// Open returns a Reader of a file. Close closes it.
func Open(path string) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("recording: Open: %w", err)
	}
	r := &Reader{in: bufio.NewReaderSize(f, 1<<16), closer: f}
	if err := r.open(); err != nil {
		f.Close()
		return nil, fmt.Errorf("recording: Open(%q): %w", path, err)
	}
	return r, nil
}

// Close closes the file of [Open].
func (r *Reader) Close() error {
	r.zstd.Close()
	if r.closer == nil {
		return nil
	}
	return r.closer.Close()
}

// Header returns what the recording says of its process.
func (r *Reader) Header() Header { return r.header }

// Ended reports whether the Recorder was closed, once all events were read.
func (r *Reader) Ended() bool { return r.ended }

func (r *Reader) open() (err error) {
	r.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxPlain), zstd.WithDecoderMaxWindow(maxPlain))
	if err != nil {
		return err
	}
	if err = r.load(); err == nil && r.next.flags&flagFresh == 0 {
		err = errors.New("it has no beginning")
	}
	if of := r.header.GOARCH; err == nil && strconv.IntSize == 32 && (strings.Contains(of, "64") || of == "s390x") { // an Event has no room for its addresses
		err = fmt.Errorf("it is of a process of 64 bits, on %s: read it with a program of 64 bits", of)
	}
	if err != nil {
		r.zstd.Close()
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return nil
}

// load reads the next batch. At the end of the recording it returns io.EOF.
func (r *Reader) load() error {
	head, err := r.in.Peek(batchHeaderSize)
	if err != nil {
		if err == io.EOF && len(head) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	version, ok := r.next.parse(head)
	if !ok {
		return errors.New("no batch begins here")
	}
	if version != Version {
		return fmt.Errorf("the format has version %d, and this program reads %d: use a later one", version, Version)
	}
	_, _ = r.in.Discard(batchHeaderSize)
	if r.packed, err = readBytes(r.in, r.packed, int(r.next.packed)); err != nil {
		return err
	}
	if r.plain, err = r.zstd.DecodeAll(r.packed, r.plain[:0]); err != nil {
		return err
	}
	if len(r.plain) != int(r.next.plain) {
		return fmt.Errorf("a batch unpacks to %d bytes, and should to %d", len(r.plain), r.next.plain)
	}
	if err := r.begin(r.plain); err != nil {
		return err
	}
	r.offset += batchHeaderSize + int64(r.next.packed)
	r.ended = r.next.flags&flagLast != 0
	r.have = true
	return nil
}

// readBytes reads n bytes, and takes memory for as many as there are.
func readBytes(in io.Reader, b []byte, n int) ([]byte, error) {
	to := bytes.NewBuffer(b[:0])
	_, err := io.CopyN(to, in, int64(n))
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return to.Bytes(), err
}

// Events yields the events that are left. It ends with a [*DamagedError] if the recording is damaged.
func (r *Reader) Events() iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			if !r.have {
				err := r.load()
				if err == io.EOF {
					return
				}
				if err != nil {
					yield(Event{}, &DamagedError{r.offset, err})
					return
				}
			}
			for r.batch.left > 0 {
				e, err := r.event()
				if err != nil {
					yield(Event{}, &DamagedError{r.offset - batchHeaderSize - int64(r.next.packed), err})
					return
				}
				if !yield(e, nil) {
					return
				}
			}
			r.have = false
		}
	}
}

// A batch is being read.
type batch struct {
	left    uint32
	at      time.Duration
	columns [columnCount][]byte
}

var (
	errShort = errors.New("a batch ends too early")
	errRange = errors.New("a batch names what is not there")
)

// begin reads what a batch has beside its events.
func (r *Reader) begin(plain []byte) error {
	if r.next.flags&flagFresh != 0 {
		text, rest, err := cutBytes(plain)
		if err != nil {
			return err
		}
		var h Header
		if err := json.Unmarshal(text, &h); err != nil {
			return err
		}
		if r.header.Began.IsZero() {
			r.header = h
		}
		plain = rest
		r.shapes, r.stacks, r.frames, r.owners, r.regions = nil, nil, nil, nil, nil
		r.acquired, r.addr, r.reallocation = 0, 0, 0
	}
	names, plain, err := cutBytes(plain)
	if err != nil {
		return err
	}
	if err := r.name(names); err != nil {
		return err
	}
	for i := range r.batch.columns {
		if r.batch.columns[i], plain, err = cutBytes(plain); err != nil {
			return err
		}
	}
	if len(r.batch.columns[columnKinds]) != int(r.next.events) {
		return fmt.Errorf("a batch has %d events, and should have %d", len(r.batch.columns[columnKinds]), r.next.events)
	}
	r.batch.left = r.next.events
	r.batch.at = time.Unix(0, r.next.first).Sub(r.header.Began)
	return nil
}

func cutBytes(b []byte) (first, rest []byte, err error) {
	n, rest, err := cutNumber(b)
	if err != nil || n > uint64(len(rest)) {
		return nil, nil, errShort
	}
	return rest[:n], rest[n:], nil
}

func cutNumber(b []byte) (n uint64, rest []byte, err error) {
	n, used := binary.Uvarint(b)
	if used <= 0 {
		return 0, nil, errShort
	}
	return n, b[used:], nil
}

// name reads what the events of a batch name.
func (r *Reader) name(b []byte) (err error) {
	number := func() (n uint64) {
		if err == nil {
			n, b, err = cutNumber(b)
		}
		return n
	}
	text := func() string {
		var s []byte
		if err == nil {
			s, b, err = cutBytes(b)
		}
		return string(s)
	}
	for len(b) > 0 && err == nil {
		switch number() {
		case nameShape:
			s := shape{granted: number(), requested: number()}
			align := number()
			s.align, s.owner, s.region = uint8(min(align, 63)), number(), number()
			if err == nil && (s.owner > uint64(len(r.owners)) || s.region > uint64(len(r.regions))) {
				return errRange
			}
			r.shapes = append(r.shapes, s)
		case nameStack:
			frames := make([]Frame, 0, maxFrames)
			for n := number(); n > 0 && err == nil; n-- {
				known := number()
				if known > uint64(len(r.frames)) {
					return errRange
				}
				if known == 0 {
					r.frames = append(r.frames, Frame{text(), text(), int(number())})
					known = uint64(len(r.frames))
				}
				frames = append(frames, r.frames[known-1])
			}
			r.stacks = append(r.stacks, &Stack{frames})
		case nameOwner:
			r.owners = append(r.owners, owner{text(), text()})
		case nameRegion:
			r.regions = append(r.regions, text())
		default:
			return errRange
		}
	}
	return err
}

// number takes the next number of a column.
func (b *batch) number(column int) (uint64, error) {
	n, rest, err := cutNumber(b.columns[column])
	b.columns[column] = rest
	return n, err
}

// sum takes the next difference of a column, and adds it to the last value.
func (b *batch) sum(column int, last *uint64) error {
	difference, used := binary.Varint(b.columns[column])
	if used <= 0 {
		return errShort
	}
	b.columns[column] = b.columns[column][used:]
	*last += uint64(difference)
	return nil
}

// event reads an event.
func (r *Reader) event() (e Event, err error) {
	b := &r.batch
	kinds := b.columns[columnKinds]
	kind := kinds[0]
	b.columns[columnKinds], b.left = kinds[1:], b.left-1
	elapsed, err := b.number(columnTimes)
	if err != nil {
		return e, err
	}
	b.at += time.Duration(elapsed)
	e.At = b.at
	if kind == lost {
		n, err := b.number(columnRefs)
		e.Dropped = int64(n)
		return e, err
	}
	n, err := b.number(columnShapes)
	if err != nil {
		return e, err
	}
	if n-1 >= uint64(len(r.shapes)) {
		return e, errRange
	}
	s := &r.shapes[n-1]
	addr, err := r.address(kind)
	if err != nil {
		return e, err
	}
	e.Event = alloctrace.Event{Kind: alloctrace.Kind(kind & (1<<kindBits - 1)), Addr: uintptr(addr), Size: uintptr(s.granted), Align: 1 << s.align}
	if e.Kind == 0 || e.Kind > alloctrace.FreeFailed {
		return e, errRange
	}
	e.Requested = uintptr(s.requested)
	if s.owner > 0 {
		of := &r.owners[s.owner-1]
		e.Proxy, e.Child = of.proxy, of.child
	}
	if s.region > 0 {
		e.Region = r.regions[s.region-1]
	}
	if kind&hasStack != 0 {
		n, err := b.number(columnStacks)
		if err != nil {
			return e, err
		}
		if n-1 >= uint64(len(r.stacks)) {
			return e, errRange
		}
		e.Stack = r.stacks[n-1]
	}
	if reallocates(e.Kind) {
		err = b.sum(columnReallocations, &r.reallocation)
		e.Reallocation = r.reallocation
	}
	return e, err
}

// address reads the address of an event of a kind.
func (r *Reader) address(kind byte) (addr uint64, err error) {
	if kind&hasRef != 0 {
		back, err := r.batch.number(columnRefs)
		if err != nil {
			return 0, err
		}
		if back >= recentBlocks || back >= r.acquired {
			return 0, errRange
		}
		addr = r.recent[(r.acquired-back)%recentBlocks]
	} else {
		if err := r.batch.sum(columnAddrs, &r.addr); err != nil {
			return 0, err
		}
		addr = r.addr
	}
	if alloctrace.Kind(kind&(1<<kindBits-1)) <= alloctrace.Reallocated {
		r.acquired++
		r.recent[r.acquired%recentBlocks] = addr
	}
	return addr, nil
}
