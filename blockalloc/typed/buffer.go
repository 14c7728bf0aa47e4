package typed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A Buffer is bytes that are written at one end and read at the other, as a
// bytes.Buffer, in one block of an allocator. If there is no memory, it returns the
// allocator's error, where a bytes.Buffer panics. It grows as a [Vec] does, but first
// reuses the room of bytes that were read if that makes it half empty.
//
// Make a Buffer with [NewBuffer]; it must not be copied. It is for one goroutine at a
// time.
type Buffer struct {
	vec      Vec[byte] // unread bytes begin at off
	off      int
	lastRead lastRead
}

var (
	_ io.ReadWriter   = (*Buffer)(nil)
	_ io.ReaderFrom   = (*Buffer)(nil)
	_ io.WriterTo     = (*Buffer)(nil)
	_ io.ByteScanner  = (*Buffer)(nil)
	_ io.ByteWriter   = (*Buffer)(nil)
	_ io.RuneScanner  = (*Buffer)(nil)
	_ io.StringWriter = (*Buffer)(nil)
)

// lastRead is what UnreadByte and UnreadRune can undo: the size of the rune that was
// read last, or one of these.
type lastRead int8

const (
	readNothing lastRead = 0  // not by a read
	readBytes   lastRead = -1 // one or more bytes, but not as a rune
)

var (
	errUnreadByte = errors.New("blockalloc/typed: Buffer.UnreadByte: the last operation did not read a byte")
	errUnreadRune = errors.New("blockalloc/typed: Buffer.UnreadRune: the last operation was not a successful ReadRune")
)

// NewBuffer returns an empty Buffer over mem, which takes no block before something is
// written. It panics if mem is nil.
func NewBuffer(mem blockalloc.Allocator) *Buffer {
	needAllocator("NewBuffer", mem)
	return &Buffer{vec: Vec[byte]{mem: mem}}
}

// Bytes returns the unread bytes, which are valid until the next call that changes the
// Buffer.
func (b *Buffer) Bytes() []byte {
	b.check()
	return b.vec.items[b.off:len(b.vec.items):len(b.vec.items)]
}

// String returns a copy of the unread bytes, on the Go heap.
func (b *Buffer) String() string { return string(b.Bytes()) }

// Len returns how many bytes are unread.
func (b *Buffer) Len() int { return len(b.Bytes()) }

// Cap returns the size of the block in bytes.
func (b *Buffer) Cap() int {
	b.check()
	return cap(b.vec.items)
}

// Available returns how many bytes can be written before the Buffer needs room.
func (b *Buffer) Available() int { return b.Cap() - len(b.vec.items) }

// AvailableBuffer returns an empty slice with Available bytes of capacity, to be
// appended to and passed to Write at once. Write copies nothing if it still fits.
func (b *Buffer) AvailableBuffer() []byte {
	b.check()
	return b.vec.items[len(b.vec.items):]
}

// Grow makes room for n more bytes.
func (b *Buffer) Grow(n int) error { return b.room("Buffer.Grow", n) }

// Reset removes all bytes and keeps the block.
func (b *Buffer) Reset() { b.Truncate(0) }

// Truncate removes all unread bytes but the first n.
func (b *Buffer) Truncate(n int) {
	_ = b.Bytes()[:n:b.Len()]
	b.lastRead = readNothing
	if n == 0 {
		b.off = 0
	}
	b.vec.items = b.vec.items[:b.off+n]
}

// SetAllocator makes the Buffer grow and free through mem from now on. It must
// take the blocks of the allocator before, as another view of the same one does.
func (b *Buffer) SetAllocator(mem blockalloc.Allocator) {
	needAllocator("Buffer.SetAllocator", mem)
	b.check()
	b.vec.mem = mem
}

// Free gives the block back. After it only Free may be called, which does nothing.
func (b *Buffer) Free() error {
	if err := b.vec.Free(); err != nil {
		return err
	}
	*b = Buffer{}
	return nil
}

// TakeString moves the unread bytes into a String, and leaves the Buffer empty. Free
// the String with the Buffer's allocator. The block is shrunk to the bytes, which may
// move it.
func (b *Buffer) TakeString() (String, error) {
	b.check()
	b.slide()
	if err := b.vec.Shrink(); err != nil {
		return String{}, err
	}
	s := stringIn(b.vec.block, len(b.vec.items))
	b.vec.use(blockalloc.Block{}, 0)
	return s, nil
}

