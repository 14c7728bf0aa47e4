// Package otlpfile writes OpenTelemetry spans as OTLP/JSON lines to a file, which the Upload tab of Jaeger's UI
// opens and whose lines any collector takes by OTLP/HTTP. It depends on the SDK and on neither protobuf nor gRPC:
//
//	provider, err := otlpfile.NewProvider("indexer", "trace.json")
//	if err != nil {
//		return err
//	}
//	// spans
//	err = provider.Shutdown(ctx) // says what is not in the file
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
// Every string is valid UTF-8, for a receiver refuses all spans of a request for one that is not. Each byte that is part of
// no rune becomes U+FFFD. Names and attribute keys are cut to 1 KiB; attribute values and the descriptions of statuses to
// 16 KiB. What was cut ends with "…". Keys of one span that become equal get a number, as in "key#2".
package otlpfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// An Exporter writes spans to a file or a stream. Its methods may be called concurrently; they wait for a write that is
// under way, however long it takes.
type Exporter struct {
	mu     sync.Mutex
	out    output
	broken error // set once the last line can no longer be kept whole
	closed bool
	lost   int64 // spans
	reason error // for the first that was lost
}

var _ sdktrace.SpanExporter = (*Exporter)(nil)

// New returns an Exporter that writes to w, which it does not close. After a write that fails in the middle of a line it
// writes nothing more, for the line cannot be taken back; [Create] is for files.
func New(w io.Writer) *Exporter {
	if w == nil {
		panic("otlpfile: New(nil): pass an io.Writer, such as os.Stdout, or use Create for a file")
	}
	return &Exporter{out: stream{w}}
}

// ExportSpans writes the spans as one line with one call of Write, so that they need no flush. A line of more than 2 MiB is
// cut into several, for what a collector takes is bounded.
//
// The error says why none of the spans is in the file, for example because the disk is full. What was written of them is
// taken back. A later call may succeed. ExportSpans does not begin once ctx has ended, and fails after Shutdown. It needs
// memory in proportion to the lines, some four times their size.
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
		return nil
	}
	if e.lost == 0 {
		e.reason = err
	}
	e.lost += int64(len(spans))
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

// Err returns an error that says how many spans are not in the file, and why the first of them is not; or nil if all
// are there. The SDK prints what ExportSpans returns, and forgets it.
func (e *Exporter) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lost == 0 {
		return nil
	}
	return fmt.Errorf("otlpfile: spans that are not in the file: %d (reason of the first: %w)", e.lost, e.reason)
}

// Close closes a file that [Create] made, and returns the error of that alone. Later calls do nothing.
func (e *Exporter) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	return e.out.Close()
}

// Shutdown is Close, and returns what Err says besides. The context is not used: nothing waits to be written but what a
// call of ExportSpans is writing.
func (e *Exporter) Shutdown(context.Context) error {
	closed := e.Close()
	return errors.Join(e.Err(), closed)
}
