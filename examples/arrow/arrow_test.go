package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/csv"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/arrowmem"
)

var _ memory.Allocator = (*arrowmem.Allocator)(nil)

// newBatch returns a batch of n rows in which each third number is null.
func newBatch(mem memory.Allocator, n int) arrow.RecordBatch {
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "n", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, {Name: "text", Type: arrow.BinaryTypes.String},
	}, nil)
	b := array.NewRecordBuilder(mem, schema)
	defer b.Release()
	for i := range n {
		if i%3 == 0 {
			b.Field(0).AppendNull()
		} else {
			b.Field(0).(*array.Int64Builder).Append(int64(i))
		}
		b.Field(1).(*array.StringBuilder).Append(strings.Repeat("x", i%50))
	}
	return b.NewRecordBatch()
}

// TestArrow has Arrow's packages work in our memory, and compares what they make with what they make in Arrow's own.
func TestArrow(t *testing.T) {
	const rows = 5000
	for name, work := range map[string]func(t *testing.T, ctx context.Context, mem memory.Allocator, batch arrow.RecordBatch) arrow.RecordBatch{
		"array": func(t *testing.T, _ context.Context, mem memory.Allocator, batch arrow.RecordBatch) arrow.RecordBatch {
			half := batch.NewSlice(rows/2, rows)
			defer half.Release()
			columns := make([]arrow.Array, 2)
			for i := range columns {
				c, err := array.Concatenate([]arrow.Array{half.Column(i), batch.Column(i)}, mem)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Release()
				columns[i] = c
			}
			return array.NewRecordBatch(batch.Schema(), columns, rows/2+rows)
		},
		"compute": func(t *testing.T, ctx context.Context, _ memory.Allocator, batch arrow.RecordBatch) arrow.RecordBatch {
			mask, err := compute.CallFunction(ctx, "greater", nil, compute.NewDatumWithoutOwning(batch.Column(0)), compute.NewDatum(int64(100)))
			if err != nil {
				t.Fatal(err)
			}
			defer mask.Release()
			filter := mask.(*compute.ArrayDatum).MakeArray()
			defer filter.Release()
			filtered, err := compute.FilterRecordBatch(ctx, batch, filter, compute.DefaultFilterOptions())
			if err != nil {
				t.Fatal(err)
			}
			return filtered
		},
		"ipc": func(t *testing.T, _ context.Context, mem memory.Allocator, batch arrow.RecordBatch) arrow.RecordBatch {
			var stream bytes.Buffer
			w := ipc.NewWriter(&stream, ipc.WithAllocator(mem), ipc.WithSchema(batch.Schema()), ipc.WithZstd())
			if err := errors.Join(w.Write(batch), w.Close()); err != nil {
				t.Fatal(err)
			}
			r, err := ipc.NewReader(&stream, ipc.WithAllocator(mem))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Release()
			return first(t, r)
		},
		"csv": func(t *testing.T, _ context.Context, mem memory.Allocator, batch arrow.RecordBatch) arrow.RecordBatch {
			var text bytes.Buffer
			w := csv.NewWriter(&text, batch.Schema(), csv.WithHeader(true), csv.WithNullWriter("NULL"))
			if err := errors.Join(w.Write(batch), w.Flush()); err != nil {
				t.Fatal(err)
			}
			r := csv.NewReader(&text, batch.Schema(), csv.WithAllocator(mem), csv.WithHeader(true), csv.WithChunk(-1), csv.WithNullReader(false, "NULL"))
			defer r.Release()
			return first(t, r)
		},
		"parquet": func(t *testing.T, ctx context.Context, mem memory.Allocator, batch arrow.RecordBatch) arrow.RecordBatch {
			var file bytes.Buffer
			w, err := pqarrow.NewFileWriter(batch.Schema(), &file, parquet.NewWriterProperties(parquet.WithAllocator(mem)),
				pqarrow.NewArrowWriterProperties(pqarrow.WithAllocator(mem), pqarrow.WithStoreSchema()))
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(w.Write(batch), w.Close()); err != nil {
				t.Fatal(err)
			}
			table, err := pqarrow.ReadTable(ctx, bytes.NewReader(file.Bytes()), parquet.NewReaderProperties(mem), pqarrow.ArrowReadProperties{Parallel: true}, mem)
			if err != nil {
				t.Fatal(err)
			}
			defer table.Release()
			r := array.NewTableReader(table, rows)
			defer r.Release()
			return first(t, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := func(mem memory.Allocator) (text string) {
				batch := newBatch(mem, rows)
				defer batch.Release()
				made := work(t, compute.WithAllocator(context.Background(), mem), mem, batch)
				defer made.Release()
				data, err := made.MarshalJSON()
				if err != nil {
					t.Fatal(err)
				}
				return string(data)
			}
			mem := arrowmem.New(alloctest.New(t, alloctest.WithSkip(arrowPackages)))
			got := in(mem)
			mem.AssertSize(t, 0)
			if want := in(memory.NewGoAllocator()); got != want {
				t.Errorf("%d bytes of JSON, want %d; or they differ", len(got), len(want))
			}
		})
	}
}

