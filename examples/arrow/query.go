package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/csv"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc/arrowmem"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/tracer"
)

// A query runs in stages.
type query struct {
	mem     *alloctrace.Proxy
	options options
	spans   trace.TracerProvider
	plain   memory.Allocator // if it is set, Arrow has this, and nothing is counted: what benchmarks compare with
	stages  []stage
}

// A stage is what a stage allocated until its end. Arrow frees a buffer through the allocator that it came from: what a
// later stage releases was left by this one.
type stage struct {
	name string
	counter.Stats
}

// stage runs f in a region, with an allocator that the region counts.
func (q *query) stage(ctx context.Context, name string, f func(ctx context.Context, mem memory.Allocator) error) error {
	if q.plain != nil {
		return f(compute.WithAllocator(ctx, q.plain), q.plain)
	}
	ctx, region := tracer.Start(ctx, name, q.mem, tracer.WithTracerProvider(q.spans))
	defer region.End()
	mem := arrowmem.New(region.Allocator())
	err := f(compute.WithAllocator(ctx, mem), mem)
	q.stages = append(q.stages, stage{name, region.Stats()})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// An answer is what a package has of comments that are long enough.
type answer struct {
	pkg             string
	comments, bytes int64
	longest         string
}

// run asks:
//
//	select package, count(*), sum(length), max(text by length) from lines join files
//	where kind = comment and length >= min group by package order by sum(length) desc
func (q *query) run(ctx context.Context, dir string) (answers []answer, err error) {
	var all owned
	defer all.release()
	var packages arrow.Array // by file
	var lines arrow.Table
	err = q.stage(ctx, "read", func(ctx context.Context, mem memory.Allocator) (err error) {
		if packages, err = readPackages(mem, filepath.Join(dir, "files.csv")); err != nil {
			return err
		}
		all.own(packages)
		if lines, err = readLines(ctx, mem, filepath.Join(dir, "lines.parquet")); err == nil {
			all.own(lines)
		}
		return err
	})
	if err != nil || lines.NumRows() == 0 { // of which Arrow cannot filter the texts
		return nil, err
	}
	var c comments
	defer c.release()
	if err := q.stage(ctx, "filter", func(ctx context.Context, mem memory.Allocator) (err error) {
		c, err = filter(ctx, mem, lines, q.options.min)
		return err
	}); err != nil {
		return nil, err
	}
	if err := q.stage(ctx, "join", func(ctx context.Context, _ memory.Allocator) (err error) {
		c.packages, err = compute.TakeArray(ctx, packages, c.files)
		return err
	}); err != nil {
		return nil, err
	}
	err = q.stage(ctx, "aggregate", func(ctx context.Context, mem memory.Allocator) (err error) {
		answers, err = q.aggregate(ctx, mem, &c)
		return err
	})
	return answers, err
}

// owned are things to release.
type owned []interface{ Release() }

func (o *owned) own(r interface{ Release() }) { *o = append(*o, r) }

func (o *owned) release() {
	for _, r := range *o {
		r.Release()
	}
}

// readPackages returns the column of packages of files.csv.
func readPackages(mem memory.Allocator, path string) (arrow.Array, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := csv.NewReader(f, fileSchema, csv.WithAllocator(mem), csv.WithHeader(true), csv.WithChunk(-1))
	defer r.Release()
	if !r.Next() {
		return nil, errors.Join(fmt.Errorf("%s has no rows", path), r.Err())
	}
	column := r.RecordBatch().Column(filePackage)
	column.Retain()
	return column, nil
}

// readLines returns lines.parquet, whose columns are read at the same time.
func readLines(ctx context.Context, mem memory.Allocator, path string) (arrow.Table, error) {
	f, err := file.OpenParquetFile(path, false, file.WithReadProps(parquet.NewReaderProperties(mem)))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{Parallel: true, BatchSize: groupRows}, mem)
	if err != nil {
		return nil, err
	}
	return r.ReadTable(ctx)
}

// comments are columns with a row for each comment.
type comments struct{ files, lengths, texts, packages arrow.Array }

func (c *comments) release() {
	for _, column := range []arrow.Array{c.files, c.lengths, c.texts, c.packages} {
		if column != nil {
			column.Release()
		}
	}
}

