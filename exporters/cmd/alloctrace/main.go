// Alloctrace reads what programs that use this library leave behind, and records others.
//
//	alloctrace record -o FILE PROGRAM   a recording of a program that uses C's malloc
//	alloctrace blackbox FILE            what a black box has: what was live, by whom, the peak, and the last events
//
// and of a recording of package exporters/recording:
//
//	alloctrace info FILE                what it has, in short
//	alloctrace top FILE                 who holds or has allocated the most
//	alloctrace leaks FILE               what is live at the end, its age and growth
//	alloctrace timeline FILE            what was live over time
//	alloctrace diff FILE [FILE]         what has changed between two moments, or two recordings
//	alloctrace query FILE               blocks, by when they lived, for how long, their size and who allocated them
//	alloctrace flame FILE               folded stacks, for flame graphs
//	alloctrace export FORMAT FILE       a file for another program: pprof, perfetto, chrome, csv or parquet
//	alloctrace serve FILE               all of it as a page in a browser, also of a black box
//
// and of a program that runs, whose page of package exporters/debugpage is at a URL:
//
//	alloctrace top URL                  who holds the most, live in the terminal
//
// alloctrace help COMMAND says what a command's flags are. docs/read-a-recording.md shows them at work.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

// What the program exits with.
const (
	whole   = 0 // all was read
	damaged = 1 // some of it was damaged or is missing, and the rest was read
	failed  = 2 // nothing could be read or written, or the arguments are wrong
)

// A command is one of the program's.
type command struct {
	name, args string
	does       string // what it does, a line
	flags      func(f *flag.FlagSet) func(args []string, out, errOut io.Writer) (status int, err error)
}

var commands = []command{
	{"blackbox", "[-json | -pprof FILE [-peak] | -otlp FILE] [-events N] FILE", "print what was live, by whom, the peak, and the last events", blackboxFlags},
	{recordName, "[-o FILE] [-calls N] [-children] [-threads] [-limit BYTES] PROGRAM ARGUMENTS...", "run a program, and record every event of C's malloc in it", recordFlags},
	{"info", "[-json] [-alone] FILE", "print what a recording has, in short", infoFlags},
	{"top", "[-by live|allocated|peak] [-n N] [flags] FILE, or [-sites] [-sort COLUMN] [-count N] [-interval TIME] [-json] URL", "print who holds or has allocated the most, in a recording or a program that runs", topFlags},
	{"leaks", "[-n N] [flags] FILE", "print what is live at the end, its age and growth", leaksFlags},
	{"timeline", "[-by child|site|region|proxy] [-steps N] [-csv] [flags] FILE", "print what was live over time", timelineFlags},
	{"diff", "[-from T] [-to T] [flags] FILE, or [-at T] [flags] BEFORE AFTER", "print what has changed between two moments, or two recordings", diffFlags},
	{"query", "[-at T] [-grew A:B] [-longer D] [-shorter D] [-size MIN:MAX] [flags] FILE", "print blocks, by when they lived, for how long, their size and who allocated them", queryFlags},
	{"flame", "[-by live|allocated|peak] [-o FILE] [flags] FILE", "write folded stacks, for flame graphs", flameFlags},
	{"export", "[-o FILE] [flags] pprof|perfetto|chrome|csv|parquet FILE", "write a file for another program", exportFlags},
	{"replay", "[-on ALLOCATOR] [-limit BYTES] [-goroutines N] [-paced] [-edges] [-addresses] [-keep-going] [-alone] [-json] FILE", "perform the operations of a recording on an allocator, check it and measure it", replayFlags},
	{"serve", "[-addr ADDRESS] [-alone] FILE", "show a recording, or a black box, as a page in a browser", serveFlags},
	{"shrink", "[-on ALLOCATOR] [-limit BYTES] [-addresses] [-alone] -o OUT FILE", "write the smallest recording whose replay still fails", shrinkFlags},
}

// errUsage is the error of a command that has not the arguments it needs.
var errUsage = errors.New("wrong arguments")

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run runs the command of args, and returns what the program exits with.
func run(args []string, out, errOut io.Writer) int {
	if len(args) == 0 {
		usage(errOut)
		return failed
	}
	name, args := args[0], args[1:]
	help := name == "help" || name == "-h" || name == "-help" || name == "--help"
	if help && len(args) > 0 {
		name = args[0]
	} else if help {
		usage(out)
		return whole
	}
	for _, c := range commands {
		if c.name == name {
			if help {
				args = []string{"-help"}
			}
			return c.run(args, out, errOut)
		}
	}
	fmt.Fprintf(errOut, "alloctrace: there is no command %q\n", name)
	usage(errOut)
	return failed
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "usage: alloctrace COMMAND ...")
	for _, c := range commands {
		fmt.Fprintf(w, "  %-10s %s\n", c.name, c.does)
	}
	fmt.Fprintln(w, "alloctrace help COMMAND has a command's flags")
}

func (c *command) run(args []string, out, errOut io.Writer) int {
	f := flag.NewFlagSet(c.name, flag.ContinueOnError)
	f.SetOutput(errOut)
	f.Usage = func() {
		fmt.Fprintf(f.Output(), "usage: alloctrace %s %s\n%s\n", c.name, c.args, c.does)
		f.PrintDefaults()
	}
	do := c.flags(f)
	if len(args) == 1 && args[0] == "-help" { // asked for, and no mistake
		f.SetOutput(out)
	}
	var files []string
	for rest := args; ; rest = f.Args()[1:] { // flags may follow what is none
		if err := f.Parse(rest); errors.Is(err, flag.ErrHelp) {
			return whole
		} else if err != nil {
			return failed
		}
		if c.name == recordName { // what follows a program is the program's
			files = f.Args()
			break
		}
		if f.NArg() == 0 {
			break
		}
		files = append(files, f.Arg(0))
	}
	status, err := do(files, out, errOut)
	if errors.Is(err, errUsage) {
		f.Usage()
	} else if err != nil {
		fmt.Fprintf(errOut, "alloctrace: %s: %v\n", c.name, err)
	}
	return status
}
