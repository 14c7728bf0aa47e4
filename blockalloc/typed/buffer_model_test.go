package typed_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
)

// FuzzBuffer reads operations from data and holds what a Buffer does against a
// bytes.Buffer.
func FuzzBuffer(f *testing.F) {
	f.Add([]byte{0, 100, 5, 30, 0, 200, 4, 5, 90, 9, 12, 10, 0, 250, 8, 20})
	f.Add([]byte{2, 255, 7, 11, 3, 7, 11, 6, 10, 1, 66, 13, 1, 2, 80, 14, 9, 5, 15})
	f.Fuzz(func(t *testing.T, data []byte) { replayBuffer(t, alloctest.New(t), data) })
}

// TestBufferModel runs FuzzBuffer's operations at random.
func TestBufferModel(t *testing.T) {
	mem, pool := alloctest.New(t), newPool(t)
	random := rand.New(rand.NewPCG(3, 4))
	for seed := range 300 {
		data := make([]byte, 400)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		replayBuffer(t, mem, data)
		if seed%10 == 0 {
			replayBuffer(t, pool, data)
		}
	}
}

// A bufferModel is a Buffer and the bytes.Buffer that it should be.
type bufferModel struct {
	*testing.T
	a    *checked
	buf  *typed.Buffer
	want *bytes.Buffer
	data []byte // operations to come
}

func replayBuffer(t *testing.T, mem *alloctrace.Proxy, data []byte) {
	a := checkedOver(mem)
	m := &bufferModel{t, a, typed.NewBuffer(a), new(bytes.Buffer), data}
	for len(m.data) > 0 {
		op := m.next() % 18
		m.step(op)
		if !bytes.Equal(m.buf.Bytes(), m.want.Bytes()) || m.buf.Len() != m.want.Len() || m.buf.String() != m.want.String() {
			t.Fatalf("after operation %d: %q, want %q", op, m.buf.Bytes(), m.want.Bytes())
		}
		if a.live > 1 {
			t.Fatalf("after operation %d: %d blocks are live", op, a.live)
		}
	}
	must(t, m.buf.Free())
}

func (m *bufferModel) next() byte {
	if len(m.data) == 0 {
		return 0
	}
	n := m.data[0]
	m.data = m.data[1:]
	return n
}

// text returns up to 510 bytes, some of them no UTF-8.
func (m *bufferModel) text() []byte {
	n := int(m.next())
	p := make([]byte, 0, 2*n+1)
	for i := range n {
		if p = append(p, byte(i*n)); i%3 == 0 {
			p = utf8.AppendRune(p, rune(i*n*7))
		}
	}
	return p
}

// same compares the results of a call: the errors by what the standard library
// promises, which is io.EOF alone.
func (m *bufferModel) same(what string, n, wantN any, err, wantErr error) {
	m.Helper()
	if n != wantN || (err == nil) != (wantErr == nil) || wantErr == io.EOF && err != io.EOF {
		m.Fatalf("%s = %v, %v; want %v, %v", what, n, err, wantN, wantErr)
	}
}

// wrote writes to the bytes.Buffer what the Buffer took.
func (m *bufferModel) wrote(n int, err error, p []byte) {
	m.Helper()
	if err == errInjected {
		if n != 0 {
			m.Fatalf("%d bytes were written with %v", n, err)
		}
		m.want.Truncate(m.want.Len()) // nothing can be unread after it
		return
	}
	wantN, wantErr := m.want.Write(p)
	m.same("Write", n, wantN, err, wantErr)
}

