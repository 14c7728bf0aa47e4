package tracer

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/internal/text"
)

// A lifetime is what Lifetimes knows of a block, beside what the Profile knows.
type lifetime struct {
	allocatedIn trace.SpanContext
	tag         *tag // of the innermost region, nil if there is none
	attributes  []attribute.KeyValue

	mu       sync.Mutex // guards what follows
	freedIn  trace.SpanContext
	freedTag *tag
	ended    bool
	leaked   bool          // a checkpoint has reported it
	shownAt  time.Duration // the age at which a checkpoint shows it again
}

// A watcher is Lifetimes, which has no exported methods for it.
type watcher Lifetimes

var _ heapprofile.Watcher = (*watcher)(nil)

func (w *watcher) Sampled(ctx context.Context, b *heapprofile.Watched) {
	life := &lifetime{allocatedIn: trace.SpanContextFromContext(ctx), tag: tagOf(ctx)}
	if w.options.Attributes != nil {
		life.attributes = w.options.Attributes(ctx)
	}
	life.tag.add(b, 1)
	life.tag.sampled(b)
	b.Value = life
}

func (w *watcher) Freeing(ctx context.Context, b *heapprofile.Watched) {
	life := b.Value.(*lifetime)
	life.mu.Lock()
	defer life.mu.Unlock()
	life.freedIn, life.freedTag = trace.SpanContextFromContext(ctx), tagOf(ctx)
}

func (w *watcher) Freed(b *heapprofile.Watched) {
	(*Lifetimes)(w).end(b, time.Now(), false)
}

// end ends the life of a block once, with a span if there is budget. The block is live if l ends.
func (l *Lifetimes) end(b *heapprofile.Watched, now time.Time, live bool) {
	life := b.Value.(*lifetime)
	life.mu.Lock()
	defer life.mu.Unlock()
	if life.ended {
		return
	}
	life.ended = true
	if !live {
		life.tag.add(b, -1)
	}
	l.ended.Add(1)
	switch l.emit(b, now, live && !life.leaked && !l.longLived(b.Child), live) {
	case recordedSpan:
		l.spans.Add(1)
	case unrecordedSpan:
		l.unrecorded.Add(1)
	default:
		l.suppressed.Add(1)
	}
}

// An emission says what has become of a span.
type emission int

const (
	recordedSpan   emission = iota
	unrecordedSpan          // nobody sees it: by the provider's sampler, or without a provider
	suppressedSpan          // there was no budget
)

// emit makes a span of a block's life until now, if there is budget.
func (l *Lifetimes) emit(b *heapprofile.Watched, now time.Time, leaked, live bool) emission {
	if leaked && !l.config.budget.takeReserved() || !leaked && !l.config.budget.take() {
		return suppressedSpan
	}
	life := b.Value.(*lifetime)
	name := "block"
	attributes := append(make([]attribute.KeyValue, 0, 10+len(life.attributes)),
		attribute.Int64("allocator.block.size", bytes(b.Size)),
		attribute.Int64("allocator.block.align", bytes(b.Align)),
		attribute.Float64("allocator.block.weight", b.Weight),
		attribute.Bool("allocator.leaked", leaked),
		attribute.Bool("allocator.live", live),
		attribute.String("code.stacktrace", stackText(b.Stack())),
	)
	if b.Proxy != "" {
		attributes = append(attributes, attribute.String("allocator.name", text.Name(b.Proxy)))
	}
	if b.Child != "" {
		name += " " + text.Name(b.Child)
		attributes = append(attributes, attribute.String("allocator.child", text.Name(b.Child)))
	}
	if life.tag != nil {
		if name := life.tag.name; name != "" {
			attributes = append(attributes, attribute.String("allocator.region", text.Name(name)))
		}
		attributes = append(attributes, life.tag.more()...)
	}
	if of := life.freedTag; of != nil && of != life.tag && of.name != "" && !live {
		attributes = append(attributes, attribute.String("allocator.freed_by", text.Name(of.name)))
	}
	attributes = append(attributes, life.attributes...)
	var links []trace.Link
	if life.allocatedIn.IsValid() {
		links = append(links, trace.Link{SpanContext: life.allocatedIn, Attributes: []attribute.KeyValue{attribute.String("allocator.operation", "allocate")}})
	}
	if life.freedIn.IsValid() && !live {
		links = append(links, trace.Link{SpanContext: life.freedIn, Attributes: []attribute.KeyValue{attribute.String("allocator.operation", "free")}})
	}
	_, span := l.config.tracer(context.Background()).Start(context.Background(), name, trace.WithNewRoot(),
		trace.WithTimestamp(b.Allocated), trace.WithLinks(links...), trace.WithAttributes(attributes...))
	if leaked {
		why := fmt.Sprintf("a block of %d bytes is still live after %v", b.Size, now.Sub(b.Allocated).Round(time.Millisecond))
		span.SetStatus(codes.Error, why)
		emitLog(trace.ContextWithSpanContext(context.Background(), life.allocatedIn), l.config.logs, "allocator.leak", slog.LevelError, why, attributes...)
		l.leaked.Add(1)
	}
	recorded := span.IsRecording()
	span.End(trace.WithTimestamp(now))
	if !recorded {
		return unrecordedSpan
	}
	return recordedSpan
}

func (life *lifetime) liveBlock(b *heapprofile.Watched, now time.Time) LiveBlock {
	of := LiveBlock{
		Size: b.Size, Align: b.Align, Age: now.Sub(b.Allocated), Proxy: b.Proxy, Child: b.Child,
		RegionEnded: -1, Stack: b.Stack(),
	}
	if life.tag != nil {
		of.Region = life.tag.name
		if ended := life.tag.allEnded(); !ended.IsZero() {
			of.RegionEnded = now.Sub(ended)
		}
	}
	return of
}

// stackText is the value of code.stacktrace: a function with its file and line, as a
// traceback has them.
func stackText(frames []heapprofile.Frame) string {
	var s strings.Builder
	for _, f := range frames {
		fmt.Fprintf(&s, "%s\n\t%s:%d\n", f.Function, f.File, f.Line)
	}
	return text.Text(s.String())
}
