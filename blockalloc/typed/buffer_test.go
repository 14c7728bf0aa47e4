package typed_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
)

var lines = strings.Repeat("Falsches Üben von Xylophonmusik quält jeden größeren Zwerg\n", 3000)

func newBuffer(t testing.TB, a blockalloc.Allocator, text string) *typed.Buffer {
	t.Helper()
	b := typed.NewBuffer(a)
	n, err := b.WriteString(text)
	if must(t, err); n != len(text) {
		t.Fatalf("WriteString wrote %d of %d bytes", n, len(text))
	}
	return b
}

func TestBufferAsReader(t *testing.T) {
	a := newChecked(t)
	for _, text := range []string{"", "a", lines} {
		b := newBuffer(t, a, text)
		if err := iotest.TestReader(b, []byte(text)); err != nil {
			t.Error(err)
		}
		must(t, b.Free())
	}
}

// TestBufferAndFile: a file is read and written from the block itself.
func TestBufferAndFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lines")
	b := newBuffer(t, newPool(t), lines)
	out, err := os.Create(name)
	must(t, err)
	n, err := io.Copy(out, b)
	if must(t, err); n != int64(len(lines)) || b.Len() != 0 {
		t.Errorf("%d bytes were copied to the file and %d stay, want %d and 0", n, b.Len(), len(lines))
	}
	must(t, out.Close())
	in, err := os.Open(name)
	must(t, err)
	n, err = b.ReadFrom(in)
	if must(t, err); n != int64(len(lines)) || b.String() != lines {
		t.Errorf("%d bytes were read from the file, want %d", n, len(lines))
	}
	must(t, in.Close())
	must(t, b.Free())
}

func TestBufferAndBufio(t *testing.T) {
	a := newChecked(t)
	b := typed.NewBuffer(a)
	w := bufio.NewWriterSize(b, 100)
	for i := range 1000 {
		_, err := fmt.Fprintf(w, "line %d\n", i)
		must(t, err)
	}
	must(t, w.Flush())
	i := 0
	for s := bufio.NewScanner(b); s.Scan(); i++ {
		if want := fmt.Sprintf("line %d", i); s.Text() != want {
			t.Fatalf("%q, want %q", s.Text(), want)
		}
	}
	if i != 1000 {
		t.Errorf("%d lines, want 1000", i)
	}
	must(t, b.Free())
}

func TestBufferEveryFailure(t *testing.T) {
	everyFailure(t, func(a *checked) error {
		b := newBuffer(t, a, "")
		defer func() { must(t, b.Free()) }()
		want := ""
		write := func(part string) error {
			n, err := b.WriteString(part)
			if err == nil {
				want += part
			}
			if b.String() != want || n != len(part)*b2i(err == nil) {
				t.Errorf("WriteString = %d, %v and the Buffer is %q, want %q", n, err, b.String(), want)
			}
			return err
		}
		for i := range 100 {
			if err := write(fmt.Sprint("part ", i)); err != nil {
				return err
			}
		}
		want = want[len(b.Next(5)):]
		n, err := b.ReadFrom(strings.NewReader(lines))
		if want += lines[:n]; b.String() != want || err == nil && n != int64(len(lines)) {
			t.Errorf("ReadFrom = %d, %v and the Buffer has %d bytes, want %d", n, err, b.Len(), len(want))
		}
		if err != nil {
			return err
		}
		for _, err := range []error{b.WriteByte('x'), b.Grow(len(lines)), b.Grow(3 * len(lines))} {
			if err != nil {
				return err
			}
		}
		want += "x"
		s, err := b.TakeString()
		if err != nil {
			if b.String() != want {
				t.Errorf("TakeString = %v and the Buffer has %d bytes, want %d", err, b.Len(), len(want))
			}
			return err
		}
		if s.View() != want {
			t.Errorf("the String has %d bytes, want %d", s.Len(), len(want))
		}
		return s.Free(a)
	})
}

// TestBufferKeepsItsSize: as a queue that is never long, a Buffer takes no more
// memory, and a long one is not moved for every write.
func TestBufferKeepsItsSize(t *testing.T) {
	a := newChecked(t)
	b := newBuffer(t, a, "12345678")
	for range 10000 {
		_, err := b.WriteString("12345678")
		must(t, err)
		b.Next(8)
	}
	if a.calls != 1 {
		t.Errorf("%d allocations for a queue of 8 to 16 bytes", a.calls)
	}
	_, err := b.WriteString(lines)
	must(t, err)
	_, err = b.Write(make([]byte, b.Available()))
	must(t, err)
	full := b.Len()
	for range full {
		b.Next(1)
		must(t, b.WriteByte('x'))
	}
	if a.calls != 3 || b.Cap() < 2*full || b.Cap() > 2*full+10 {
		t.Errorf("%d allocations and %d bytes for a queue of %d, want 3 and twice its size", a.calls, b.Cap(), full)
	}
	must(t, b.Free())
}

// TestBufferWithoutMemory: bytes that were read make room where no more memory
// is to be had.
func TestBufferWithoutMemory(t *testing.T) {
	a := newChecked(t)
	b := newBuffer(t, a, "")
	must(t, b.Grow(100))
	room := b.Available()
	for range room {
		must(t, b.WriteByte('x'))
	}
	b.Next(20)
	a.failAt = a.calls + 1
	if _, err := b.WriteString(strings.Repeat("y", 21)); err != errInjected {
		t.Errorf("Write of more than was read: error %v, want the allocator's", err)
	}
	_, err := b.WriteString(strings.Repeat("y", 20)) // it is full again
	must(t, err)
	b.Next(20)
	a.failAt = a.calls + 1
	if _, err := b.WriteString(strings.Repeat("y", 20)); err != nil || b.Len() != room {
		t.Errorf("Write of what was read: error %v and %d bytes, want %d", err, b.Len(), room)
	}
	must(t, b.Free())
}

