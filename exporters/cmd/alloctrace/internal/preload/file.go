package preload

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alloctrace/alloctrace"
)

// An Event is one of malloc's. Reallocating and Reallocated of the same call have the same Thread, and between them that has no other.
type Event struct {
	Number uint64          // in the order of the process, counted from 1
	Kind   alloctrace.Kind // AllocateFailed has no address; ReallocateFailed that of the block that stays
	Align  uintptr         // that was asked for, or that of malloc; of releases 1
	Addr   uint64
	Size   uint64 // that was asked for; of releases 0
	Usable uint64 // bytes that the block has; 0 if it is not known
	Time   time.Duration
	Thread uint32
	Stack  []uint64 // return addresses, the innermost first; it is valid until the next event

	// Lost, if it is not 0, is how many events are missing here. The rest of the Event is zero then, but for Number, that of the first.
	Lost uint64
}

// A Header is what a file says of its process.
type Header struct {
	PID, Parent int
	Frames      int
	Align       uintptr // of malloc
	PageSize    int
	Began       time.Time
	Program     string // its path, "" if it is not known
	Name        string // as it is executed: that of a link to it, or of a script, cut off after 15 bytes
	Resident    int64  // bytes that were in memory at most, the recorder's too; 0 if the process did not call exit

	began  uint64 // by the clock of records
	events uint64 // how many there have been, if it is known
}

// ErrFormat is wrapped by the errors of what is no file of a recorder.
var ErrFormat = errors.New("no file of a recorder")

// What recorder/file.h calls so.
const (
	magic       = "ALTRPRE1"
	headerSize  = 64 << 10
	maxChunk    = 16 << 20
	maxEvents   = 1 << 56 // of a process: two years of one each nanosecond
	chunkHeader = 16
	chunkEvents = 1
	chunkMaps   = 2
	recordSize  = 48
	programAt   = 56
	programSize = 2048
	nameAt      = programAt + programSize
	nameSize    = 16
)

// A File is what a process has recorded. One goroutine may use it.
type File struct {
	Header
	// Progress, if it is not nil, is called while events are read: with the bytes that were, and all that there are. In the end
	// these are the same.
	Progress func(read, size int64)

	in     io.ReaderAt
	close  func() error
	order  binary.ByteOrder
	size   int64      // of a chunk
	chunks []chunk    // of events, by the first
	maps   []snapshot // in order
	damage error      // the first that index has found, which Events ends with
}

// A chunk has events of one thread at a time, in order.
type chunk struct {
	offset int64
	first  uint64 // the number of its first event
}

// Open opens a file. The error wraps [ErrFormat] if it is none.
func Open(path string) (*File, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	f, err := NewFile(in)
	if err != nil {
		in.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f.close = in.Close
	return f, nil
}

// Close closes the file.
func (f *File) Close() error { return f.close() }

// NewFile returns what in has.
func NewFile(in io.ReaderAt) (*File, error) {
	f := &File{in: in, close: func() error { return nil }}
	b := make([]byte, headerSize)
	if n, err := in.ReadAt(b, 0); n < len(b) {
		return nil, fmt.Errorf("%w: its header is cut off: %w", ErrFormat, err)
	}
	switch {
	case string(b[:len(magic)]) != magic:
		return nil, fmt.Errorf("%w: it does not begin with %q", ErrFormat, magic)
	case binary.LittleEndian.Uint32(b[8:]) == 0x01020304:
		f.order = binary.LittleEndian
	case binary.BigEndian.Uint32(b[8:]) == 0x01020304:
		f.order = binary.BigEndian
	default:
		return nil, fmt.Errorf("%w: the order of its bytes is not known", ErrFormat)
	}
	header, size := f.order.Uint32(b[12:]), f.order.Uint32(b[16:])
	if header != headerSize || size < chunkHeader+recordSize || size > maxChunk {
		return nil, fmt.Errorf("%w: its header has %d bytes and its chunks %d", ErrFormat, header, size)
	}
	f.size = int64(size)
	text := func(at, size int) string {
		s, _, _ := bytes.Cut(b[at:at+size], []byte{0})
		return string(s)
	}
	f.Header = Header{
		PID: int(f.order.Uint32(b[20:])), Parent: int(f.order.Uint32(b[24:])), Frames: int(f.order.Uint32(b[28:])),
		Align: uintptr(f.order.Uint32(b[32:])), PageSize: int(f.order.Uint32(b[36:])),
		Began: time.Unix(0, int64(f.order.Uint64(b[48:]))), Program: text(programAt, programSize), Name: text(nameAt, nameSize),
		Resident: int64(f.order.Uint64(b[nameAt+nameSize+8:])),
		began:    f.order.Uint64(b[40:]), events: f.order.Uint64(b[nameAt+nameSize:]),
	}
	if f.Align == 0 || f.Align&(f.Align-1) != 0 || f.events > maxEvents {
		return nil, fmt.Errorf("%w: its header says that malloc aligns to %d, and that there were %d events", ErrFormat, f.Align, f.events)
	}
	return f, f.index()
}

// cutOff notes that the file ends in the chunk at offset.
func (f *File) cutOff(offset int64) {
	f.damage = fmt.Errorf("%w: the chunk at byte %d is cut off", ErrFormat, offset)
}

// index finds the chunks.
func (f *File) index() error {
	for offset := int64(headerSize); ; offset += f.size {
		var b [chunkHeader + 8]byte // with the number of the first event
		if n, err := f.in.ReadAt(b[:], offset); n < len(b) && err != io.EOF {
			return err
		} else if n < len(b) {
			if n > 0 {
				f.cutOff(offset)
			}
			break
		}
		switch f.order.Uint32(b[:]) {
		case chunkEvents:
			if first := f.order.Uint64(b[chunkHeader:]); first > 0 {
				f.chunks = append(f.chunks, chunk{offset, first})
			}
		case chunkMaps:
			if err := f.readMaps(offset, f.order.Uint32(b[4:])); err != nil {
				return err
			}
		}
	}
	slices.SortFunc(f.chunks, func(a, b chunk) int { return cmp.Compare(a.first, b.first) })
	slices.SortStableFunc(f.maps, func(a, b snapshot) int { return cmp.Compare(a.seq, b.seq) })
	return nil
}

func (f *File) readMaps(offset int64, used uint32) error {
	if int64(used) > f.size-chunkHeader {
		f.damage = fmt.Errorf("%w: the chunk at byte %d has %d bytes of maps", ErrFormat, offset, used)
		return nil
	}
	b := make([]byte, used)
	if n, err := f.in.ReadAt(b, offset+chunkHeader); n < len(b) && err != io.EOF {
		return err
	} else if n < len(b) {
		f.cutOff(offset)
		b = b[:n]
	}
	var m *snapshot
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, "@"); ok {
			seq, err := strconv.ParseUint(strings.TrimSuffix(text, "\n"), 10, 64)
			if err != nil {
				f.damage = fmt.Errorf("%w: the chunk at byte %d has maps of event %q", ErrFormat, offset, text)
				return nil
			}
			f.maps = append(f.maps, snapshot{seq: seq})
			m = &f.maps[len(f.maps)-1]
		} else if mapped, ok := parseMapping(line); ok && m != nil {
			m.list = append(m.list, mapped)
		}
	}
	return nil
}
