// Package heapdump reads what [runtime/debug.WriteHeapDump] writes: the objects of the Go heap, the stacks of
// goroutines and the variables of packages, with the memory of each. The format is that of runtime/heapdump.go, which
// has not changed since Go 1.7.
package heapdump

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A Kind says what a [Record] is of.
type Kind uint64

// The kinds of records, by the numbers that they have in a dump.
const (
	End             Kind = 0
	Object          Kind = 1 // of the Go heap: memory that the collector has kept
	OtherRoot       Kind = 2
	Type            Kind = 3
	Goroutine       Kind = 4 // its frames follow
	Frame           Kind = 5 // of the stack of the last goroutine, the innermost first
	Params          Kind = 6
	Finalizer       Kind = 7
	Itab            Kind = 8
	Thread          Kind = 9
	MemStats        Kind = 10
	QueuedFinalizer Kind = 11
	Data            Kind = 12 // variables of packages
	BSS             Kind = 13 // likewise, those that are zero at first
	Defer           Kind = 14
	Panic           Kind = 15
	MemProf         Kind = 16
	AllocSample     Kind = 17
)

// A Record is one entry of a dump.
type Record struct {
	Kind Kind
	Addr uint64 // of the memory of an Object, a Frame, Data or BSS; of a Goroutine's descriptor
	Size uint64 // of that memory, in bytes

	Pointers uint64 // of an Object, Data or BSS: bit n says that word n of that memory is a pointer, by its type; of the first 64

	ID        uint64 // of a Goroutine, its number
	System    bool   // it is one of the runtime's own
	Status    uint64 // of it: Waiting, or another
	Since     uint64 // when it began to wait, in nanoseconds of the runtime's clock; 0 if that is not known
	Reason    string // why it waits
	CreatedAt uint64 // the address after its go statement
	PC        uint64 // of a Frame
}

// Waiting is the Status of a goroutine that waits in the runtime.
const Waiting = 4

// ErrDamaged is wrapped by the errors for what no Go runtime has written.
var ErrDamaged = errors.New("heapdump: the dump is damaged")

const (
	header = "go1.7 heap dump\n"
	piece  = 64 << 10 // of memory that is handed on at once, at most

	maxName   = 4 << 10 // bytes of a name that are kept
	maxFrames = 1 << 16 // of an entry of the memory profile
)

// A Reader reads the records of a dump, one after the other. It takes 128 KiB, whatever the dump is. It is for one goroutine.
type Reader struct {
	// WordSize is the size of an address in bytes, and BigEndian the order of its bytes. Both are known once the record Params
	// was read, which is the first.
	WordSize  int
	BigEndian bool

	from  *bufio.Reader
	piece [piece]byte
}

// NewReader returns a Reader of the dump that from has. It fails if that does not begin as a dump does.
func NewReader(from io.Reader) (*Reader, error) {
	r := &Reader{from: bufio.NewReaderSize(from, piece)}
	var begin [len(header)]byte
	if _, err := io.ReadFull(r.from, begin[:]); err != nil {
		return nil, damaged(err)
	}
	if string(begin[:]) != header {
		return nil, fmt.Errorf("%w: it begins with %q, not with %q", ErrDamaged, begin, header)
	}
	return r, nil
}

