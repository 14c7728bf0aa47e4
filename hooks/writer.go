package hooks

import (
	"context"
	"io"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/internal/text"
)

// A Writer is a Hook that prints each event as one line to an [io.Writer], for
// example [os.Stderr]:
//
//	allocated addr=0x7f0000400000 size=65536 align=65536
//	allocated addr=0x7f0000410000 size=4096 align=4096 child="cache"
//	allocate failed addr=0x0 size=4096 align=4096 err="out of memory"
//
// What a child Proxy does has its name.
//
// Each line is one Write, so that on a file opened for appending, a terminal or a
// pipe (up to 4 KiB) lines do not mix; the io.Writer must stand concurrent use, as
// an os.File does. Lines are valid UTF-8; of an error's text up to 16 KiB are printed. It allocates nothing and depends on nothing but its io.Writer.
type Writer struct {
	w    io.Writer
	lost atomic.Int64
}

var _ alloctrace.Attacher = (*Writer)(nil)

// NewWriter returns a Writer that prints to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Lost is the number of events that could not be written whole.
func (h *Writer) Lost() int64 { return h.lost.Load() }

// lines keeps the buffers: one on the stack would escape to the heap through the
// io.Writer.
var lines = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

// Observe prints e.
func (h *Writer) Observe(_ context.Context, e alloctrace.Event, err error) { h.print("", e, err) }

// Attach implements [alloctrace.Attacher].
func (h *Writer) Attach(to *alloctrace.Attachment) alloctrace.Hook {
	if to.Child == "" {
		return h
	}
	child := " child=" + strconv.Quote(text.Text(to.Child))
	return alloctrace.HookFunc(func(_ context.Context, e alloctrace.Event, err error) { h.print(child, e, err) })
}

// print prints e, of which more is to be said.
func (h *Writer) print(more string, e alloctrace.Event, err error) {
	buf := lines.Get().(*[]byte)
	line := appendEvent((*buf)[:0], more, e, err)
	if n, err := h.w.Write(line); err != nil || n < len(line) {
		h.lost.Add(1)
	}
	*buf = line
	lines.Put(buf)
}

func appendEvent(line []byte, more string, e alloctrace.Event, err error) []byte {
	line = append(line, e.Kind.String()...)
	line = append(line, " addr=0x"...)
	line = strconv.AppendUint(line, uint64(e.Addr), 16)
	line = append(line, " size="...)
	line = strconv.AppendUint(line, uint64(e.Size), 10)
	line = append(line, " align="...)
	line = strconv.AppendUint(line, uint64(e.Align), 10)
	line = append(line, more...)
	if err != nil {
		line = append(line, " err="...)
		line = strconv.AppendQuote(line, text.Text(err.Error()))
	}
	return append(line, '\n')
}
