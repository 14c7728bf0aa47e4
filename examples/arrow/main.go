// Arrow asks which packages have the longest comments, of real Parquet and CSV files that it makes of Go source code, by
// Apache Arrow's readers and compute functions. Every buffer of Arrow's is a block of one Proxy: each stage of the query
// is a span with the bytes that it took, in the Jaeger of OTEL_EXPORTER_OTLP_ENDPOINT or else in a file that Jaeger opens,
// and a buffer that was not released is shown with the line that had it allocated. At the end nothing may be live.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"go/build"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/otlp"
	"github.com/alloctrace/alloctrace/tracer"
)

// arrowPackages are left out of stacks where they are the innermost: who called Arrow is then shown.
const arrowPackages = "github.com/apache/arrow-go/..."

// kept is how many bytes of freed buffers keep their memory. The stages of a query seldom want buffers of the same sizes as those
// before them: with the Pool's own 64 MiB its peak of resident memory is a third higher, and it is no faster.
const kept = 8 << 20

type options struct {
	dir, out string
	size     int64 // of the text, in bytes
	min      int64 // of a comment, in bytes
	top      int
	leak     bool
}

func main() {
	var o options
	var mib int64
	flag.StringVar(&o.dir, "dir", filepath.Join(build.Default.GOROOT, "src"), "read the Go files below this `folder`")
	flag.StringVar(&o.out, "out", "", "write the Parquet, CSV and trace files into this `folder` (default: a new temporary one)")
	flag.Int64Var(&mib, "size", 16, "read this many `MiB` of text, or all there is")
	flag.Int64Var(&o.min, "min", 60, "ask for comments of at least this many `bytes`")
	flag.IntVar(&o.top, "top", 5, "show this many `packages`")
	flag.BoolVar(&o.leak, "leak", false, "forget to release an array, and find out who allocated it")
	flag.Parse()
	if mib <= 0 || mib > 1<<20 || o.top < 0 || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "arrow: use a -size from 1 to 1048576 MiB, a -top from 0 on, and no arguments beside flags")
		os.Exit(2)
	}
	o.size = mib << 20
	r, err := run(context.Background(), o)
	if err == nil {
		err = r.write(os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "arrow:", err)
		os.Exit(1)
	}
}

// A report is what the program has to say in the end.
type report struct {
	input   input
	answers []answer
	stages  []stage
	leak    string        // what was live at the end, "" if nothing was
	end     counter.Stats // of all
	seconds float64
	out     string
	traceID string
	warning error // why the trace may not be where it should be
}

// run makes the files, asks the query, and checks that nothing is live. With options.leak what is live is reported.
func run(ctx context.Context, o options) (r report, err error) {
	if r.out, err = folder(o.out); err != nil {
		return r, err
	}
	where := otlp.Options{ServiceName: "arrow"}
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT")+os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
		where.File = filepath.Join(r.out, "trace.json")
	}
	spans, err := otlp.New(ctx, where)
	if err != nil {
		return r, err
	}
	lives := tracer.NewLifetimes(tracer.LifetimeOptions{Rate: 1, Skip: []string{arrowPackages}, TracerProvider: spans})
	pool := &blockalloc.Pool{MaxCached: kept}
	slab, err := blockalloc.NewSlab(pool, 64<<10) // many buffers are small
	if err != nil {
		return r, errors.Join(err, spans.Shutdown(ctx))
	}
	mem := alloctrace.Wrap(slab, alloctrace.WithName("arrow"), alloctrace.WithHooks(lives))
	began := time.Now()
	err = r.work(ctx, o, &query{mem: mem, options: o, spans: spans})
	r.seconds = time.Since(began).Seconds()
	r.end = mem.Stats()
	if live := mem.Close(); live != nil {
		r.leak = lives.Profile().Report().String()
		if !o.leak {
			err = errors.Join(err, fmt.Errorf("%w\n%s", live, r.leak))
		}
	} else {
		err = errors.Join(err, slab.Close(), pool.Close())
	}
	lives.Close()
	r.warning = spans.Shutdown(ctx)
	return r, err
}

func (r *report) work(ctx context.Context, o options, q *query) (err error) {
	ctx, region := tracer.Start(ctx, "query", q.mem, tracer.WithTracerProvider(q.spans))
	defer region.End()
	r.traceID = trace.SpanContextFromContext(ctx).TraceID().String()
	r.input, err = q.generate(ctx, r.out)
	if err == nil {
		r.answers, err = q.run(ctx, r.out)
	}
	r.stages = q.stages
	return err
}

// folder makes the folder, or a temporary one if it has no name.
func folder(name string) (string, error) {
	if name == "" {
		return os.MkdirTemp("", "arrow-")
	}
	return name, os.MkdirAll(name, 0o777)
}

func (r *report) write(w io.Writer) error {
	text := fmt.Appendf(nil, "%d lines of %d files, %s; %d packages have long comments; %.1f s\n\n",
		r.input.lines, r.input.files, counter.FormatBytes(r.input.bytes), len(r.answers), r.seconds)
	for _, a := range r.answers[:min(len(r.answers), r.input.top)] {
		text = fmt.Appendf(text, "%-24s %6d comments of %8d bytes, the longest: %.60s…\n", a.pkg, a.comments, a.bytes, a.longest)
	}
	text = fmt.Appendf(text, "\n%-10s %8s %8s %12s %12s %12s\n", "stage", "buffers", "grown", "allocated", "peak", "left")
	for _, s := range r.stages {
		text = fmt.Appendf(text, "%-10s %8d %8d %12s %12s %12s\n", s.name, s.Allocations, s.Reallocations,
			counter.FormatBytes(s.AllocatedBytes), counter.FormatBytes(s.PeakBytes), counter.FormatBytes(s.LiveBytes))
	}
	text = fmt.Appendf(text, "\nlive at the end: %d buffers of %d bytes\n%s", r.end.LiveBlocks, r.end.LiveBytes, r.leak)
	text = fmt.Appendf(text, "files: %s; trace: %s\n", r.out, r.traceID)
	if r.warning != nil {
		text = fmt.Appendf(text, "warning: %v\n", r.warning)
	}
	_, err := w.Write(text)
	return err
}
