// Quickstart counts the words of Go source files outside the Go heap, and makes that memory visible: by counters for each
// part of the program, a log, a trace and a profile. It reads the files and folders that its arguments name, or the standard
// library. A larger program is examples/indexer.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/build"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"unicode"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
	"github.com/alloctrace/alloctrace/exporters/otlpfile"
	"github.com/alloctrace/alloctrace/exporters/pprof"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/hooks/zlog"
	"github.com/alloctrace/alloctrace/tracer"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, paths []string, out io.Writer) error {
	if len(paths) == 0 {
		paths = []string{build.Default.GOROOT + "/src/"} // with the slash also if src is a link
	}
	spans, err := otlpfile.NewProvider("quickstart", "quickstart.trace.json") // servers: otlp.New
	if err != nil {
		return err
	}
	otel.SetTracerProvider(spans)
	profile, log := heapprofile.New(heapprofile.Options{}), hooks.Sample(zlog.New(zerolog.New(os.Stderr)), 16) // failures all, else one in 16
	mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithHooks(log, profile))

	err = count(ctx, mem, paths, out, func() error { return pprof.WriteFile("quickstart.pprof", profile) })
	fmt.Fprintf(out, "end    %v\n", mem.Stats())
	if err = errors.Join(err, mem.Close(), spans.Shutdown(ctx)); err != nil { // Close fails if blocks are live
		return err
	}
	fmt.Fprintln(out, "\nnext:\n  go tool pprof -top quickstart.pprof")
	fmt.Fprintln(out, "  Jaeger: Search, Upload, quickstart.trace.json; or service quickstart if OTEL_EXPORTER_OTLP_ENDPOINT is set")
	_, err = otlpfile.Send(ctx, "quickstart.trace.json") // to that Jaeger, if the variable is set
	return err
}

// count reads the files into one child of mem, and counts their words in another. Its region is a span of what both allocate in ctx.
func count(ctx context.Context, mem *alloctrace.Proxy, paths []string, out io.Writer, whileLive func() error) (err error) {
	ctx, region := tracer.Start(ctx, "count", mem)
	defer region.End()
	text := typed.NewBuffer(mem.Child("text").WithContext(ctx))
	words := typed.NewBytesMap[int](mem.Child("words").WithContext(ctx))
	defer func() { err = errors.Join(err, text.Free(), words.Free()) }()
	for _, root := range paths {
		if err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || path != root && filepath.Ext(path) != ".go" {
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = text.ReadFrom(f)
			return err
		}); err != nil {
			return err
		}
	}
	for word := range bytes.FieldsFuncSeq(text.Bytes(), func(r rune) bool { return !unicode.IsLetter(r) }) {
		n, _, err := words.Ensure(word)
		if err != nil {
			return err
		}
		*n++
	}
	fmt.Fprintf(out, "%d different words\nwhole  %v\n", words.Len(), mem.Stats())
	for _, part := range mem.Children() {
		fmt.Fprintf(out, "%-6s %v\n", part.Name(), part.Stats())
	}
	return whileLive()
}
