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
	text := "@3\n5000-6000 r-xp 00001000 08:01 7 /a library\n7000-8000 r-xp 00000000 08:01 8 /b (deleted)\n@5\n7000-8000 r-xp 00000000 08:01 9 /c\n"
	c := order.AppendUint64(order.AppendUint32(order.AppendUint32(nil, chunkMaps), uint32(len(text))), 0)
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
		var progress []int64
		f.Progress = func(read, size int64) { progress = append(progress, read*100/size) }
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
		if !slices.Equal(progress, []int64{33, 66, 100, 100}) {
			t.Errorf("%d %% were read", progress)
		}
		if !slices.Equal(numbers, []uint64{1, 2, 4, 5, 7, 8, 9, 10, 11, 12}) || !slices.Equal(lost, []uint64{3, 1, 6, 1, 13, 2}) {
			t.Errorf("%v, lost %v", numbers, lost)
		}
		if f.PID != 12 || f.Parent != 11 || f.Frames != 16 || f.Align != 16 || f.PageSize != 4096 || f.Program != "/bin/true" || f.Name != "true" || f.Resident != 1<<20 {
			t.Errorf("%+v", f.Header)
		}
		s := f.Symbols(make(Modules))
		for pc, want := range map[uint64]Frame{
			0x5001: {"a library+0x1001", "/a library", 0}, 0x6000: {"a library+0x2000", "/a library", 0}, 0x7010: {"b (deleted)+0x10", "/b (deleted)", 0}, 0x6001: {Function: "0x6001"},
		} {
			if got := s.Frame(pc, 1); got != want {
				t.Errorf("%#x is %+v, want %+v", pc, got, want)
			}
		}
		if got, want := s.Frame(0x7010, 5), (Frame{"c+0x10", "/c", 0}); got != want {
			t.Errorf("0x7010 is %+v later, want %+v", got, want)
		}
	}
}

// TestDamaged: what is no file of a recorder, or was changed, is an error, after the events before. It says at which byte.
func TestDamaged(t *testing.T) {
	whole := raw(binary.LittleEndian, 3, chunkOf{1, 2, 3})
	maps := headerSize + chunkSize
	events := maps + chunkSize + chunkHeader
	set := func(at int, n uint64) func(b []byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint64(b[at:], n); return b }
	}
	for name, c := range map[string]struct {
		change func(b []byte) []byte
		before int // events, and how often some are lost; -1 if it cannot be opened
		says   string
	}{
		"empty":       {func([]byte) []byte { return nil }, -1, "header is cut off"},
		"header":      {func(b []byte) []byte { return b[:100] }, -1, "header is cut off"},
		"magic":       {func(b []byte) []byte { b[7]++; return b }, -1, "does not begin with"},
		"order":       {func(b []byte) []byte { b[8]++; return b }, -1, "order of its bytes"},
		"chunks":      {func(b []byte) []byte { b[19] = 1; return b }, -1, "its chunks 16777816"},
		"align":       {func(b []byte) []byte { b[32]++; return b }, -1, "malloc aligns to 17"},
		"many":        {set(nameAt+nameSize, 1<<63), -1, "9223372036854775808 events"},
		"kind":        {func(b []byte) []byte { b[events+44] = 9; return b }, 0, "event 1, at byte 66752, is damaged"},
		"alignment":   {func(b []byte) []byte { b[events+45] = 99; return b }, 0, "event 1, at byte 66752, is damaged"},
		"order back":  {set(events+recordSize+8, 1), 1, "at byte 66808 event 1 comes after event 1"},
		"number":      {set(events+recordSize+8, 1<<64-1), 1, "at byte 66808 event 18446744073709551615 comes after event 1"},
		"cut header":  {func(b []byte) []byte { return b[:events-1] }, 1, "the chunk at byte 66736 is cut off"},
		"cut first":   {func(b []byte) []byte { return b[:events+30] }, 1, "the chunk at byte 66736 is cut off at byte 66782"},
		"cut":         {func(b []byte) []byte { return b[:events+recordSize+8+40] }, 2, "the chunk at byte 66736 is cut off at byte 66848"},
		"cut stack":   {func(b []byte) []byte { return b[:events+recordSize+8+recordSize+8] }, 2, "the chunk at byte 66736 is cut off at byte 66864"},
		"cut maps":    {func(b []byte) []byte { return b[:maps+100] }, 1, "the chunk at byte 66136 is cut off"},
		"many maps":   {func(b []byte) []byte { b[maps+7] = 255; return b }, 3, "the chunk at byte 66136 has 4278190"},
		"no number":   {func(b []byte) []byte { b[maps+chunkHeader+1] = 'x'; return b }, 3, "the chunk at byte 66136 has maps of event \"x\\n\""},
		"cut and cut": {func(b []byte) []byte { b[maps+7] = 255; return b[:events+30] }, 1, "the chunk at byte 66136 has 4278190"},
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
		if read != c.before || !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %d events, %v", name, read, err)
		}
	}
	broken := errors.New("broken")
	for _, at := range []int{0, headerSize, maps, maps + chunkHeader, events - chunkHeader} {
		f, err := NewFile(brokenFrom{bytes.NewReader(whole), int64(at), broken})
		if err == nil {
			for _, damage := range f.Events() {
				err = damage
			}
		}
		if !errors.Is(err, broken) {
			t.Errorf("of a file that cannot be read at byte %d: %v", at, err)
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

// A brokenFrom cannot be read from a byte on.
type brokenFrom struct {
	*bytes.Reader
	at  int64
	err error
}

func (b brokenFrom) ReadAt(p []byte, offset int64) (int, error) {
	if n := max(0, b.at-offset); int64(len(p)) > n {
		n, _ := b.Reader.ReadAt(p[:n], offset)
		return n, b.err
	}
	return b.Reader.ReadAt(p, offset)
}

// FuzzFile: whatever a file has, reading it ends, and events are in order. Inputs are without what is empty of a header.
func FuzzFile(f *testing.F) {
	const used = nameAt + nameSize + 16
	for _, b := range [][]byte{
		raw(binary.LittleEndian, 3, chunkOf{1, 2, 13}),
		raw(binary.BigEndian, 3, chunkOf{2, 5}, chunkOf{1, 3, 4}),
		raw(binary.LittleEndian, 9, chunkOf{1, 1<<64 - 1}, chunkOf{1<<64 - 1}),
	} {
		f.Add(slices.Concat(b[:used], b[headerSize:]))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= used {
			b = slices.Concat(b[:used], make([]byte, headerSize-used), b[used:])
		}
		file, err := NewFile(bytes.NewReader(b))
		if err != nil {
			return
		}
		symbols := file.Symbols(make(Modules))
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