// first returns the first batch of a reader, which the caller releases.
func first(t *testing.T, r interface {
	Next() bool
	RecordBatch() arrow.RecordBatch
	Err() error
}) arrow.RecordBatch {
	t.Helper()
	if !r.Next() {
		t.Fatal("no batch", r.Err())
	}
	batch := r.RecordBatch()
	batch.Retain()
	if r.Next() || r.Err() != nil && !errors.Is(r.Err(), io.EOF) {
		t.Error("more than a batch, or an error", r.Err())
	}
	return batch
}

// TestOutOfMemory: where Arrow recovers, its error wraps that of the allocator.
func TestOutOfMemory(t *testing.T) {
	batch := newBatch(memory.NewGoAllocator(), 100_000)
	var file bytes.Buffer
	w, err := pqarrow.NewFileWriter(batch.Schema(), &file, nil, pqarrow.DefaultWriterProps())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Write(batch), w.Close()); err != nil {
		t.Fatal(err)
	}
	for name, work := range map[string]func(mem memory.Allocator) error{
		"array": func(mem memory.Allocator) error {
			_, err := array.Concatenate([]arrow.Array{batch.Column(1), batch.Column(1)}, mem)
			return err
		},
		"ipc": func(mem memory.Allocator) error {
			return ipc.NewWriter(io.Discard, ipc.WithAllocator(mem), ipc.WithSchema(batch.Schema()), ipc.WithZstd()).Write(batch)
		},
		"parquet": func(mem memory.Allocator) error {
			_, err := pqarrow.ReadTable(t.Context(), bytes.NewReader(file.Bytes()), parquet.NewReaderProperties(mem), pqarrow.ArrowReadProperties{}, mem)
			return err
		},
	} {
		limit := blockalloc.NewLimit(new(blockalloc.Heap), 64<<10)
		if err := work(arrowmem.New(limit)); !errors.Is(err, blockalloc.ErrLimit) || !errors.Is(err, blockalloc.ErrOutOfMemory) {
			t.Errorf("%s: %v, want an error of the Limit", name, err)
		}
	}
}

// TestBuffer does at random what Arrow's Buffers do, and compares their bytes with those of Arrow's own.
func TestBuffer(t *testing.T) {
	proxy := alloctest.New(t)
	mem := arrowmem.New(proxy)
	random := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		got, want := memory.NewResizableBuffer(mem), memory.NewResizableBuffer(memory.NewGoAllocator())
		for range 50 {
			n := int(random.Uint32() % 3000)
			switch random.Uint32() % 4 {
			case 0:
				got.Resize(n)
				want.Resize(n)
			case 1:
				got.ResizeNoShrink(n)
				want.ResizeNoShrink(n)
			case 2:
				got.Reserve(n)
				want.Reserve(n)
			case 3:
				text := bytes.Repeat([]byte{byte(n)}, n)
				got.Reset(text)
				want.Reset(text)
			}
			if got.Len() != want.Len() || got.Cap() != want.Cap() || !bytes.Equal(got.Bytes(), want.Bytes()) {
				t.Fatalf("%d of %d bytes, want %d of %d; or they differ", got.Len(), got.Cap(), want.Len(), want.Cap())
			}
		}
		got.Release()
		mem.AssertSize(t, 0)
	}
	if s := proxy.Stats(); s.Reallocations == 0 {
		t.Error("no buffer has grown")
	}
}
