package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"path"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/otlpfile"
	"github.com/alloctrace/alloctrace/hooks/blackbox"
)

const (
	scopeName = "github.com/alloctrace/alloctrace/exporters/cmd/alloctrace"

	mostProxies = 50               // that have a span
	mostHolders = 10               // that a peak has
	noLength    = time.Microsecond // of what is a moment: Jaeger takes a span without a length for a mistake
)

// writeOTLP writes the contents as one trace, with so many of the last events, or all if it is less than 0.
func writeOTLP(w io.Writer, c *blackbox.Contents, events int) error {
	return otlpfile.New(w).ExportSpans(context.Background(), traceOf(c, events).Snapshots())
}

// traceOf returns the root first, which is the process, then what was live, the most bytes first, the peak, and the other Proxies.
// The same box has the same ids each time.
func traceOf(c *blackbox.Contents, events int) tracetest.SpanStubs {
	s := &spans{of: c, ids: sha256.Sum256(fmt.Append(nil, c.PID, c.Created.UnixNano(), c.Build.ID)), resource: resourceOf(c)}
	root := s.add(fmt.Sprintf("process %d", c.PID), c.Created, ended(c), rootAttributes(c)...)
	if c.Closed.IsZero() {
		root.Status = sdktrace.Status{Code: codes.Error, Description: "not closed: the process was killed, has crashed, or still runs"}
	}
	first := firstEvent(c, events)
	root.DroppedEvents = first
	root.Events = eventsOf(c, c.Events[first:])
	for _, site := range c.Live.Sites[:min(len(c.Live.Sites), mostSites)] {
		s.add("live: "+holder(site), c.Created, c.Live.Time, siteAttributes(site)...)
	}
	if !c.Peak.Time.IsZero() {
		s.add("peak", c.Peak.Time, c.Peak.Time, peakAttributes(c.Peak)...)
	}
	for _, p := range c.Proxies[min(len(c.Proxies), 1):min(len(c.Proxies), mostProxies)] {
		name := "allocator " + p.Name
		if p.Child != "" {
			name = "child " + p.Child
		}
		s.add(name, c.Created, c.Written, proxyAttributes(p)...)
	}
	return s.list
}

// spans are those of a trace.
type spans struct {
	of       *blackbox.Contents
	ids      [sha256.Size]byte
	resource *resource.Resource
	list     tracetest.SpanStubs
}

// add appends a span below the root, or the root itself. What it returns is good until the next call.
func (s *spans) add(name string, from, to time.Time, attributes ...attribute.KeyValue) *tracetest.SpanStub {
	span := tracetest.SpanStub{
		Name: name, SpanKind: trace.SpanKindInternal, StartTime: from, EndTime: to, Attributes: attributes,
		SpanContext: s.context(len(s.list)), Resource: s.resource, InstrumentationScope: instrumentation.Scope{Name: scopeName},
	}
	if to.Sub(from) < noLength {
		span.EndTime = from.Add(noLength)
	}
	if len(s.list) > 0 {
		span.Parent = s.context(0)
	}
	s.list = append(s.list, span)
	return &s.list[len(s.list)-1]
}

func (s *spans) context(n int) trace.SpanContext {
	of := trace.SpanContextConfig{TraceID: trace.TraceID(s.ids[:16]), TraceFlags: trace.FlagsSampled}
	binary.BigEndian.PutUint64(of.SpanID[:], binary.BigEndian.Uint64(s.ids[16:])+uint64(n))
	return trace.NewSpanContext(of)
}

// ended returns the last time of which the box knows anything.
func ended(c *blackbox.Contents) time.Time {
	last := c.Closed
	for _, t := range []time.Time{c.Created, c.Written, c.Live.Time} {
		if t.After(last) {
			last = t
		}
	}
	for _, e := range c.Events {
		if e.Time.After(last) {
			last = e.Time
		}
	}
	return last
}

// resourceOf is the process. The service has the name of its program.
func resourceOf(c *blackbox.Contents) *resource.Resource {
	b := c.Build
	name := strings.TrimSuffix(base(b.Executable), ".exe")
	if b.Executable == "" {
		name = "unknown_service"
	}
	list := []attribute.KeyValue{attribute.String("service.name", name), attribute.Int("process.pid", c.PID)}
	for key, value := range map[attribute.Key]string{
		"service.version": b.Version, "process.executable.path": b.Executable, "process.executable.build_id.go": b.ID,
		"process.runtime.version": b.Go, "os.type": b.Settings["GOOS"], "vcs.ref.head.revision": b.Settings["vcs.revision"],
	} {
		if value != "" {
			list = append(list, key.String(value))
		}
	}
	return resource.NewSchemaless(list...)
}

