package main

import (
	"encoding/csv"
	"io"
	"strconv"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/alloctrace/alloctrace/exporters/recording/history"
)

// rowGroup is how many rows of a Parquet file are held in memory at a time.
const rowGroup = 1 << 17

// tableVersion is that of the columns, which are only ever added to.
const tableVersion = "1"

// A row is one of a table, which CSV and Parquet have with the same columns.
type row[T any] interface {
	*T
	columns() []string
}

func (e *export) csv(out io.Writer, in *history.Recording) (history.Unknown, error) {
	if e.blocks {
		return writeCSV(out, in, e.blockRows)
	}
	return writeCSV(out, in, e.events)
}

func (e *export) parquet(out io.Writer, in *history.Recording) (history.Unknown, error) {
	if e.blocks {
		return writeParquet(out, in, "blocks", e.blockRows)
	}
	return writeParquet(out, in, "events", e.events)
}

func writeCSV[T any, R row[T]](out io.Writer, in *history.Recording, rows func(*history.Recording, func(R)) history.Unknown) (history.Unknown, error) {
	w := csv.NewWriter(out)
	var names []string
	for _, path := range parquet.SchemaOf(new(T)).Columns() {
		names = append(names, path[0])
	}
	_ = w.Write(names) // w.Error returns what fails
	unknown := rows(in, func(r R) { _ = w.Write(r.columns()) })
	w.Flush()
	return unknown, w.Error()
}

func writeParquet[T any, R row[T]](out io.Writer, in *history.Recording, table string, rows func(*history.Recording, func(R)) history.Unknown) (unknown history.Unknown, err error) {
	h := in.Header()
	w := parquet.NewGenericWriter[T](out, parquet.Compression(&parquet.Zstd), parquet.MaxRowsPerRowGroup(rowGroup),
		parquet.CreatedBy("alloctrace", tableVersion, ""),
		parquet.KeyValueMetadata("alloctrace.table", table), parquet.KeyValueMetadata("alloctrace.version", tableVersion),
		parquet.KeyValueMetadata("alloctrace.program", h.Program), parquet.KeyValueMetadata("alloctrace.pid", strconv.Itoa(h.PID)),
		parquet.KeyValueMetadata("alloctrace.began", h.Began.UTC().Format(time.RFC3339Nano)))
	buffer := make([]T, 0, 1024)
	write := func() {
		if err == nil {
			_, err = w.Write(buffer)
		}
		buffer = buffer[:0]
	}
	unknown = rows(in, func(r R) {
		if buffer = append(buffer, *r); len(buffer) == cap(buffer) {
			write()
		}
	})
	write()
	if closed := w.Close(); err == nil {
		err = closed
	}
	return unknown, err
}
