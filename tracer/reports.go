package tracer

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/internal/text"
)

// Reports returns a function that makes a span of each memory error that package guard or debug finds. It is for their
// Options.OnReport:
//
//	mem := guard.New(blockalloc.Default(), guard.Options{OnReport: tracer.Reports()})
//
// The span is named after the kind of error, such as "use after free". It is the root of a trace, for a report has no context.
// Its status is Error with the first line of the report, which can have 8 bytes of the block. Its attributes are
//
//	allocator.misuse.kind           string  "use after free", "overrun" and so on, by debug.Kind
//	allocator.misuse.found_by       string  guard.Catch, debug.Free and so on; only the package if a block left the quarantine
//	allocator.misuse.offset         By      where the access begins, from the start of the block; absent if there is no access
//	allocator.misuse.fault          bool    whether the processor refused the access; absent likewise
//	allocator.misuse.blocks         blocks  that were leaked; absent of other kinds
//	allocator.misuse.bytes          By      in these; absent likewise
//	allocator.block.address         string  of the block in hexadecimal; of a foreign free, of what was passed
//	allocator.block.size            By
//	allocator.block.align           By
//	error.type                      string  use_after_free, overrun, double_free and so on, by blockalloc.ErrorType
//	code.stacktrace                 string  who did the access that faulted, or else who called the function that found the error
//	allocator.allocated.stacktrace  string  who allocated the block
//	allocator.freed.stacktrace      string  who freed it
//
// A stack that is not known is absent. Calls of debug.Options.Skip are left out of stacks. A wrong free through a Proxy is a failed
// operation too: a [Region] and [Failures] make a span of that in the trace of the caller.
//
// With [WithLogs] each report is a log record too, the event allocator.misuse with the whole text, in the context of the span.
// [WithMaxFailures] bounds how many reports have a span. A sampler of the TracerProvider that drops traces drops these: give
// another one by [WithTracerProvider]. A process that ends after a report, as by guard.Options.Crash, must flush the
// TracerProvider before.
func Reports(opts ...Option) func(*debug.Report) {
	f := new(failures)
	f.init(newConfig(math.MaxInt, opts))
	return f.reported
}

// reported makes a span of a report, and a log record.
func (f *failures) reported(r *debug.Report) {
	ctx := context.Background()
	spanned := f.hasSpan(ctx)
	if !spanned && f.config.logs == nil {
		return
	}
	attributes := append(slices.Clip(f.config.attributes), reportAttributes(r)...)
	whole := r.Error()
	if spanned {
		line, _, _ := strings.Cut(whole, "\n")
		var span trace.Span
		ctx, span = f.config.tracer(ctx).Start(ctx, r.Kind.String(), trace.WithNewRoot(), trace.WithAttributes(attributes...))
		span.SetStatus(codes.Error, text.Text(line))
		defer span.End()
	}
	emitLog(ctx, f.config.logs, "allocator.misuse", slog.LevelError, whole, attributes...)
}

func reportAttributes(r *debug.Report) []attribute.KeyValue {
	place, foundBy := r.Block, r.By
	if r.Kind == debug.Foreign {
		place = r.Given
	}
	if r.Op != "" {
		foundBy += "." + r.Op
	}
	attributes := []attribute.KeyValue{
		attribute.String("allocator.misuse.kind", r.Kind.String()),
		attribute.String("allocator.misuse.found_by", foundBy),
		attribute.String("allocator.block.address", fmt.Sprintf("%#x", place.Addr)),
		attribute.Int64("allocator.block.size", bytes(place.Layout.Size)),
		attribute.Int64("allocator.block.align", bytes(place.Layout.Align)),
		attribute.String("error.type", blockalloc.ErrorType(r)),
	}
	switch r.Kind {
	case debug.Overrun, debug.Underrun, debug.UseAfterFree, debug.NotZeroed, debug.Interior:
		attributes = append(attributes, attribute.Int("allocator.misuse.offset", r.Offset), attribute.Bool("allocator.misuse.fault", r.Fault))
	case debug.Leak:
		attributes = append(attributes, attribute.Int("allocator.misuse.blocks", r.Blocks), attribute.Int64("allocator.misuse.bytes", r.Bytes))
	}
	for _, s := range []struct {
		name  string
		stack debug.Stack
	}{{"code.stacktrace", r.Now}, {"allocator.allocated.stacktrace", r.Allocated}, {"allocator.freed.stacktrace", r.Freed}} {
		if len(s.stack) > 0 {
			attributes = append(attributes, attribute.String(s.name, stackText(profileFrames(r.Frames(s.stack)))))
		}
	}
	return attributes
}

func profileFrames(frames []runtime.Frame) []heapprofile.Frame {
	list := make([]heapprofile.Frame, len(frames))
	for i, f := range frames {
		list[i] = heapprofile.Frame{Function: f.Function, File: f.File, Line: f.Line}
	}
	return list
}
