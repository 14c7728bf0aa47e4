package preload

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
)

// A chunkOf has the numbers of its events.
type chunkOf []uint64

const chunkSize = 600

// raw returns a file of so many events with these chunks, and a chunk that was given up before them. An event has its number as its address, and so
// many calls as the last digit of its number.
func raw(order binary.AppendByteOrder, events uint64, chunks ...chunkOf) []byte {
	b := append([]byte(magic), make([]byte, headerSize-len(magic))...)
	set := func(at int, n uint32) { copy(b[at:], order.AppendUint32(nil, n)) }
	for at, n := range map[int]uint32{8: 0x01020304, 12: headerSize, 16: chunkSize, 20: 12, 24: 11, 28: 16, 32: 16, 36: 4096} {
		set(at, n)
	}
	copy(b[programAt:], "/bin/true")
	copy(b[nameAt:], "true")
	copy(b[nameAt+nameSize:], order.AppendUint64(order.AppendUint64(nil, events), 1<<20))
	b = append(b, make([]byte, chunkSize)...)
	text := "5000-6000 r-xp 00001000 08:01 7 /a library\n7000-8000 r-xp 00000000 08:01 8 /b (deleted)\n"
	c := order.AppendUint64(order.AppendUint32(order.AppendUint32(nil, chunkMaps), uint32(len(text))), 3)
	c = append(c, text...)
	b = append(append(b, c...), make([]byte, chunkSize-len(c))...)
	for _, events := range chunks {
		c := append(order.AppendUint32(nil, chunkEvents), make([]byte, chunkHeader-4)...)
		for _, n := range events {
			for _, word := range []uint64{n, 10 * n, n, 100, 112} {
				c = order.AppendUint64(c, word)
			}
			c = append(order.AppendUint32(c, 5), byte(alloctrace.Allocated), 4, byte(n%10), 0)
			for call := range n % 10 {
				c = order.AppendUint64(c, 0x5000+call)
			}
		}
		b = append(append(b, c...), make([]byte, chunkSize-len(c))...)
	}
	return b
}

// TestEvents: events of several chunks come in order, and those that are missing are counted where they were.
func TestEvents(t *testing.T) {
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		f, err := NewFile(bytes.NewReader(raw(order, 14, chunkOf{4, 5, 12}, chunkOf{}, chunkOf{1, 2, 7, 9}, chunkOf{8, 10, 11})))
		if err != nil {
			t.Fatal(err)
		}
		var numbers []uint64
		var lost []uint64
		for e, err := range f.Events() {
			if err != nil {
				t.Fatal(err)
			}
			if e.Lost > 0 {
				lost = append(lost, e.Number, e.Lost)
				continue
			}
			numbers = append(numbers, e.Number)
			if e.Addr != e.Number || e.Size != 100 || e.Usable != 112 || e.Align != 16 || e.Thread != 5 || int64(e.Time) != 10*int64(e.Number) || uint64(len(e.Stack)) != e.Number%10 {
				t.Errorf("%+v", e)
			}
		}
		if !slices.Equal(numbers, []uint64{1, 2, 4, 5, 7, 8, 9, 10, 11, 12}) || !slices.Equal(lost, []uint64{3, 1, 6, 1, 13, 2}) {
			t.Errorf("%v, lost %v", numbers, lost)
		}
		if f.PID != 12 || f.Parent != 11 || f.Frames != 16 || f.Align != 16 || f.PageSize != 4096 || f.Program != "/bin/true" || f.Name != "true" || f.Resident != 1<<20 {
			t.Errorf("%+v", f.Header)
		}
		s := f.Symbols()
		for pc, want := range map[uint64]Frame{
			0x5001: {"a library+0x1001", "/a library", 0}, 0x6000: {"a library+0x2000", "/a library", 0}, 0x7010: {"b+0x10", "/b", 0}, 0x6001: {Function: "0x6001"},
		} {
			if got := s.Frame(pc, 1); got != want {
				t.Errorf("%#x is %+v, want %+v", pc, got, want)
			}
		}
	}
}

// TestDamaged: what is no file of a recorder, or was changed, is an error, after the events before.
func TestDamaged(t *testing.T) {
	whole := raw(binary.LittleEndian, 3, chunkOf{1, 2, 3})
	events := headerSize + 2*chunkSize + chunkHeader
	for name, c := range map[string]struct {
		change func(b []byte) []byte
		before int // events, and how often some are lost; -1 if it cannot be opened
	}{
		"empty":      {func([]byte) []byte { return nil }, -1},
		"header":     {func(b []byte) []byte { return b[:100] }, -1},
		"magic":      {func(b []byte) []byte { b[7]++; return b }, -1},
		"order":      {func(b []byte) []byte { b[8]++; return b }, -1},
		"chunks":     {func(b []byte) []byte { b[19] = 1; return b }, -1},
		"align":      {func(b []byte) []byte { b[32]++; return b }, -1},
		"kind":       {func(b []byte) []byte { b[events+44] = 9; return b }, 0},
		"alignment":  {func(b []byte) []byte { b[events+45] = 99; return b }, 0},
		"order back": {func(b []byte) []byte { b[events+recordSize+8] = 1; return b }, 1},
		"cut":        {func(b []byte) []byte { return b[:events+recordSize+8+40] }, 2},
	} {
		f, err := NewFile(bytes.NewReader(c.change(slices.Clone(whole))))
		read := 0
		if err == nil {
			for _, damage := range f.Events() {
				if err = damage; err == nil {
					read++
				}
			}
		} else {
			read = -1
		}
		if read != c.before || !errors.Is(err, ErrFormat) && name != "cut" {
			t.Errorf("%s: %d events, %v", name, read, err)
		}
	}
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, whole[:10], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
}

// FuzzFile: whatever a file has, reading it ends, and events are in order.
func FuzzFile(f *testing.F) {
	f.Add(raw(binary.LittleEndian, 3, chunkOf{1, 2, 13}))
	f.Add(raw(binary.BigEndian, 3, chunkOf{2, 5}, chunkOf{1, 3, 4}))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := NewFile(bytes.NewReader(b))
		if err != nil {
			return
		}
		symbols := file.Symbols()
		last, bytes := uint64(0), 0
		for e, err := range file.Events() {
			if err != nil {
				break
			}
			if e.Number <= last {
				t.Fatalf("event %d follows %d", e.Number, last)
			}
			last = e.Number
			if e.Lost > 0 {
				last += e.Lost - 1
				continue
			}
			bytes += recordSize
			for _, pc := range e.Stack {
				if pc%7 == 0 { // which reads files
					symbols.Frame(pc, e.Number)
				}
			}
		}
		if bytes > len(b) {
			t.Fatalf("%d bytes have events of %d", len(b), bytes)
		}
	})
}
