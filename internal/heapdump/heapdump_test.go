package heapdump_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/heapdump"
)

// own returns a dump of this program.
func own(t testing.TB) []byte {
	t.Helper()
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		t.Skip("debug.WriteHeapDump writes nothing here")
	}
	f, err := os.CreateTemp(t.TempDir(), "dump")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	debug.WriteHeapDump(f.Fd())
	dump, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return dump
}

var (
	global = []byte("the memory of an object, which a dump must have")
	blocks = make(chan struct{})
)

//go:noinline
func waits(value []byte, started chan<- struct{}) byte {
	started <- struct{}{}
	<-blocks
	return value[0]
}

// TestOwn: a dump of this program has an object of it with what is in it, a variable that points to it, and a goroutine that waits.
func TestOwn(t *testing.T) {
	value := bytes.Clone(global)
	started := make(chan struct{})
	go waits(value, started)
	<-started
	defer close(blocks)
	runtime.GC() // the goroutine has come to its wait by then, or is on the way
	for {
		stack := make([]byte, 64<<10)
		if strings.Contains(string(stack[:runtime.Stack(stack, true)]), "chan receive]:\n"+"github.com/alloctrace/alloctrace/internal/heapdump_test.waits") {
			break
		}
		runtime.Gosched()
	}
	r, err := heapdump.NewReader(bytes.NewReader(own(t)))
	if err != nil {
		t.Fatal(err)
	}
	var found, variable, waiting, frame bool
	var last heapdump.Record
	want := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(value))))
	addr := uint64(uintptr(unsafe.Pointer(&global)))
	for {
		rec, err := r.Next(func(rec *heapdump.Record, offset uint64, piece []byte) {
			at := rec.Addr + offset
			if rec.Kind == heapdump.Object && at <= want && want < at+uint64(len(piece)) {
				found = bytes.HasPrefix(piece[want-at:], value)
			}
			if rec.Kind == heapdump.Data || rec.Kind == heapdump.BSS {
				variable = variable || at <= addr && addr < at+uint64(len(piece))
			}
		})
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch rec.Kind {
		case heapdump.Goroutine:
			last = rec
		case heapdump.Frame:
			if name := runtime.FuncForPC(uintptr(rec.PC)).Name(); strings.HasSuffix(name, ".waits") {
				frame = true
				waiting = last.Status == heapdump.Waiting && last.Reason == "chan receive" && last.ID > 0 && !last.System
			}
		}
	}
	if r.WordSize != int(unsafe.Sizeof(uintptr(0))) || !found || !variable || !frame || !waiting {
		t.Errorf("words of %d bytes, the object found: %v, the variable: %v, the frame: %v, its goroutine waiting: %v (%+v)", r.WordSize, found, variable, frame, waiting, last)
	}
	runtime.KeepAlive(value)
}

// readAll reads a dump, and returns how many bytes of memory it has.
func readAll(dump []byte) (size uint64, err error) {
	r, err := heapdump.NewReader(bytes.NewReader(dump))
	for err == nil {
		_, err = r.Next(func(_ *heapdump.Record, _ uint64, piece []byte) { size += uint64(len(piece)) })
	}
	if err == io.EOF {
		err = nil
	}
	return size, err
}

// TestDamaged: a dump that ends early is an error, wherever it does, and so is what is no dump.
func TestDamaged(t *testing.T) {
	dump := own(t)
	if _, err := readAll(dump); err != nil {
		t.Fatal(err)
	}
	step := max(1, len(dump)/200)
	for n := 0; n < len(dump); n += step {
		if _, err := readAll(dump[:n]); !errors.Is(err, heapdump.ErrDamaged) || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("of %d bytes the first %d gave %v", len(dump), n, err)
		}
	}
	for _, wrong := range []string{"go1.3 heap dump\n", "go1.7 heap dump\n\x63", "go1.7 heap dump\n\x06\x00\x07"} {
		if _, err := readAll([]byte(wrong)); !errors.Is(err, heapdump.ErrDamaged) || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q gave %v", wrong, err)
		}
	}
}

// FuzzReader: whatever a dump has, reading it ends, with no more memory than there is in it.
func FuzzReader(f *testing.F) {
	const begin = "go1.7 heap dump\n"
	f.Add([]byte(begin + "\x06\x00\x08\x00\x00\x05amd64\x06go1.26\x02\x01\x10\x08abcdefgh\x01\x00\x00\x00"))
	f.Add([]byte(begin + "\x01\x10\xff\xff\xff\xff\xff\xff\xff\xff\x7f"))
	f.Add([]byte(begin + "\x10\x01\x01\xff\xff\x03"))
	f.Add([]byte(begin + "\x04\x01\x02\x03\x04\x04\x00\x00\x05\x04wait\x01\x02\x03\x04\x05\x08\x00\x00\x04abcd\x01\x02\x03\x01f\x00\x00"))
	f.Fuzz(func(t *testing.T, dump []byte) {
		size, err := readAll(dump)
		if size > uint64(len(dump)) {
			t.Errorf("%d bytes of memory in a dump of %d", size, len(dump))
		}
		if err != nil && !errors.Is(err, heapdump.ErrDamaged) {
			t.Error(err)
		}
	})
}
