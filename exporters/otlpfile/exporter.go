// Package otlpfile writes OpenTelemetry spans as OTLP/JSON lines to a file, which the Upload tab of Jaeger's UI
// opens and whose lines any collector takes by OTLP/HTTP. It depends on the SDK and on neither protobuf nor gRPC:
//
//	provider, err := otlpfile.NewProvider("indexer", "trace.json")
//	if err != nil {
//		return err
//	}
//	// spans
//	err = provider.Shutdown(ctx) // an error if spans are not in the file
//
// [Send] sends a file to the Jaeger that the environment names. Package
// [github.com/alloctrace/alloctrace/exporters/otlp] sends spans while the program runs.
//
// # Lines
//
// A line is one OTLP request, {"resourceSpans":[…]}, in the JSON encoding of the OTLP specification: ids are hex in lower
// case, numbers of 64 bits are strings, times are nanoseconds since 1970, kinds and status codes are numbers. A request has
// what OpenTelemetry's own exporters send.
//
// Every string is valid UTF-8, because a receiver refuses all spans of a request if one string is not valid. Each byte that is
// not valid becomes U+FFFD. Names and attribute keys are cut to 1 KiB; attribute values and the descriptions of statuses to
// 16 KiB. A string that was cut ends in "…". If keys of one span become equal, they get a number, as in "key#2".
package otlpfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// An Exporter writes spans to a file or a stream. Its methods may be called concurrently. They wait for a write that is
// running, however long it takes.
type Exporter struct {
	mu     sync.Mutex
	out    output
	broken error // set once the last line can no longer be kept whole
	closed bool
	stats  Stats
	reason error // for the first span that was lost
}

var _ sdktrace.SpanExporter = (*Exporter)(nil)

// New returns an Exporter that writes to w and does not close it. If a write fails in the middle of a line, the Exporter writes
// nothing more, because it cannot remove the half line. For a file use [Create] or [CreateRotating]. New panics if w is nil.
func New(w io.Writer) *Exporter {
	if w == nil {
		panic("otlpfile: New(nil): pass an io.Writer, such as os.Stdout, or use Create for a file")
	}
	return &Exporter{out: stream{w}}
}

// ExportSpans writes the spans as one line with one call of Write, so that they need no flush. Instead of a line of more than
// 2 MiB it writes several, because collectors bound a request.
//
// If it returns an error, none of the spans is in the file, for example because the disk is full: what was written of them
// has been removed. A later call may succeed. ExportSpans returns an error if ctx has ended, and after Shutdown. It needs
// memory of some four times the size of the lines.
func (e *Exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if len(spans) == 0 {
		return nil
	}
	err := context.Cause(ctx)
	var lines []byte
	if err == nil {
		lines, err = appendLines(nil, spans)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil {
		err = e.write(lines)
	}
	if err == nil {
		e.stats.Spans += int64(len(spans))
		return nil
	}
	if e.stats.Lost == 0 {
		e.reason = err
	}
	e.stats.Lost += int64(len(spans))
	return fmt.Errorf("otlpfile: ExportSpans: %w", err)
}

var errClosed = errors.New("the exporter is shut down; shut it down after the last span")

// write writes whole lines or nothing. The caller has the lock.
func (e *Exporter) write(lines []byte) error {
	switch {
	case e.broken != nil:
		return e.broken
	case e.closed:
		return errClosed
	}
	n, err := e.out.Write(lines)
	if err != nil && n > 0 {
		if terr := takeBack(e.out, int64(n)); terr != nil {
			e.broken = fmt.Errorf("a half line could not be taken back (%w) after: %w", terr, err)
			return e.broken
		}
	}
	return err
}

// Err returns an error that says how many spans are not in the file, and why the first of them is not. It returns nil if all
// are there. The SDK prints the errors of ExportSpans and does not keep them.
func (e *Exporter) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stats.Lost == 0 {
		return nil
	}
	return fmt.Errorf("otlpfile: spans that are not in the file: %d (reason of the first: %w)", e.stats.Lost, e.reason)
}

// Stats counts what has become of an Exporter's spans and files.
type Stats struct {
	Spans int64 // written, also if their file was deleted since
	Lost  int64 // not written: Err has the reason

	// Of [CreateRotating]. The files that were deleted may be those of earlier runs.
	Files        int64 // begun
	DeletedFiles int64 // the oldest, to keep MaxTotalBytes
	DeletedBytes int64
}

// Stats returns the counts of this moment.
func (e *Exporter) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.stats
	if r, ok := e.out.(*rotatingFile); ok {
		s.Files, s.DeletedFiles, s.DeletedBytes = r.files, r.deletedFiles, r.deletedBytes
	}
	return s
}

// Close closes the file if [Create] or [CreateRotating] made the Exporter. The error is that of closing alone. Later calls do nothing.
func (e *Exporter) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	return e.out.Close()
}

// Shutdown is Close for the SDK: it closes the file, and returns the errors of Err and of closing. It does not use the context,
// because no spans wait to be written.
func (e *Exporter) Shutdown(context.Context) error {
	closed := e.Close()
	return errors.Join(e.Err(), closed)
}
