package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"

	"github.com/alloctrace/alloctrace/exporters/recording/history"
)

// An export is what the flags of the command say.
type export struct {
	*reading
	peak, blocks             bool
	by                       string
	steps, snapshots, slices int
}

// A format is one that the command writes.
type format struct {
	binary bool // it is not for a terminal
	flags  []string
	write  func(e *export, w io.Writer, in *history.Recording) (history.Unknown, error)
}

var formats = map[string]format{
	"pprof":    {true, []string{"peak"}, (*export).pprof},
	"perfetto": {true, []string{"by", "steps", "snapshots", "slices"}, (*export).perfetto},
	"chrome":   {false, []string{"by", "steps"}, (*export).chrome},
	"csv":      {false, []string{"blocks"}, (*export).csv},
	"parquet":  {true, []string{"blocks"}, (*export).parquet},
}

func exportFlags(f *flag.FlagSet) func(args []string, out, errOut io.Writer) (int, error) {
	e := export{reading: readingFlags(f, true)}
	to := f.String("o", "-", "write to this `FILE`; - is the standard output")
	f.BoolVar(&e.peak, "peak", false, "pprof: in use is what was live at the peak, and not at the end")
	f.BoolVar(&e.blocks, "blocks", false, "csv, parquet: a row is a block, and not an event")
	f.StringVar(&e.by, "by", "child", "perfetto, chrome: live bytes of each of this `GROUP`: child or site")
	f.IntVar(&e.steps, "steps", 2000, "perfetto, chrome: live bytes have a value for each of `N` steps of time, the most of it")
	f.IntVar(&e.snapshots, "snapshots", 20, "perfetto: the heap profile has `N` moments, and the peak")
	f.IntVar(&e.slices, "slices", 1000, "perfetto: show the lives of `N` blocks, those with the most bytes times time")
	return func(args []string, out, errOut io.Writer) (int, error) {
		if len(args) != 2 {
			return failed, errUsage
		}
		of, ok := formats[args[0]]
		f.Visit(func(set *flag.Flag) {
			for name, other := range formats {
				if name != args[0] && slices.Contains(other.flags, set.Name) && !slices.Contains(of.flags, set.Name) {
					ok = false
				}
			}
		})
		switch {
		case !ok || e.by != "child" && e.by != "site":
			return failed, errUsage
		case e.snapshots < 1 || e.snapshots > mostSteps || e.slices < 0:
			return failed, fmt.Errorf("-snapshots %d, -slices %d: use 1 to %d snapshots, and 0 or more slices", e.snapshots, e.slices, mostSteps)
		case checkSteps(e.steps) != nil:
			return failed, checkSteps(e.steps)
		case of.binary && *to == "-" && isTerminal(out):
			return failed, errors.New("the standard output is a terminal: use -o FILE")
		}
		in, err := e.open(args[1], errOut)
		if err != nil {
			return failed, err
		}
		var unknown history.Unknown
		err = writeFile(*to, out, func(w io.Writer) (err error) {
			buffer := bufio.NewWriterSize(w, 1<<16)
			if unknown, err = of.write(&e, buffer, in); err != nil {
				return err
			}
			return buffer.Flush()
		})
		return statusOf(err, &unknown)
	}
}

func (e *export) pprof(w io.Writer, in *history.Recording) (history.Unknown, error) {
	k, err := history.Rank(in, "allocated", e.options())
	if err != nil {
		return history.Unknown{}, err
	}
	return k.Unknown, profileOfSites(in, k, e.peak).Write(w)
}
