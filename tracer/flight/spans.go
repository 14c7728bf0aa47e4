package flight

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/text"
)

const (
	spanChildren = 16
	spanBlocks   = 64
	spanFailures = 16
	spanHolders  = 10
	maxHolder    = 4 << 10 // bytes, for up to 16 calls

	shortest = time.Microsecond // Jaeger takes a span without a length for a mistake
)

func spanContext(ctx context.Context) trace.SpanContext { return trace.SpanContextFromContext(ctx) }

// trace makes spans of a record.
func (r *Recorder) trace(rec *record) {
	provider := r.options.TracerProvider
	if provider == nil {
		provider = otel.GetTracerProvider()
	}
	t := spans{tracer: provider.Tracer(ScopeName)}
	options := []trace.SpanStartOption{trace.WithNewRoot(), trace.WithTimestamp(rec.from)}
	if rec.span.IsValid() {
		options = append(options, trace.WithLinks(trace.Link{SpanContext: rec.span}))
	}
	ctx, root := t.tracer.Start(context.Background(), "allocator flight record", options...)
	defer root.End(trace.WithTimestamp(rec.to.Add(shortest)))
	if !root.IsRecording() {
		return
	}
	root.SetAttributes(rec.attributes()...)
	if rec.err != nil {
		root.SetStatus(codes.Error, text.Text(rec.err.Error()))
	}
	t.below(ctx, rec)
}

type spans struct{ tracer trace.Tracer }

// below makes the spans below the root.
func (t spans) below(ctx context.Context, rec *record) {
	contexts := make(map[string]context.Context)
	for _, c := range rec.byChild {
		if c.name == "" || len(contexts) == spanChildren {
			continue
		}
		attributes := append(c.attributes(), attribute.String("allocator.child", text.Name(c.name)))
		if s, ok := rec.children[c.name]; ok {
			attributes = append(attributes, live(s.LiveBytes, s.LiveBlocks)...)
		}
		contexts[c.name] = t.span(ctx, "child "+text.Name(c.name), c.from, c.to, nil, attributes...)
	}
	in := func(child string) context.Context {
		if c := contexts[child]; c != nil {
			return c
		}
		return ctx
	}
	for _, b := range rec.largest() {
		t.span(in(b.child), "block", b.from, b.to, nil,
			attribute.Int64("allocator.size", attributeOf(b.size)), attribute.Int64("allocator.align", attributeOf(b.align)), attribute.Bool("allocator.live", b.live))
	}
	for _, f := range rec.failures[max(0, len(rec.failures)-spanFailures):] {
		t.span(in(f.Child), f.Kind.Op(), f.Time, f.Time, f.Err,
			attribute.String("allocator.operation", f.Kind.Op()), attribute.Int64("allocator.size", attributeOf(f.Size)),
			attribute.Int64("allocator.align", attributeOf(f.Align)), attribute.String("error.type", blockalloc.ErrorType(f.Err)))
	}
}

func (t spans) span(ctx context.Context, name string, from, to time.Time, err error, attributes ...attribute.KeyValue) context.Context {
	ctx, span := t.tracer.Start(ctx, name, trace.WithTimestamp(from), trace.WithAttributes(attributes...))
	if err != nil {
		span.SetStatus(codes.Error, text.Text(err.Error()))
	}
	if to.Sub(from) < shortest {
		to = from.Add(shortest)
	}
	span.End(trace.WithTimestamp(to))
	return ctx
}

// largest returns the largest blocks, in the order in which they were allocated.
func (rec *record) largest() []life {
	if len(rec.blocks) <= spanBlocks {
		return rec.blocks
	}
	list := slices.Clone(rec.blocks)
	slices.SortStableFunc(list, func(a, b life) int { return cmp.Compare(b.size, a.size) })
	list = list[:spanBlocks]
	slices.SortStableFunc(list, func(a, b life) int { return a.from.Compare(b.from) })
	return list
}

// attributes are those of the root.
func (rec *record) attributes() []attribute.KeyValue {
	list := rec.totals.attributes()
	add := func(a ...attribute.KeyValue) { list = append(list, a...) }
	if rec.proxy != "" {
		add(attribute.String("allocator.name", text.Name(rec.proxy)))
	}
	add(attribute.String("allocator.flight.trigger", rec.trigger),
		attribute.String("allocator.flight.reason", text.Text(rec.why())),
		attribute.Int("allocator.flight.events", len(rec.events)))
	if rec.region != "" {
		add(attribute.String("allocator.flight.region", text.Name(rec.region)))
	}
	if omitted := len(rec.blocks) - spanBlocks; omitted > 0 {
		add(attribute.Int("allocator.flight.blocks_omitted", omitted))
	}
	if rec.suppressed > 0 {
		add(attribute.Int64("allocator.flight.suppressed", rec.suppressed))
	}
	if rec.stats != nil {
		add(live(rec.stats.LiveBytes, rec.stats.LiveBlocks)...)
		add(attribute.Int64("allocator.memory.peak", rec.stats.PeakBytes))
	}
	if rec.holders != nil {
		var holders []string
		for _, s := range rec.holders.Sites[:min(len(rec.holders.Sites), spanHolders)] {
			holders = append(holders, text.Valid(s.String(), maxHolder))
		}
		add(attribute.StringSlice("allocator.flight.holders", holders))
	}
	return list
}

func live(size, blocks int64) []attribute.KeyValue {
	return []attribute.KeyValue{attribute.Int64("allocator.memory.live", size), attribute.Int64("allocator.memory.live_blocks", blocks)}
}

func (t totals) attributes() []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.Int64("allocator.memory.allocated", t.in),
		attribute.Int64("allocator.memory.freed", t.out),
		attribute.Int64("allocator.memory.net", t.net()),
		attribute.Int64("allocator.allocations", t.allocations),
		attribute.Int64("allocator.reallocations", t.reallocations),
		attribute.Int64("allocator.frees", t.frees),
		attribute.Int64("allocator.failures", t.failures),
	}
}

// attributeOf is an attribute's value of a size, the largest there is where size is larger.
func attributeOf(size uintptr) int64 { return int64(min(uint64(size), math.MaxInt64)) }