// Next returns the next record, or [io.EOF] after the last. If the record has memory, Next calls memory with it, in pieces of up to 64 KiB, of
// which all but the last are whole words: offset is where in the memory a piece begins. Only Kind, Addr and Size of the record are known then.
// A dump that ends early is an error that wraps [ErrDamaged] and [io.ErrUnexpectedEOF].
func (r *Reader) Next(memory func(rec *Record, offset uint64, piece []byte)) (Record, error) {
	kind, err := binary.ReadUvarint(r.from)
	if err != nil {
		return Record{}, damaged(err)
	}
	rec := Record{Kind: Kind(kind)}
	f := fields{r: r}
	switch rec.Kind {
	case End:
		return rec, io.EOF
	case Object, Data, BSS:
		rec.Addr = f.int()
		f.memory(&rec, memory)
		rec.Pointers = f.pointers()
	case OtherRoot:
		f.text(0)
		f.int()
	case Type:
		f.skip(2)
		f.text(0)
		f.int()
	case Goroutine:
		rec.Addr = f.int()
		f.int()
		rec.ID, rec.CreatedAt, rec.Status = f.int(), f.int(), f.int()
		rec.System = f.int() != 0
		f.int()
		rec.Since, rec.Reason = f.int(), f.text(maxName)
		f.skip(4)
	case Frame:
		rec.Addr = f.int()
		f.skip(2)
		f.memory(&rec, memory)
		f.int()
		rec.PC = f.int()
		f.int()
		f.text(0)
		f.pointers()
	case Params:
		r.params(&f)
	case Finalizer, QueuedFinalizer:
		f.skip(5)
	case Itab, AllocSample:
		f.skip(2)
	case Thread:
		f.skip(3)
	case MemStats:
		f.skip(24 + 256 + 1)
	case Defer:
		f.skip(7)
	case Panic:
		f.skip(6)
	case MemProf:
		f.skip(2)
		frames := f.int()
		if frames > maxFrames {
			f.fail("a stack of %d frames", frames)
		}
		for range frames {
			if f.err != nil {
				break
			}
			f.text(0)
			f.text(0)
			f.int()
		}
		f.skip(2)
	default:
		f.fail("a record of kind %d", kind)
	}
	return rec, f.err
}

func (r *Reader) params(f *fields) {
	r.BigEndian = f.int() != 0
	size := f.int()
	if f.err == nil && size != 4 && size != 8 {
		f.fail("addresses of %d bytes", size)
		return
	}
	r.WordSize = int(size)
	f.skip(2)
	f.text(0)
	f.text(0)
	f.int()
}

// fields reads the fields of a record. After an error it reads nothing more.
type fields struct {
	r   *Reader
	err error
}

func (f *fields) fail(format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf("%w: it has "+format, append([]any{ErrDamaged}, args...)...)
	}
}

func (f *fields) int() uint64 {
	if f.err != nil {
		return 0
	}
	n, err := binary.ReadUvarint(f.r.from)
	if err != nil {
		f.err = damaged(err)
	}
	return n
}

func (f *fields) skip(n int) {
	for range n {
		f.int()
	}
}

// text reads a text, and returns its first bytes.
func (f *fields) text(keep uint64) string {
	size := f.int()
	begin := make([]byte, min(size, keep))
	f.read(begin)
	f.drop(size - uint64(len(begin)))
	if f.err != nil {
		return ""
	}
	return string(begin)
}

func (f *fields) read(to []byte) {
	if f.err != nil {
		return
	}
	if _, err := io.ReadFull(f.r.from, to); err != nil {
		f.err = damaged(err)
	}
}

func (f *fields) drop(n uint64) {
	for n > 0 && f.err == nil {
		next := f.r.piece[:min(n, piece)]
		f.read(next)
		n -= uint64(len(next))
	}
}

func (f *fields) memory(rec *Record, memory func(*Record, uint64, []byte)) {
	rec.Size = f.int()
	if f.err == nil && rec.Addr+rec.Size < rec.Addr {
		f.fail("%d bytes at %#x", rec.Size, rec.Addr)
	}
	for offset := uint64(0); offset < rec.Size && f.err == nil; {
		next := f.r.piece[:min(rec.Size-offset, piece)]
		f.read(next)
		if f.err == nil && memory != nil {
			memory(rec, offset, next)
		}
		offset += uint64(len(next))
	}
}

// pointers reads the list of where in the memory before are pointers, and returns which of its first 64 words are.
func (f *fields) pointers() (words uint64) {
	for f.err == nil {
		switch kind := f.int(); {
		case kind == 0:
			return words
		case kind > 3:
			f.fail("a field of kind %d", kind)
		}
		if offset := f.int(); f.r.WordSize > 0 {
			words |= 1 << (offset / uint64(f.r.WordSize)) // none if it is not of the first
		}
	}
	return words
}

// damaged returns what an error of reading means.
func damaged(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}