func (m *bufferModel) step(op byte) {
	switch op {
	case 0:
		p := m.text()
		n, err := m.buf.Write(p)
		m.wrote(n, err, p)
	case 1:
		c := m.next()
		err := m.buf.WriteByte(c)
		m.wrote(b2i(err == nil), err, []byte{c})
	case 2:
		p := m.text()
		n, err := m.buf.WriteString(string(p))
		m.wrote(n, err, p)
	case 3:
		r := rune(m.next()) * rune(m.next()) * 31
		n, err := m.buf.WriteRune(r)
		m.wrote(n, err, utf8.AppendRune(nil, r))
	case 4: // what was read goes to the end
		n := int(m.next())
		p := bytes.Clone(m.want.Next(n))
		got := m.buf.Next(n)
		if !bytes.Equal(got, p) {
			m.Fatalf("Next(%d) = %q, want %q", n, got, p)
		}
		n, err := m.buf.Write(got)
		m.wrote(n, err, p)
	case 5: // what is to be read, once more
		p := bytes.Clone(m.want.Bytes())
		if len(p) > 4000 {
			p = p[:10]
		}
		n, err := m.buf.Write(m.buf.Bytes()[:len(p)])
		m.wrote(n, err, p)
	case 6:
		n := int(m.next())
		p, want := make([]byte, n), make([]byte, n)
		got, err := m.buf.Read(p)
		wantN, wantErr := m.want.Read(want)
		m.same("Read", got, wantN, err, wantErr)
		m.same("Read", string(p), string(want), nil, nil)
	case 7:
		c, err := m.buf.ReadByte()
		want, wantErr := m.want.ReadByte()
		m.same("ReadByte", c, want, err, wantErr)
	case 8:
		r, size, err := m.buf.ReadRune()
		want, wantSize, wantErr := m.want.ReadRune()
		m.same("ReadRune", r, want, err, wantErr)
		m.same("ReadRune", size, wantSize, err, wantErr)
	case 9:
		m.same("UnreadByte", 0, 0, m.buf.UnreadByte(), m.want.UnreadByte())
	case 10:
		m.same("UnreadRune", 0, 0, m.buf.UnreadRune(), m.want.UnreadRune())
	case 11:
		m.readUntil(m.next())
	case 12:
		n := int(m.next()) % (m.want.Len() + 1)
		m.buf.Truncate(n)
		m.want.Truncate(n)
	case 13:
		m.grow(int(m.next()) * 8)
	case 14:
		m.readFrom()
	case 15:
		m.writeTo(int(m.next()))
	case 16:
		m.a.failAt = m.a.calls + 1 + int(m.next()%2)
	case 17:
		m.takeString()
	}
}

func (m *bufferModel) readUntil(delim byte) {
	if delim%2 == 0 {
		p, err := m.buf.ReadBytes(delim)
		want, wantErr := m.want.ReadBytes(delim)
		m.same("ReadBytes", string(p), string(want), err, wantErr)
		if len(want) == 0 {
			m.want.Truncate(m.want.Len()) // a bytes.Buffer lets the byte before be unread here
		}
		return
	}
	s, err := m.buf.ReadString(delim)
	want, wantErr := m.want.ReadString(delim)
	m.same("ReadString", s, want, err, wantErr)
	if len(want) == 0 {
		m.want.Truncate(m.want.Len())
	}
}

func (m *bufferModel) grow(n int) {
	err := m.buf.Grow(n)
	m.want.Truncate(m.want.Len()) // nothing can be unread after it
	if err != nil && err != errInjected || err == nil && m.buf.Available() < n {
		m.Fatalf("Grow(%d) = %v with room for %d", n, err, m.buf.Available())
	}
	if err == nil && n > 0 {
		calls := m.a.calls
		p := append(m.buf.AvailableBuffer(), make([]byte, n)...)
		got, err := m.buf.Write(p)
		m.wrote(got, err, p)
		if m.a.calls != calls {
			m.Fatalf("a Write of %d bytes after Grow allocates", n)
		}
	}
}

func (m *bufferModel) readFrom() {
	p := m.text()
	var r io.Reader = bytes.NewReader(p)
	if len(p)%3 == 1 {
		r = iotest.TimeoutReader(r) // fails at the second Read
	}
	n, err := m.buf.ReadFrom(r)
	if err == nil && n != int64(len(p)) || err != nil && err != errInjected && err != iotest.ErrTimeout {
		m.Fatalf("ReadFrom = %d, %v; want %d", n, err, len(p))
	}
	m.want.Write(p[:n])
}

func (m *bufferModel) writeTo(limit int) {
	var got, want limited
	got.room, want.room = limit*3, limit*3
	got.silent, want.silent = limit%2 == 0, limit%2 == 0
	n, err := m.buf.WriteTo(&got)
	wantN, wantErr := m.want.WriteTo(&want)
	m.same("WriteTo", n, wantN, err, wantErr)
	if wantErr == io.ErrShortWrite && err != io.ErrShortWrite {
		m.Fatalf("WriteTo: error %v, want %v", err, wantErr)
	}
	m.same("WriteTo", got.String(), want.String(), nil, nil)
}

func (m *bufferModel) takeString() {
	s, err := m.buf.TakeString()
	if err != nil {
		m.want.Truncate(m.want.Len())
		if err != errInjected {
			m.Fatal(err)
		}
		return
	}
	m.same("TakeString", s.View(), m.want.String(), nil, nil)
	if m.buf.Cap() != 0 {
		m.Fatalf("the Buffer has %d bytes after TakeString", m.buf.Cap())
	}
	if m.a.size != uintptr(s.Len()) && m.a.asked != uintptr(s.Len()) {
		m.Fatalf("a String of %d bytes in %d", s.Len(), m.a.size)
	}
	must(m.T, s.Free(m.a))
	m.want.Reset()
}

// A limited writer takes room bytes. If it is silent, it does not say why it takes
// no more.
type limited struct {
	bytes.Buffer
	room   int
	silent bool
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.room)
	l.room -= n
	l.Buffer.Write(p[:n])
	if n < len(p) && !l.silent {
		return n, errors.New("no room")
	}
	return n, nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