// TestBufferCopies: what is said to be a copy outlives the Buffer.
func TestBufferCopies(t *testing.T) {
	b := newBuffer(t, newChecked(t), "one\ntwo\nthree")
	line, err := b.ReadBytes('\n')
	must(t, err)
	next, err := b.ReadString('\n')
	must(t, err)
	rest := b.String()
	must(t, b.Free())
	if string(line) != "one\n" || next != "two\n" || rest != "three" {
		t.Errorf("the copies are %q, %q and %q", line, next, rest)
	}
}

type badReader int

func (n badReader) Read(p []byte) (int, error) { return int(n), nil }

type badWriter int

func (n badWriter) Write(p []byte) (int, error) { return int(n), nil }

func TestBufferWithBadPartners(t *testing.T) {
	b := newBuffer(t, newChecked(t), "text")
	for _, n := range []int{-1, 1 << 20} {
		if m, err := b.ReadFrom(badReader(n)); m != 0 || err == nil || !strings.Contains(err.Error(), "badReader says that it read") {
			t.Errorf("ReadFrom = %d, %v", m, err)
		}
		if m, err := b.WriteTo(badWriter(n)); m != 0 || err == nil || !strings.Contains(err.Error(), "badWriter says that it wrote") {
			t.Errorf("WriteTo = %d, %v", m, err)
		}
	}
	for _, n := range []int{5, -1} {
		wantPanic(t, "out of range", func() { b.Truncate(n) })
	}
	if err := b.Grow(-1); !errors.Is(err, blockalloc.ErrBadLayout) || b.String() != "text" {
		t.Errorf("Grow(-1) = %v and the Buffer is %q", err, b.String())
	}
	if err := b.UnreadByte(); err == nil {
		t.Error("UnreadByte after a write")
	}
	if err := b.UnreadRune(); err == nil {
		t.Error("UnreadRune after a write")
	}
	must(t, b.Free())
}

func TestBufferAfterFree(t *testing.T) {
	a := newChecked(t)
	b := newBuffer(t, a, "text")
	a.free = errInjected
	if err := b.Free(); err != errInjected || b.String() != "text" {
		t.Errorf("Free = %v, %q; want the allocator's error and no change", err, b.String())
	}
	a.free = nil
	p := make([]byte, 1)
	wantFreed(t, "Buffer", b.Free, map[string]func(){
		"Bytes":           func() { b.Bytes() },
		"String":          func() { _ = b.String() },
		"Len":             func() { b.Len() },
		"Cap":             func() { b.Cap() },
		"Available":       func() { b.Available() },
		"AvailableBuffer": func() { b.AvailableBuffer() },
		"Grow":            func() { b.Grow(1) },
		"Reset":           func() { b.Reset() },
		"Truncate":        func() { b.Truncate(0) },
		"SetAllocator":    func() { b.SetAllocator(a) },
		"TakeString":      func() { b.TakeString() },
		"Write":           func() { b.Write(p) },
		"WriteString":     func() { b.WriteString("") },
		"WriteByte":       func() { b.WriteByte(1) },
		"WriteRune":       func() { b.WriteRune('ü') },
		"ReadFrom":        func() { b.ReadFrom(new(bytes.Buffer)) },
		"WriteTo":         func() { b.WriteTo(io.Discard) },
		"Read":            func() { b.Read(p) },
		"Next":            func() { b.Next(0) },
		"ReadByte":        func() { b.ReadByte() },
		"ReadRune":        func() { b.ReadRune() },
		"ReadBytes":       func() { b.ReadBytes(0) },
		"ReadString":      func() { b.ReadString(0) },
		"UnreadByte":      func() { b.UnreadByte() },
		"UnreadRune":      func() { b.UnreadRune() },
		"the zero Buffer": func() { new(typed.Buffer).WriteByte(1) },
	})
}

func TestBufferSetAllocator(t *testing.T) {
	a := newChecked(t)
	b := newBuffer(t, a, "text")
	b.SetAllocator(blockalloc.Null{})
	if _, err := b.WriteString(lines); !errors.Is(err, blockalloc.ErrNotOwned) || b.String() != "text" {
		t.Errorf("Write through another allocator: error %v, want its", err)
	}
	b.SetAllocator(a)
	must(t, b.Free())
	wantPanic(t, "Buffer.SetAllocator(nil): pass an allocator", func() { b.SetAllocator(nil) })
}

func TestBufferAllocatesNothing(t *testing.T) {
	b := newBuffer(t, newChecked(t), "")
	must(t, b.Grow(1<<16))
	p := make([]byte, 100)
	wantAllocs(t, "writing and reading", func() {
		for i := range 10 {
			b.Write(p)
			b.WriteString("text")
			b.WriteByte(1)
			b.WriteRune(rune(i * 1000))
			b.Read(p)
			b.ReadByte()
			b.UnreadByte()
			b.ReadRune()
			b.UnreadRune()
			b.Next(3)
		}
		b.WriteTo(io.Discard)
	})
	must(t, b.Free())
}
