package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/rss"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/hooks/zlog"
	"github.com/alloctrace/alloctrace/tracer"
)

// sampled is how many events of a kind there are for each that is logged.
const sampled = 64

// indexer does the program's work. The report is complete if there is no error.
func indexer(ctx context.Context, o options, show progress) (report, error) {
	in, err := openFolder(o.dir)
	if err != nil {
		return report{}, err
	}
	out, err := openOutputs(o.out)
	if err != nil {
		return report{}, err
	}
	otel.SetTracerProvider(out.provider) // package tracer takes it from there

	profile := newProfile()
	mem := alloctrace.Wrap(blockalloc.Default(),
		alloctrace.WithName("indexer"),
		alloctrace.WithHooks(profile, hooks.Sample(zlog.New(out.logger()), sampled)),
	)
	r := report{Folder: in.dir, Log: out.log.Name()}
	w := &work{in: in, mem: mem, show: show}
	began := time.Now()

	ctx, root := tracer.Start(ctx, "indexer", mem)
	r.Trace.ID = trace.SpanContextFromContext(ctx).TraceID().String()
	err = w.run(ctx, root.Allocator(), o.query, &r)
	if err == nil {
		r.Profile, err = out.writeProfile(profile)
		if resident, err := rss.Read(mem); err == nil { // on Linux
			r.RSS = &resident
		}
	}
	if err == nil && o.leak {
		err = w.index.forget()
	}
	err = errors.Join(err, w.free(context.WithoutCancel(ctx), root.Allocator()))
	root.End()

	r.Seconds = time.Since(began).Seconds()
	r.End = mem.Stats()
	r.Leaks = leaksOf(profile)
	if live := mem.Close(); live != nil && !o.leak {
		err = errors.Join(err, fmt.Errorf("%w: they were allocated in %v", live, r.Leaks))
	}
	out.finishTrace(&r.Trace)
	return r, errors.Join(err, out.log.Close())
}

// work is what the phases of the program share.
type work struct {
	in    folder
	mem   counter.Source
	show  progress
	files *paths
	index index
}

// run scans, indexes and queries. Each phase is a region of mem.
func (w *work) run(ctx context.Context, mem blockalloc.Allocator, query []string, r *report) error {
	if err := w.scan(ctx, mem); err != nil {
		return err
	}
	if err := w.build(ctx, mem); err != nil {
		return err
	}
	r.Built = w.mem.Stats()
	r.Index = w.index.size()
	var err error
	r.Answers, err = w.query(ctx, mem, query)
	return err
}

func (w *work) scan(ctx context.Context, mem blockalloc.Allocator) error {
	ctx, region := tracer.Start(ctx, "scan", mem)
	defer region.End()
	w.files = newPaths(region.Allocator())
	var found atomic.Int64
	defer w.show.show(func() string { return fmt.Sprintf("scan: %d files", found.Load()) })()
	return w.in.walk(func(path string) error {
		found.Add(1)
		return errors.Join(context.Cause(ctx), w.files.add(path))
	})
}

func (w *work) build(ctx context.Context, mem blockalloc.Allocator) error {
	ctx, region := tracer.Start(ctx, "index", mem)
	defer region.End()
	total := w.files.len()
	defer w.show.show(func() string {
		s := w.mem.Stats()
		return fmt.Sprintf("index: %d of %d files, %s outside the Go heap in %d blocks",
			w.index.files.Load(), total, counter.FormatBytes(s.LiveBytes), s.LiveBlocks)
	})()
	return w.index.build(ctx, region.Allocator(), w.in, w.files)
}

func (w *work) query(ctx context.Context, mem blockalloc.Allocator, query []string) (answers []answer, err error) {
	ctx, region := tracer.Start(ctx, "query", mem)
	defer region.End()
	buffer := typed.NewVec[byte](region.Allocator())
	defer func() { err = errors.Join(err, buffer.Free()) }()
	for _, word := range query {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		a, err := ask(&w.index, w.in, w.files, word, buffer)
		if err != nil {
			return nil, err
		}
		answers = append(answers, a)
	}
	return answers, nil
}

func (w *work) free(ctx context.Context, mem blockalloc.Allocator) error {
	_, region := tracer.Start(ctx, "free", mem)
	defer region.End()
	return errors.Join(w.index.free(region.Allocator()), w.files.free(region.Allocator()))
}
