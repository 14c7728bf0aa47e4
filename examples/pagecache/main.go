// Pagecache is the page cache of a database engine: fixed pages of a file in aligned blocks outside the Go heap, read and
// written with O_DIRECT, below a limit. It shows what alloctrace makes visible of that: who holds memory, by purpose; which
// batch of operations brought which bytes into memory, in a trace for Jaeger; and, with -leak, who pinned a page and forgot it.
//
//	go run ./examples/pagecache [-size MIB] [-ops N] [-limit MIB] [-goroutines N] [-uniform] [-leak] [-json]
//
// Each page that is read is checked: that it is the page, is whole, and is of the newest generation. So is the file in the end.
// The exit code is 0 if all went well, the leak of -leak included; 1 if something failed; 2 if the command line makes no
// sense; 130 after Ctrl-C.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/bits"
	"os"
	"os/signal"
	"runtime"

	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	os.Exit(command(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// options are what the command line says.
type options struct {
	file, trace                         string
	size, limit                         int64 // bytes
	page, ops, goroutines, writes       int
	seed                                uint64
	uniform, buffered, leak, heap, json bool
}

func (o *options) pages() uint32 { return uint32(o.size / int64(o.page)) }

// rate is how many bytes are allocated for each block whose stack is kept: to find one page, all are.
func (o *options) rate() int {
	if o.leak {
		return 1
	}
	return heapprofile.DefaultRate
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
	r, err := pagecache(ctx, o, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "pagecache:", err)
		if errors.Is(err, context.Canceled) {
			return 130
		}
		return 1
	}
	write := r.writeText
	if o.json {
		write = r.writeJSON
	}
	if err := write(stdout); err != nil {
		fmt.Fprintln(stderr, "pagecache:", err)
		return 1
	}
	return 0
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("pagecache", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.file, "file", "", "keep the pages in this `file`, which must not be there (default: a temporary one, removed in the end)")
	flags.StringVar(&o.trace, "trace", "", "write the trace into this `file`, for Jaeger's user interface")
	size := flags.Int64("size", 64, "`MiB` of the file")
	limit := flags.Int64("limit", 16, "most `MiB` of memory: pages, index and memtables")
	flags.IntVar(&o.page, "page", 4096, "`bytes` of a page, a power of two")
	flags.IntVar(&o.ops, "ops", 1_000_000, "how many reads and writes")
	flags.IntVar(&o.goroutines, "goroutines", 2*runtime.GOMAXPROCS(0), "how many `goroutines` share the cache")
	flags.IntVar(&o.writes, "writes", 20, "`percent` of the operations that write")
	flags.Uint64Var(&o.seed, "seed", 1, "of the random numbers")
	flags.BoolVar(&o.uniform, "uniform", false, "use all pages alike, instead of some much more than others (a Zipf distribution)")
	flags.BoolVar(&o.buffered, "buffered", false, "do not try O_DIRECT")
	flags.BoolVar(&o.leak, "leak", false, "pin one page and forget it, and find out who did")
	flags.BoolVar(&o.heap, "heap", false, "for comparison: pages on the Go heap, by make, and nothing observed")
	flags.BoolVar(&o.json, "json", false, "print the report as JSON")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.size, o.limit = *size<<20, *limit<<20
	err := o.check(flags.Args())
	if err != nil {
		fmt.Fprintln(stderr, "pagecache:", err)
	}
	return o, err
}

func (o *options) check(args []string) error {
	least := o.leastLimit()
	switch {
	case len(args) > 0:
		return fmt.Errorf("unexpected argument %q: see -help", args[0])
	case o.page < 512 || o.page > 1<<20 || bits.OnesCount(uint(o.page)) != 1:
		return fmt.Errorf("-page %d: give a power of two from 512 to 1048576", o.page)
	case o.size < 1<<20 || o.size > 1<<40 || o.size/int64(o.page) > 1<<31:
		return fmt.Errorf("-size %d: give 1 to 1048576, and at most 2147483648 pages", o.size>>20)
	case o.goroutines < 1 || o.goroutines > 1<<12:
		return fmt.Errorf("-goroutines %d: give 1 to 4096", o.goroutines)
	case o.limit < least || o.limit > 1<<40:
		return fmt.Errorf("-limit %d: give %d or more, for the pages that %d goroutines pin, the index and memtables", o.limit>>20, (least+1<<20-1)>>20, o.goroutines)
	case o.ops < 0:
		return fmt.Errorf("-ops %d: give 0 or more", o.ops)
	case o.writes < 0 || o.writes > 100:
		return fmt.Errorf("-writes %d: give 0 to 100", o.writes)
	case o.heap && (o.leak || o.trace != ""):
		return errors.New("-heap observes nothing: leave out -leak and -trace")
	}
	return nil
}

// leastLimit is a page for each goroutine and some more, and room for all entries of the index and the memtables.
func (o *options) leastLimit() int64 {
	const entry = 100 // bytes, while a table grows
	return int64(o.page*(o.goroutines+8)) + entry*16*maxPending + 512<<10
}
