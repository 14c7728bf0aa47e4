// Scheme is a small Scheme, R7RS without what README.md lists, whose objects are outside the Go heap: in
// a garbage-collected heap of 32 KiB blocks that are aligned to their size, in memory that alloctrace sees.
//
//	go run ./examples/scheme [-limit MIB] [-stats] [-trace FILE] [-pprof FILE] [FILE.scm [ARGUMENT ...]]
//
// Without a file it reads from the standard input and prints what each form is. With -trace, each
// program and each collection is a span in a file that Jaeger's user interface opens. If
// OTEL_EXPORTER_OTLP_ENDPOINT is set, for example to http://localhost:4318, they are sent to that Jaeger too. With -pprof,
// a file for go tool pprof says which procedure of the program took the blocks that are in use at its end.
//
// The exit code is that of the procedure exit, 0 at the end, 1 after an error that the program does not handle, 2
// if the command line makes no sense, and 130 after Ctrl-C.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/examples/scheme/vm"
)

func main() {
	os.Exit(command(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// options are what the command line says.
type options struct {
	limit       int64 // bytes
	stats       bool
	trace, prof string // files, "" for none
	file        string // "" for the standard input
	args        []string
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("scheme", flag.ContinueOnError)
	flags.SetOutput(stderr)
	limit := flags.Int64("limit", 256, "let the heap and the stack take at most this many `MiB`")
	flags.BoolVar(&o.stats, "stats", false, "print at the end what was allocated outside the Go heap")
	flags.StringVar(&o.trace, "trace", "", "write a span of each program and collection to this `file`")
	flags.StringVar(&o.prof, "pprof", "", "write which procedures took the memory that is in use at the end to this `file`")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if *limit < 1 || *limit > 1<<20 {
		err := fmt.Errorf("-limit %d: it is between 1 and %d MiB", *limit, 1<<20)
		fmt.Fprintln(stderr, "scheme:", err)
		return o, err
	}
	o.limit = *limit << 20
	o.args = flags.Args()
	if len(o.args) > 0 {
		o.file = o.args[0]
	}
	return o, nil
}

// command runs the program and returns its exit code.
func command(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	program := "standard input"
	text := ""
	if o.file != "" {
		b, err := os.ReadFile(o.file)
		if err != nil {
			fmt.Fprintln(stderr, "scheme:", err)
			return 1
		}
		program, text = o.file, string(b)
	}
	in := bufio.NewReader(stdin)
	mem, err := newMemory(o, program)
	if err != nil {
		fmt.Fprintln(stderr, "scheme:", err)
		return 1
	}
	code := 1
	m, err := vm.New(vm.Options{Memory: mem.forProcedure, Heap: mem.heapOptions(), In: in, Out: stdout, Args: commandLine(o)})
	if err != nil {
		fmt.Fprintln(stderr, "scheme:", err)
	} else {
		stop := onInterrupt(m.Interrupt)
		if o.file != "" {
			err = m.Run(strings.NewReader(text), nil)
			code = exitCode(err, o.file, stderr)
		} else {
			code = repl(m, in, stdout, stderr)
		}
		stop()
		_, collections := m.Heap().Last()
		if err := errors.Join(mem.atEnd(m.Heap()), m.Close()); err != nil {
			fmt.Fprintln(stderr, "scheme:", err)
			code = 1
		}
		if o.stats {
			printStats(stderr, mem.proxy.Stats(), collections)
		}
	}
	warning, err := mem.close()
	if warning != nil {
		fmt.Fprintln(stderr, "scheme: warning:", warning)
	}
	if err != nil {
		fmt.Fprintln(stderr, "scheme:", err)
		code = max(code, 1)
	}
	return code
}

// commandLine is what the procedure command-line returns.
func commandLine(o options) []string {
	if o.file == "" {
		return []string{"scheme"}
	}
	return o.args
}

// onInterrupt calls f at each Ctrl-C, until the function that it returns is called.
func onInterrupt(f func()) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for {
			select {
			case <-signals:
				f()
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		cancel()
	}
}

// exitCode prints err, if it is one, and returns the exit code that it stands for.
func exitCode(err error, where string, stderr io.Writer) int {
	var exit vm.Exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	}
	if where != "" {
		where += ": "
	}
	fmt.Fprintf(stderr, "error: %s%v\n", where, err)
	if errors.Is(err, vm.ErrInterrupted) {
		return 130
	}
	return 1
}

// repl reads forms and prints their values until the input ends. An error ends the form, and not the program.
func repl(m *vm.Machine, in *bufio.Reader, stdout, stderr io.Writer) int {
	text := ""
	for {
		prompt := "> "
		if text != "" {
			prompt = "  "
		}
		fmt.Fprint(stdout, prompt)
		line, err := in.ReadString('\n')
		text += line
		if err == nil && (strings.TrimSpace(text) == "" || vm.Incomplete(text)) {
			continue
		}
		runErr := m.Run(strings.NewReader(text), func(s string) { fmt.Fprintln(stdout, s) })
		text = ""
		code := exitCode(runErr, "", stderr)
		if exit := vm.Exit(0); errors.As(runErr, &exit) {
			return code
		}
		if err != nil {
			fmt.Fprintln(stdout)
			if err == io.EOF {
				err = nil
			}
			return exitCode(err, "", stderr)
		}
	}
}

func printStats(w io.Writer, s counter.Stats, collections int) {
	fmt.Fprintf(w, "%d collections; outside the Go heap %s were allocated in %d blocks, at most %s at once, and %s are left\n",
		collections, counter.FormatBytes(s.AllocatedBytes), s.Allocations, counter.FormatBytes(s.PeakBytes), counter.FormatBytes(s.LiveBytes))
}
