package main

import (
	"encoding/json"
	"flag"
	"io"
	"os"

	"github.com/alloctrace/alloctrace/hooks/blackbox"
)

func blackboxFlags(f *flag.FlagSet) func(args []string, out, errOut io.Writer) (int, error) {
	asJSON := f.Bool("json", false, "print all as JSON: docs/fields.md has the names")
	asPprof := f.String("pprof", "", "write what was live to this `FILE`, for go tool pprof; - is the standard output")
	asOTLP := f.String("otlp", "", "write it as a trace to this `FILE`, which the Upload tab of Jaeger's UI opens; - is the standard output")
	peak := f.Bool("peak", false, "with -pprof: what was live at the peak")
	events := f.Int("events", 50, "the last `N` events, or all if it is less than 0")
	return func(args []string, out, _ io.Writer) (int, error) {
		forms := 0
		for _, chosen := range []bool{*asJSON, *asPprof != "", *asOTLP != ""} {
			if chosen {
				forms++
			}
		}
		if len(args) != 1 || forms > 1 || *peak && *asPprof == "" {
			return failed, errUsage
		}
		c, err := blackbox.Open(args[0])
		if err != nil {
			return failed, err
		}
		switch {
		case *asJSON:
			err = writeJSON(out, c)
		case *asPprof != "":
			err = writeFile(*asPprof, out, profileOfBox(c, *peak).Write)
		case *asOTLP != "":
			err = writeFile(*asOTLP, out, func(w io.Writer) error { return writeOTLP(w, c, *events) })
		default:
			err = writeText(out, c, *events)
		}
		switch {
		case err != nil:
			return failed, err
		case len(c.Damage) > 0:
			return damaged, nil
		}
		return whole, nil
	}
}

func writeJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// writeFile makes a file of what write writes, or writes it to out if path is -.
func writeFile(path string, out io.Writer, write func(io.Writer) error) error {
	if path == "-" {
		return write(out)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
