// Indexer indexes a folder of text files, the Go standard library unless told
// otherwise, and keeps the index outside the Go heap, in blocks of one allocator
// wrapped by alloctrace. It shows what that makes visible: counters while the
// program works and at its end, a log of sampled events, a trace of its phases
// for Jaeger, and, with -leak, which part of the program forgot a block.
//
//	go run ./examples/indexer [-dir DIR] [-leak] [-json] [-out DIR] [-query words]
//
// Spans go to a file that Jaeger's user interface opens. If
// OTEL_EXPORTER_OTLP_ENDPOINT is set, for example to http://localhost:4318, they
// are sent to that Jaeger too, by HTTP.
//
// The exit code is 0 if all went well, the leak of -leak included; 1 if
// something failed; 2 if the command line makes no sense; 130 after Ctrl-C.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	os.Exit(command(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// options are what the command line says.
type options struct {
	dir, out   string
	leak, json bool
	query      []string
}

// command runs the program and returns its exit code.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	r, err := indexer(ctx, o, newProgress(stderr))
	if err != nil {
		code := 1
		if errors.Is(err, context.Canceled) {
			err = fmt.Errorf("interrupted: live at the end: %d bytes", r.End.LiveBytes)
			code = 130
		}
		fmt.Fprintln(stderr, "indexer:", err)
		if r.Log != "" {
			fmt.Fprintln(stderr, "indexer: what was logged and traced until then is in", filepath.Dir(r.Log))
		}
		return code
	}
	if r.Trace.Warning != "" {
		fmt.Fprintln(stderr, "indexer: warning:", strings.ReplaceAll(r.Trace.Warning, "\n", "; "))
	}
	write := r.writeText
	if o.json {
		write = r.writeJSON
	}
	if err := write(stdout); err != nil {
		fmt.Fprintln(stderr, "indexer:", err)
		return 1
	}
	return 0
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("indexer", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.dir, "dir", "", "index the text files in this `folder` (default: the Go standard library)")
	flags.StringVar(&o.out, "out", "", "write the log and the trace into this `folder` (default: a new temporary one)")
	flags.BoolVar(&o.leak, "leak", false, "forget one block, and find out who allocated it")
	flags.BoolVar(&o.json, "json", false, "print the report as JSON")
	query := flags.String("query", "mmap goroutine deadlock", "look up these `words`")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	text := []byte(*query)
	fold(text)
	for word := range words(text) {
		o.query = append(o.query, string(word))
	}
	var err error
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q: name the folder with -dir and the words with -query", flags.Arg(0))
	case len(o.query) == 0:
		err = fmt.Errorf("-query %q has no word in it: use letters, digits and underscores", *query)
	}
	if err != nil {
		fmt.Fprintln(stderr, "indexer:", err)
	}
	return o, err
}
