package recording

import (
	"encoding/binary"
	"hash/crc32"
	"time"
)

// Version is that of the format, which docs/recording.md describes.
const Version = 2

// A Header is what a recording says of its process.
type Header struct {
	Program    string    `json:"program,omitempty"` // the path of its main package
	PID        int       `json:"pid"`
	Go         string    `json:"go"` // its version
	GOOS       string    `json:"goos"`
	GOARCH     string    `json:"goarch"`
	PageSize   int       `json:"page_size"` // bytes
	Began      time.Time `json:"began"`     // when the Recorder was made
	Stacks     bool      `json:"stacks"`
	FreeStacks bool      `json:"free_stacks"`
}

// A batch is a skippable frame of zstd, which has its header, and a frame with the events.
type batchHeader struct {
	flags         uint16
	packed, plain uint32 // bytes of the frame with the events, as it lies there and unpacked
	events        uint32
	first, last   int64 // times, as nanoseconds since 1970 UTC
}

const (
	flagFresh = 1 << iota // a segment begins, which builds on no batch before
	flagLast              // the Recorder was closed

	skippable       = 0x184d2a5a // the magic number of a skippable frame
	batchMagic      = 0x52544c41 // "ALTR"
	batchHeaderSize = 8 + 44
	maxPlain        = 16 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// put writes h to the first bytes of b.
func (h *batchHeader) put(b []byte) {
	le := binary.LittleEndian
	le.PutUint32(b[0:], skippable)
	le.PutUint32(b[4:], batchHeaderSize-8)
	le.PutUint32(b[8:], batchMagic)
	le.PutUint16(b[12:], Version)
	le.PutUint16(b[14:], h.flags)
	le.PutUint32(b[16:], h.packed)
	le.PutUint32(b[20:], h.plain)
	le.PutUint32(b[24:], h.events)
	le.PutUint32(b[28:], 0)
	le.PutUint64(b[32:], uint64(h.first))
	le.PutUint64(b[40:], uint64(h.last))
	le.PutUint32(b[48:], crc32.Checksum(b[:48], castagnoli))
}

// parse reads h from b, and reports whether it is one, of which version.
func (h *batchHeader) parse(b []byte) (version uint16, ok bool) {
	le := binary.LittleEndian
	if le.Uint32(b[0:]) != skippable || le.Uint32(b[4:]) != batchHeaderSize-8 || le.Uint32(b[8:]) != batchMagic ||
		le.Uint32(b[48:]) != crc32.Checksum(b[:48], castagnoli) {
		return 0, false
	}
	h.flags = le.Uint16(b[14:])
	h.packed, h.plain, h.events = le.Uint32(b[16:]), le.Uint32(b[20:]), le.Uint32(b[24:])
	h.first, h.last = int64(le.Uint64(b[32:])), int64(le.Uint64(b[40:]))
	return le.Uint16(b[12:]), h.plain <= maxPlain && h.packed <= maxPlain && h.events <= batchEvents+1<<12
}