// Write adds p at the end: all of it, or nothing if it returns an error.
func (b *Buffer) Write(p []byte) (int, error) {
	b.check()
	b.lastRead = readNothing
	if len(p) > cap(b.vec.items)-len(b.vec.items) {
		// What lies in the block itself must not be slid: Append finds it again.
		if _, inside := b.vec.offset(p); !inside {
			if err := b.room("Buffer.Write", len(p)); err != nil {
				return 0, err
			}
		}
	}
	if err := b.vec.Append(p...); err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteString adds s at the end: all of it, or nothing if it returns an error.
func (b *Buffer) WriteString(s string) (int, error) {
	return b.Write(unsafe.Slice(unsafe.StringData(s), len(s)))
}

// WriteByte adds c at the end.
func (b *Buffer) WriteByte(c byte) error {
	if len(b.vec.items) == cap(b.vec.items) {
		if err := b.room("Buffer.WriteByte", 1); err != nil {
			return err
		}
	}
	b.lastRead = readNothing
	b.vec.items = append(b.vec.items, c)
	return nil
}

// WriteRune adds r in UTF-8 at the end, or U+FFFD if r is not valid, and returns how
// many bytes that took.
func (b *Buffer) WriteRune(r rune) (int, error) {
	var p [utf8.UTFMax]byte
	return b.Write(utf8.AppendRune(p[:0], r))
}

// ReadFrom adds all that r has, and returns how many bytes that was. If r or the
// allocator fails, what was read before stays. It makes room for [bytes.MinRead] before
// each Read, also the last: to avoid growth, Grow by that much more than r has.
func (b *Buffer) ReadFrom(r io.Reader) (n int64, err error) {
	for {
		if err := b.room("Buffer.ReadFrom", bytes.MinRead); err != nil {
			return n, err
		}
		room := b.AvailableBuffer()
		m, err := r.Read(room[:cap(room)])
		if m < 0 || m > cap(room) {
			return n, fmt.Errorf("blockalloc/typed: Buffer.ReadFrom: the %T says that it read %d bytes into %d: correct its Read", r, m, cap(room))
		}
		b.vec.items = b.vec.items[:len(b.vec.items)+m]
		n += int64(m)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// WriteTo writes the unread bytes to w, and returns how many w took. If w fails, the
// rest stays.
func (b *Buffer) WriteTo(w io.Writer) (int64, error) {
	p := b.Bytes()
	b.lastRead = readNothing
	if len(p) == 0 {
		b.Reset()
		return 0, nil
	}
	n, err := w.Write(p)
	if n < 0 || n > len(p) {
		return 0, fmt.Errorf("blockalloc/typed: Buffer.WriteTo: the %T says that it wrote %d of %d bytes: correct its Write", w, n, len(p))
	}
	b.off += n
	if err != nil {
		return int64(n), err
	}
	if n < len(p) {
		return int64(n), io.ErrShortWrite
	}
	b.Reset()
	return int64(n), nil
}

// Read reads up to len(p) bytes. If there are none, it returns io.EOF, unless p is
// empty.
func (b *Buffer) Read(p []byte) (int, error) {
	if b.empty() && len(p) > 0 {
		return 0, io.EOF
	}
	return copy(p, b.Next(len(p))), nil
}

// Next reads up to n bytes and returns them in place. They are valid until the next
// call that changes the Buffer.
func (b *Buffer) Next(n int) []byte {
	unread := b.Bytes()
	n = min(n, len(unread))
	p := unread[:n:n]
	b.off += n
	b.lastRead = readNothing
	if n > 0 {
		b.lastRead = readBytes
	}
	return p
}

// ReadByte reads a byte. If there is none, it returns io.EOF.
func (b *Buffer) ReadByte() (byte, error) {
	if b.empty() {
		return 0, io.EOF
	}
	c := b.vec.items[b.off]
	b.off++
	b.lastRead = readBytes
	return c, nil
}

// ReadRune reads a UTF-8 character and returns its size in bytes, or U+FFFD and 1 for a
// byte that is none. If there is none, it returns io.EOF.
func (b *Buffer) ReadRune() (r rune, size int, err error) {
	if b.empty() {
		return 0, 0, io.EOF
	}
	r, size = utf8.DecodeRune(b.Bytes())
	b.off += size
	b.lastRead = lastRead(size)
	return r, size, nil
}

// ReadBytes reads up to and including the first delim and returns a copy on the Go
// heap. Without a delim, it reads all bytes and also returns io.EOF.
func (b *Buffer) ReadBytes(delim byte) ([]byte, error) {
	line, err := b.readUntil(delim)
	return bytes.Clone(line), err
}

// ReadString reads up to and including the first delim and returns a copy on the Go
// heap. Without a delim, it reads all bytes and also returns io.EOF.
func (b *Buffer) ReadString(delim byte) (string, error) {
	line, err := b.readUntil(delim)
	return string(line), err
}

func (b *Buffer) readUntil(delim byte) ([]byte, error) {
	i := bytes.IndexByte(b.Bytes(), delim)
	if i < 0 {
		return b.Next(b.Len()), io.EOF
	}
	return b.Next(i + 1), nil
}

// UnreadByte makes the last byte read unread again. It fails if the last operation read
// none.
func (b *Buffer) UnreadByte() error {
	b.check()
	if b.lastRead == readNothing {
		return errUnreadByte
	}
	b.lastRead = readNothing
	b.off--
	return nil
}

// UnreadRune makes the last character read unread again. It fails if the last operation
// was no successful ReadRune.
func (b *Buffer) UnreadRune() error {
	b.check()
	if b.lastRead <= readNothing {
		return errUnreadRune
	}
	b.off -= int(b.lastRead)
	b.lastRead = readNothing
	return nil
}

func (b *Buffer) check() {
	if b.vec.mem == nil {
		panicFreed("Buffer")
	}
}

// empty reports whether no byte is unread, and then makes all of the block room.
func (b *Buffer) empty() bool {
	if b.off < len(b.vec.items) {
		return false
	}
	b.Reset()
	return true
}

// room makes room for n more bytes.
func (b *Buffer) room(function string, n int) error {
	b.check()
	b.lastRead = readNothing
	if uint(n) <= uint(cap(b.vec.items)-len(b.vec.items)) {
		return nil
	}
	b.slide()
	if n < 0 || n <= cap(b.vec.items)/2-len(b.vec.items) {
		return b.vec.grow(function, n)
	}
	// To slide for every few bytes would be slow: take more, if there is more.
	err := b.vec.extend(function, n, false)
	if n <= cap(b.vec.items)-len(b.vec.items) {
		return nil
	}
	return err
}

// slide moves the unread bytes to the block's start, over the read ones, which can then
// not be unread.
func (b *Buffer) slide() {
	b.lastRead = readNothing
	if b.off > 0 {
		b.vec.items = b.vec.items[:copy(b.vec.items, b.vec.items[b.off:])]
		b.off = 0
	}
}