// base returns the last element of a path of any system.
func base(file string) string { return path.Base(strings.ReplaceAll(file, `\`, "/")) }

func rootAttributes(c *blackbox.Contents) (list []attribute.KeyValue) {
	if len(c.Proxies) > 0 {
		list = proxyAttributes(c.Proxies[0])
	}
	list = append(list, attribute.Int("allocator.blackbox.events", len(c.Events)), attribute.Int("allocator.blackbox.gapless", len(c.Events)-c.Gapless))
	if n := c.Live.Omitted + max(0, len(c.Live.Sites)-mostSites); n > 0 {
		list = append(list, attribute.Int("allocator.blackbox.sites_omitted", n))
	}
	if n := c.Omitted + max(0, len(c.Proxies)-mostProxies); n > 0 {
		list = append(list, attribute.Int("allocator.blackbox.proxies_omitted", n))
	}
	if len(c.Damage) > 0 {
		list = append(list, attribute.StringSlice("allocator.blackbox.damage", c.Damage))
	}
	return list
}

func proxyAttributes(p blackbox.Proxy) []attribute.KeyValue {
	s := p.Stats
	return append(named(p.Name, p.Child),
		attribute.Int64("allocator.memory.live", s.LiveBytes), attribute.Int64("allocator.memory.live_blocks", s.LiveBlocks),
		attribute.Int64("allocator.memory.peak", s.PeakBytes),
		attribute.Int64("allocator.memory.allocated", s.AllocatedBytes), attribute.Int64("allocator.memory.freed", s.FreedBytes),
		attribute.Int64("allocator.allocations", s.Allocations), attribute.Int64("allocator.reallocations", s.Reallocations),
		attribute.Int64("allocator.frees", s.Frees), attribute.Int64("allocator.failures", s.Failures()))
}

func named(proxy, child string) (list []attribute.KeyValue) {
	if proxy != "" {
		list = append(list, attribute.String("allocator.name", proxy))
	}
	if child != "" {
		list = append(list, attribute.String("allocator.child", child))
	}
	return list
}

func siteAttributes(s blackbox.Site) []attribute.KeyValue {
	list := live(s.Bytes, s.Error, s.Blocks)
	for _, l := range s.Labels {
		key := "allocator.label." + l.Key
		if l.Key == "allocator" {
			key = "allocator.child"
		}
		list = append(list, attribute.String(key, l.Value))
	}
	var stack strings.Builder
	for _, f := range s.Stack {
		fmt.Fprintf(&stack, "%s\n\t%s:%d\n", f.Function, f.File, f.Line)
	}
	if stack.Len() > 0 {
		list = append(list, attribute.String("code.stacktrace", stack.String()))
	}
	return list
}

// live says what was live. The error is the standard error of an estimate.
func live(bytes, standardError, blocks int64) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.Int64("allocator.memory.live", bytes), attribute.Int64("allocator.memory.live_error", standardError),
		attribute.Int64("allocator.memory.live_blocks", blocks),
	}
}

func peakAttributes(p blackbox.Sites) []attribute.KeyValue {
	var holders []string
	for _, s := range p.Sites[:min(len(p.Sites), mostHolders)] {
		holders = append(holders, counter.FormatBytes(s.Bytes)+owner(s.Labels)+": "+calls(s.Stack, mostCalls))
	}
	return append(live(p.Bytes, p.Error, p.Blocks), attribute.StringSlice("allocator.blackbox.holders", holders))
}

// holder returns the function that allocated, as index.(*Index).grow.
func holder(s blackbox.Site) string {
	if len(s.Stack) == 0 {
		return "unknown"
	}
	return base(s.Stack[0].Function)
}

func eventsOf(c *blackbox.Contents, events []blackbox.Event) (list []sdktrace.Event) {
	for _, e := range events {
		at := e.Time
		if at.IsZero() { // the file is damaged there
			at = c.Created
		}
		attributes := append(named("", e.Child),
			attribute.String("allocator.operation", e.Kind.Op()), attribute.String("allocator.addr", fmt.Sprintf("%#x", e.Addr)),
			attribute.Int64("allocator.size", signed(e.Size)), attribute.Int64("allocator.align", signed(e.Align)))
		if e.Err != "" {
			attributes = append(attributes, attribute.String("allocator.error", e.Err))
		}
		list = append(list, sdktrace.Event{Name: e.Kind.String(), Time: at, Attributes: attributes})
	}
	return list
}

// signed returns n, or the largest there is.
func signed(n uint64) int64 { return int64(min(n, math.MaxInt64)) }
