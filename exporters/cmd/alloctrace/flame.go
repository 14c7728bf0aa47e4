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
	f.StringVar(&r.to, "o", "-", "write to this `FILE`; - is the standard output")
	return r.command(1, func(_ []string, in []*history.Recording) (answer, error) {
		k, err := history.Rank(in[0], *by, r.options())
		if err != nil {
			return answer{}, err
		}
		stacks := fold(k, *by)
		return answer{stacks, func(w io.Writer) error { return writeFolded(w, stacks) }, []*history.Unknown{&k.Unknown}}, nil
	})
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
