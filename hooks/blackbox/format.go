package blackbox

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/stored"
)

// The format: docs/blackbox.md is its specification.
const (
	magic   = "allocbox"
	version = 1

	headerSize = 4096
	headerCRC  = 104 // where the checksum of what is before it lies
	closedAt   = 112

	recordSize = 32

	namesSize = 32 << 10
	maxName   = 256 // bytes of the name of a child

	overflowSize = 1 << 10
	overflowText = 40 // where the texts of an overflow begin

	tableHeader = 32

	granularity = 64 << 10 // of the size of a file: the largest pages
	minSize     = 256 << 10
	defaultSize = 4 << 20
	maxSize     = 1 << 30

	bigEndian = 1 << 0 // a flag: the words of records are big-endian
)

// order is that of all numbers but the words of records.
var order = binary.LittleEndian

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// hostBig is whether this machine is big-endian.
var hostBig = func() bool {
	one := uint16(1)
	return *(*byte)(unsafe.Pointer(&one)) == 0
}()

// little returns the word that lies in memory as v does on a little-endian machine.
func little(v uint64) uint64 {
	if hostBig {
		return bits.ReverseBytes64(v)
	}
	return v
}

// A layout says where what lies in a file.
type layout struct {
	flags                  uint32
	size                   uint64
	pid, created           uint64
	shards, events         uint32 // events of each shard, a power of two
	eventsAt               uint64
	namesAt, namesLen      uint64
	overflowsAt            uint64
	overflows, overflowLen uint32
	tablesAt, tableLen     uint64
}

// newLayout divides size bytes for so many shards. It takes less if the events of a shard come to less, rounded down
// to a power of two.
func newLayout(size int64, shards int) (l layout, err error) {
	if size < minSize || size > maxSize {
		return l, fmt.Errorf("Options.Size is %d: use 0 for %d, or %d to %d bytes", size, defaultSize, minSize, maxSize)
	}
	if hostBig {
		l.flags |= bigEndian
	}
	l.shards = uint32(shards)
	l.namesAt, l.namesLen = headerSize, namesSize
	l.overflowsAt, l.overflows, l.overflowLen = l.namesAt+l.namesLen, stored.Overflows, overflowSize
	l.tablesAt = l.overflowsAt + uint64(l.overflows)*overflowSize
	l.tableLen = uint64(size) / 8 &^ 4095
	l.eventsAt = l.tablesAt + 2*l.tableLen
	events := (uint64(size) - l.eventsAt) / uint64(shards) / recordSize
	if events < 8 {
		return l, fmt.Errorf("Options.Size is %d, which leaves no room for the events of %d processors: use %d or more", size, shards-1, 2*size)
	}
	l.events = 1 << (bits.Len64(events) - 1)
	end := l.eventsAt + uint64(l.shards)*uint64(l.events)*recordSize
	l.size = (end + granularity - 1) &^ (granularity - 1)
	return l, nil
}

// header returns the first bytes of the file.
func (l *layout) header() []byte {
	b := append(make([]byte, 0, headerSize), magic...)
	b = order.AppendUint32(b, version)
	b = order.AppendUint32(b, l.flags)
	b = order.AppendUint64(b, l.size)
	b = order.AppendUint64(b, l.pid)
	b = order.AppendUint64(b, l.created)
	b = order.AppendUint32(b, l.shards)
	b = order.AppendUint32(b, l.events)
	b = order.AppendUint64(b, l.eventsAt)
	b = order.AppendUint64(b, l.namesAt)
	b = order.AppendUint64(b, l.namesLen)
	b = order.AppendUint64(b, l.overflowsAt)
	b = order.AppendUint32(b, l.overflows)
	b = order.AppendUint32(b, l.overflowLen)
	b = order.AppendUint64(b, l.tablesAt)
	b = order.AppendUint64(b, l.tableLen)
	b = order.AppendUint32(b, headerSum(b))
	return b[:headerSize]
}

// headerSum returns the checksum of a header.
func headerSum(b []byte) uint32 { return crc32.Checksum(b[:headerCRC], castagnoli) }

// parseHeader returns the layout of a file that begins with b, and whether its checksum is right.
func parseHeader(b []byte) (l layout, whole bool, err error) {
	if len(b) < closedAt+8 {
		return l, false, fmt.Errorf("it has %d bytes: a black box has a header of %d", len(b), headerSize)
	}
	if string(b[:8]) != magic {
		return l, false, fmt.Errorf("it begins with %q, a black box with %q", b[:8], magic)
	}
	if v := order.Uint32(b[8:]); v != version {
		return l, false, fmt.Errorf("its format is version %d, and this package reads version %d", v, version)
	}
	l = layout{
		flags: order.Uint32(b[12:]), size: order.Uint64(b[16:]), pid: order.Uint64(b[24:]), created: order.Uint64(b[32:]),
		shards: order.Uint32(b[40:]), events: order.Uint32(b[44:]), eventsAt: order.Uint64(b[48:]),
		namesAt: order.Uint64(b[56:]), namesLen: order.Uint64(b[64:]),
		overflowsAt: order.Uint64(b[72:]), overflows: order.Uint32(b[80:]), overflowLen: order.Uint32(b[84:]),
		tablesAt: order.Uint64(b[88:]), tableLen: order.Uint64(b[96:]),
	}
	if bits.OnesCount32(l.events) != 1 || l.events < 2 || l.size > maxSize || l.namesLen < 8 || l.overflowLen < overflowText || l.tableLen < tableHeader {
		return l, false, fmt.Errorf("its header is damaged: %d bytes in all, %d for names, %d for an overflow, %d for a table, %d events of a processor",
			l.size, l.namesLen, l.overflowLen, l.tableLen, l.events)
	}
	for _, part := range []struct {
		name    string
		at, len uint64
	}{
		{"names", l.namesAt, l.namesLen}, {"overflows", l.overflowsAt, uint64(l.overflows) * uint64(l.overflowLen)},
		{"first table", l.tablesAt, l.tableLen}, {"second table", l.tablesAt + l.tableLen, l.tableLen},
		{"events", l.eventsAt, uint64(l.events) * recordSize}, // of one shard; the next line has no overflow then
		{"events", l.eventsAt, uint64(l.shards) * min(uint64(l.events)*recordSize, maxSize)},
	} {
		if part.at < headerSize || part.at > l.size || part.len > l.size-part.at {
			return l, false, fmt.Errorf("its header is damaged: the %s are %d bytes at %d of %d", part.name, part.len, part.at, l.size)
		}
	}
	return l, order.Uint32(b[headerCRC:]) == headerSum(b), nil
}
