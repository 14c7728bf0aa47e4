package blackbox

import (
	"hash/crc32"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/stored"
	"github.com/alloctrace/alloctrace/internal/text"
)

// storage is what a Ring writes of the file, by those who allocate.
type storage struct {
	layout
	mem []byte
}

// word returns the eight bytes at an offset, which is a multiple of eight. What is stored there is seen after what was written
// before, by whoever reads the file once the process is dead.
func (s *storage) word(at uint64) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&s.mem[at : at+8][0]))
}

// Shard implements [stored.Storage].
func (s *storage) Shard(i int) *stored.Record {
	size := uint64(s.events) * recordSize
	at := s.eventsAt + uint64(i)*size
	return (*stored.Record)(unsafe.Pointer(&s.mem[at : at+size][0]))
}

// Name implements [stored.Storage]: it appends the name, and then says how far the names go.
func (s *storage) Name(name string) bool {
	name = text.Valid(name, maxName)
	used := s.word(s.namesAt)
	n := little(used.Load())
	names := s.mem[s.namesAt+8 : s.namesAt+s.namesLen]
	if n+2+uint64(len(name)) > uint64(len(names)) {
		return false
	}
	order.PutUint16(names[n:], uint16(len(name)))
	copy(names[n+2:], name)
	used.Store(little(n + 2 + uint64(len(name))))
	return true
}

// Keep implements [stored.Storage]: the number of the event is written last.
func (s *storage) Keep(number uint64, o stored.Overflow) {
	at := s.overflowsAt + number%uint64(s.overflows)*overflowSize
	written := s.word(at)
	written.Store(0)
	b := s.mem[at : at+overflowSize]
	child := text.Valid(o.Child, maxName)
	failure := text.Valid(o.Err, overflowSize-overflowText-len(child))
	order.PutUint16(b[8:], uint16(o.Kind))
	order.PutUint16(b[10:], uint16(len(child)))
	order.PutUint16(b[12:], uint16(len(failure)))
	order.PutUint64(b[16:], uint64(o.Addr))
	order.PutUint64(b[24:], uint64(o.Size))
	order.PutUint64(b[32:], uint64(o.Align))
	copy(b[overflowText:], child)
	copy(b[overflowText+len(child):], failure)
	written.Store(little(number))
}

// writeTable writes the table of this generation, from 1 on, over the one before the last. Its generation is 0 meanwhile.
func (s *storage) writeTable(generation uint64, at int64, content []byte) {
	begin := s.tablesAt + generation%2*s.tableLen
	written := s.word(begin)
	written.Store(0)
	b := s.mem[begin : begin+s.tableLen]
	order.PutUint64(b[8:], uint64(at))
	order.PutUint32(b[16:], uint32(len(content)))
	copy(b[tableHeader:], content)
	order.PutUint32(b[20:], tableSum(generation, b[8:20], content))
	written.Store(little(generation))
}

// tableSum returns the checksum of a table: of its generation, the rest of its header, and its content.
func tableSum(generation uint64, header, content []byte) uint32 {
	sum := crc32.Checksum(order.AppendUint64(nil, generation), castagnoli)
	sum = crc32.Update(sum, castagnoli, header)
	return crc32.Update(sum, castagnoli, content)
}