// filter returns the lines that are comments of at least min bytes. It has no packages yet.
func filter(ctx context.Context, mem memory.Allocator, lines arrow.Table, min int64) (c comments, err error) {
	column := func(i int) compute.Datum { return compute.NewDatumWithoutOwning(lines.Column(i).Data()) }
	isComment, err := compute.CallFunction(ctx, "equal", nil, column(lineKind), compute.NewDatum(comment))
	if err != nil {
		return c, err
	}
	defer isComment.Release()
	isLong, err := compute.CallFunction(ctx, "greater_equal", nil, column(lineLength), compute.NewDatum(min))
	if err != nil {
		return c, err
	}
	defer isLong.Release()
	mask, err := compute.CallFunction(ctx, "and", nil, isComment, isLong)
	if err != nil {
		return c, err
	}
	defer mask.Release()
	for _, from := range []struct {
		column int
		to     *arrow.Array
	}{{lineFile, &c.files}, {lineLength, &c.lengths}, {lineText, &c.texts}} {
		filtered, err := compute.Filter(ctx, column(from.column), mask, *compute.DefaultFilterOptions())
		if err != nil {
			return c, err
		}
		if chunks := filtered.(*compute.ChunkedDatum).Chunks(); len(chunks) > 0 {
			*from.to, err = array.Concatenate(chunks, mem)
		} else {
			*from.to = array.MakeArrayOfNull(mem, lineSchema.Field(from.column).Type, 0)
		}
		filtered.Release()
		if err != nil {
			return c, err
		}
	}
	return c, nil
}

// aggregate sorts the comments by package, and adds up the lengths of each.
func (q *query) aggregate(ctx context.Context, mem memory.Allocator, c *comments) ([]answer, error) {
	var all owned
	defer all.release()
	order, err := compute.SortIndicesArray(ctx, c.packages, compute.DefaultSortKey())
	if err != nil {
		return nil, err
	}
	all.own(order)
	var sorted [3]arrow.Array // packages, lengths, texts
	for i, column := range []arrow.Array{c.packages, c.lengths, c.texts} {
		if sorted[i], err = compute.TakeArray(ctx, column, order); err != nil {
			return nil, err
		}
		all.own(sorted[i])
	}
	sums, err := compute.CumulativeSum(ctx, compute.CumulativeOptions{}, compute.NewDatumWithoutOwning(sorted[1]))
	if err != nil {
		return nil, err
	}
	all.own(sums)
	packages := sorted[0].(*array.String)
	ends := groupEnds(mem, packages)
	if !q.options.leak {
		all.own(ends)
	}
	upTo := sums.(*compute.ArrayDatum).MakeArray().(*array.Int64)
	all.own(upTo)

	answers := make([]answer, 0, ends.Len())
	first, before := 0, int64(0)
	for _, end := range ends.Int64Values() {
		last := int(end) - 1
		answers = append(answers, answer{
			pkg: strings.Clone(packages.Value(last)), comments: end - int64(first), bytes: upTo.Value(last) - before, // not of Arrow's memory
			longest: longest(sorted[1].(*array.Int64), sorted[2].(*array.String), first, last),
		})
		first, before = last+1, upTo.Value(last)
	}
	slices.SortFunc(answers, func(a, b answer) int {
		return cmp.Or(cmp.Compare(b.bytes, a.bytes), strings.Compare(a.pkg, b.pkg))
	})
	return answers, nil
}

// groupEnds returns where each run of equal values ends.
func groupEnds(mem memory.Allocator, sorted *array.String) *array.Int64 {
	b := array.NewInt64Builder(mem)
	defer b.Release()
	for i := 1; i <= sorted.Len(); i++ {
		if i == sorted.Len() || sorted.Value(i) != sorted.Value(i-1) {
			b.Append(int64(i))
		}
	}
	return b.NewInt64Array()
}

// longest returns the text of the first of the longest rows.
func longest(lengths *array.Int64, texts *array.String, first, last int) string {
	best := first
	for i := first; i <= last; i++ {
		if lengths.Value(i) > lengths.Value(best) {
			best = i
		}
	}
	return strings.Clone(texts.Value(best))
}
