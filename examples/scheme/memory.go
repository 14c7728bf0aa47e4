package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/pprof"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/examples/scheme/immix"
	"github.com/alloctrace/alloctrace/exporters/otlpfile"
	exporter "github.com/alloctrace/alloctrace/exporters/pprof"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/tracer"
)

// service is the name under which Jaeger lists the traces.
const service = "scheme"

// spansPerSecond bounds the spans of collections. A program that has hardly any memory left collects all the time.
const spansPerSecond = 200

// A memory is what a Scheme's blocks come from, and what sees them.
type memory struct {
	o       options
	proxy   *alloctrace.Proxy
	profile *heapprofile.Profile // nil without -pprof

	provider *sdktrace.TracerProvider // nil without -trace
	ctx      context.Context          // of the program
	region   *tracer.Region
	tracing  []tracer.Option
}

// newMemory begins the region of a program.
func newMemory(o options, program string) (*memory, error) {
	mem := &memory{o: o, ctx: context.Background()}
	opts := []alloctrace.Option{alloctrace.WithName(service)}
	if o.prof != "" {
		mem.profile = heapprofile.New(heapprofile.Options{Rate: 1}) // a block is 32 KiB or more: all of them
		opts = append(opts, alloctrace.WithHooks(mem.profile))
	}
	mem.proxy = alloctrace.Wrap(blockalloc.NewLimit(blockalloc.Default(), o.limit), opts...)
	if o.trace != "" {
		var err error
		if mem.provider, err = otlpfile.NewProvider(service, o.trace); err != nil {
			return nil, err
		}
		mem.tracing = []tracer.Option{tracer.WithTracerProvider(mem.provider)}
		mem.ctx, mem.region = tracer.Start(mem.ctx, "program "+filepath.Base(program), mem.proxy, mem.tracing...)
		mem.tracing = append(mem.tracing, tracer.WithBudget(tracer.NewBudget(spansPerSecond)))
	}
	return mem, nil
}

// forProcedure is the allocator for a block that is allocated while the named procedure runs.
func (mem *memory) forProcedure(name string) blockalloc.Allocator {
	switch {
	case mem.profile != nil && name != "":
		return mem.proxy.WithContext(pprof.WithLabels(mem.ctx, pprof.Labels("procedure", name)))
	case mem.region != nil:
		return mem.region.Allocator()
	}
	return mem.proxy
}

// heapOptions make each collection a region, inside that of the program.
func (mem *memory) heapOptions() immix.Options {
	if mem.region == nil {
		return immix.Options{}
	}
	return immix.Options{Around: func(collect func(blockalloc.Allocator) immix.Collection) {
		_, region := tracer.Start(mem.ctx, "collection", mem.proxy, mem.tracing...)
		defer region.End()
		region.SetAttributes(attributes(collect(region.Allocator()))...)
	}}
}

func attributes(c immix.Collection) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.Int64("heap.objects.before", c.Before), // bytes, and so are the next three
		attribute.Int64("heap.objects.live", c.Live),
		attribute.Int64("heap.blocks.before", c.HeldBefore),
		attribute.Int64("heap.blocks.after", c.Held),
		attribute.Int64("heap.live", c.Objects), // counts from here on
		attribute.Int64("heap.moved", c.Moved),
		attribute.Int("heap.evacuated", c.Evacuees),
		attribute.Int("heap.recyclable", c.Recyclable),
		attribute.Int("heap.free", c.Free),
	}
}

// atEnd is called when the program has ended, and its memory is still there.
func (mem *memory) atEnd(h *immix.Heap) error {
	if mem.region != nil {
		_, n := h.Last()
		mem.region.SetAttributes(attribute.Int("heap.collections", n))
	}
	if mem.profile != nil {
		return exporter.WriteFile(mem.o.prof, mem.profile)
	}
	return nil
}

// shutdownTimeout bounds the sending of the trace to Jaeger, which may be down.
const shutdownTimeout = 3 * time.Second

// close ends the region. If the trace does not reach Jaeger, that is a warning: the program has done its work.
func (mem *memory) close() (warning, err error) {
	err = mem.proxy.Close() // an error if blocks are live
	if mem.provider == nil {
		return nil, err
	}
	mem.region.End()
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if e := mem.provider.Shutdown(ctx); e != nil {
		return nil, errors.Join(err, e)
	}
	if _, e := otlpfile.Send(ctx, mem.o.trace); e != nil {
		warning = fmt.Errorf("the trace is in %s, and not in Jaeger: %w", mem.o.trace, e)
	}
	return warning, err
}
