package main

import (
	"io"

	"github.com/alloctrace/alloctrace/exporters/recording/history"
)

// An answer is what a command has found in recordings.
type answer struct {
	of      any                     // it, for JSON
	write   func(w io.Writer) error // it, for people
	unknown []*history.Unknown
}

// writeString returns a function that writes s.
func writeString(s string) func(w io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

// command returns a command that reads so many recordings at most, and prints what answers returns of them.
func (r *reading) command(most int, answers func(args []string, in []*history.Recording) (answer, error)) func(args []string, out, errOut io.Writer) (int, error) {
	return func(args []string, out, errOut io.Writer) (int, error) {
		if len(args) == 0 || len(args) > most {
			return failed, errUsage
		}
		var in []*history.Recording
		for _, path := range args {
			one, err := r.open(path, errOut)
			if err != nil {
				return failed, err
			}
			in = append(in, one)
		}
		a, err := answers(args, in)
		if err != nil {
			return failed, err
		}
		err = writeFile(r.to, out, func(w io.Writer) error {
			if r.asJSON {
				return writeJSON(w, a.of)
			}
			return a.write(w)
		})
		return statusOf(err, a.unknown...)
	}
}
