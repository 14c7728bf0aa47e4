package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/csv"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
)

// The kinds of lines.
const (
	blank int8 = iota
	code
	comment
)

// The columns of lines.parquet, a row a line, and files.csv, a row a file, by their numbers.
const (
	lineFile = iota // the row of the file in files.csv
	lineKind
	lineLength
	lineText
)
const (
	filePackage = iota
	filePath
	fileLines
)

var (
	lineSchema = arrow.NewSchema([]arrow.Field{
		{Name: "file", Type: arrow.PrimitiveTypes.Int32},
		{Name: "kind", Type: arrow.PrimitiveTypes.Int8},
		{Name: "length", Type: arrow.PrimitiveTypes.Int64},
		{Name: "text", Type: arrow.BinaryTypes.String},
	}, nil)
	fileSchema = arrow.NewSchema([]arrow.Field{
		{Name: "package", Type: arrow.BinaryTypes.String},
		{Name: "path", Type: arrow.BinaryTypes.String},
		{Name: "lines", Type: arrow.PrimitiveTypes.Int64},
	}, nil)
)

// groupRows is how many lines a row group of Parquet has.
const groupRows = 64 << 10

// An input is what the files were made of.
type input struct {
	files, lines, bytes int64
	top                 int // how many answers are shown
}

// generate makes the files of Go code, as much as is asked for.
func (q *query) generate(ctx context.Context, out string) (in input, err error) {
	in.top = q.options.top
	err = q.stage(ctx, "generate", func(_ context.Context, mem memory.Allocator) (err error) {
		w, err := newWriter(mem, out)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, w.close()) }()
		source := os.DirFS(q.options.dir)
		err = fs.WalkDir(source, ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || path.Ext(name) != ".go" {
				return err
			}
			text, err := fs.ReadFile(source, name)
			if err != nil {
				return err
			}
			text = text[:min(int64(len(text)), q.options.size-in.bytes)]
			n, err := w.file(name, text)
			in.files, in.lines, in.bytes = in.files+1, in.lines+n, in.bytes+int64(len(text))
			if err == nil && in.bytes >= q.options.size {
				return fs.SkipAll
			}
			return err
		})
		if err == nil && in.files == 0 {
			err = fmt.Errorf("no Go file is below %s: name another folder by -dir", q.options.dir)
		}
		return err
	})
	return in, err
}

// A writer makes both files.
type writer struct {
	lines, files *array.RecordBuilder
	parquet      *pqarrow.FileWriter
	csv          *csv.Writer
	csvFile      *os.File
}

func newWriter(mem memory.Allocator, out string) (*writer, error) {
	p, err := os.Create(filepath.Join(out, "lines.parquet"))
	if err != nil {
		return nil, err
	}
	props := parquet.NewWriterProperties(parquet.WithAllocator(mem), parquet.WithCompression(compress.Codecs.Snappy))
	w, err := pqarrow.NewFileWriter(lineSchema, p, props, pqarrow.NewArrowWriterProperties(pqarrow.WithAllocator(mem), pqarrow.WithStoreSchema()))
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	c, err := os.Create(filepath.Join(out, "files.csv"))
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return &writer{
		lines: array.NewRecordBuilder(mem, lineSchema), files: array.NewRecordBuilder(mem, fileSchema),
		parquet: w, csv: csv.NewWriter(c, fileSchema, csv.WithHeader(true)), csvFile: c,
	}, nil
}

// file adds the lines of a file, and returns how many there are.
func (w *writer) file(name string, text []byte) (n int64, err error) {
	number := int32(w.files.Field(filePackage).Len())
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, "\r\n")
		kind, trimmed := code, bytes.TrimSpace(line)
		switch {
		case len(trimmed) == 0:
			kind = blank
		case bytes.HasPrefix(trimmed, []byte("//")):
			kind = comment
		}
		w.lines.Field(lineFile).(*array.Int32Builder).Append(number)
		w.lines.Field(lineKind).(*array.Int8Builder).Append(kind)
		w.lines.Field(lineLength).(*array.Int64Builder).Append(int64(len(trimmed)))
		w.lines.Field(lineText).(*array.StringBuilder).Append(strings.ToValidUTF8(string(trimmed), "\ufffd"))
		if n++; w.lines.Field(lineFile).Len() == groupRows {
			if err := w.group(); err != nil {
				return n, err
			}
		}
	}
	w.files.Field(filePackage).(*array.StringBuilder).Append(path.Dir(name))
	w.files.Field(filePath).(*array.StringBuilder).Append(name)
	w.files.Field(fileLines).(*array.Int64Builder).Append(n)
	return n, nil
}

// group writes a row group, unless there is no line.
func (w *writer) group() error {
	if w.lines.Field(lineFile).Len() == 0 {
		return nil
	}
	batch := w.lines.NewRecordBatch()
	defer batch.Release()
	return w.parquet.Write(batch)
}

func (w *writer) close() error {
	defer w.lines.Release()
	defer w.files.Release()
	err := w.group()
	files := w.files.NewRecordBatch()
	defer files.Release()
	return errors.Join(err, w.csv.Write(files), w.csv.Flush(), w.csvFile.Close(), w.parquet.Close())
}
