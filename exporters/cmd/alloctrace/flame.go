package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/alloctrace/alloctrace/exporters/recording/history"
)

func flameFlags(f *flag.FlagSet) func(args []string, out, errOut io.Writer) (int, error) {
	r := readingFlags(f, true)
	r.jsonFlag(f)
	by := f.String("by", "live", "which `BYTES`: live at the end, allocated in all, or live at the peak of all")
	to := f.String("o", "-", "write to this `FILE`; - is the standard output")
	return func(args []string, out, errOut io.Writer) (int, error) {
		if len(args) != 1 {
			return failed, errUsage
		}
		in, err := r.open(args[0], errOut)
		if err != nil {
			return failed, err
		}
		k, err := history.Rank(in, *by, r.options())
		if err != nil {
			return failed, err
		}
		stacks := fold(k, *by)
		err = writeFile(*to, out, func(w io.Writer) error {
			if r.asJSON {
				return writeJSON(w, stacks)
			}
			return writeFolded(w, stacks)
		})
		return statusOf(err, &k.Unknown)
	}
}

// fold returns bytes by stack: functions with a semicolon between them, the outermost first.
func fold(k *history.Ranking, by string) map[string]int64 {
	stacks := make(map[string]int64)
	for i := range k.Sites {
		s := &k.Sites[i]
		var names []string
		for _, f := range slices.Backward(s.Stack) {
			names = append(names, strings.ReplaceAll(line(f.Function), ";", ":"))
		}
		if len(names) == 0 {
			names = []string{"unknown"}
		}
		stacks[strings.Join(names, ";")] += s.By(by).Bytes
	}
	return stacks
}

func writeFolded(out io.Writer, stacks map[string]int64) error {
	w := bufio.NewWriter(out)
	for _, stack := range slices.Sorted(maps.Keys(stacks)) {
		fmt.Fprintf(w, "%s %d\n", stack, stacks[stack])
	}
	return w.Flush()
}
