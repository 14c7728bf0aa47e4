// Constructs prints what ways to write a line, and the parts of this library, allocate on the Go heap: before main, at the first
// call, and at each further one. What runs inside of an allocator should allocate nothing.
//
// Each row is measured in a process of its own, where nobody has filled a pool before.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

const (
	rowVariable   = "CONSTRUCTS_ROW" // names the row, in the environment of a process that measures one
	beforeMainRow = "before main"
	nameWidth     = 32 // of the first column
)

func main() {
	run := table
	if os.Getenv(rowVariable) != "" {
		run = child
	}
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "constructs:", err)
		os.Exit(1)
	}
}

// table measures all rows and prints them.
func table(out io.Writer) error {
	fmt.Fprintf(out, "%-*s%18s%18s%18s\n", nameWidth, "", "call 1", fmt.Sprintf("calls 2 to %d", warm), "each after")
	fmt.Fprintf(out, "%-*s %8s %8s %8s %8s %8s %8s\n", nameWidth, "allocated on the Go heap", "bytes", "objects", "bytes", "objects", "bytes", "objects")
	before, err := measured(beforeMainRow)
	if err != nil {
		return fmt.Errorf("%s: %w", beforeMainRow, err)
	}
	fmt.Fprintf(out, "%-*s %8v %8v\n", nameWidth, beforeMainRow, before.First.Bytes, before.First.Objects)
	for _, c := range constructs() {
		r, err := measured(c.name)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		fmt.Fprintf(out, "%-*s %8v %8v %8v %8v %8v %8v\n", nameWidth, c.name,
			r.First.Bytes, r.First.Objects, r.Next.Bytes, r.Next.Objects, r.Each.Bytes, r.Each.Objects)
	}
	return nil
}

// measured runs this program to measure a row. Its environment is bare, for the runtime keeps a list of it: that, and the number
// of processors, would change what is allocated before main. No time zone is loaded from a file, and the race detector, where it
// is linked in, does not wait for a second at the end.
func measured(name string) (r result, err error) {
	program, err := os.Executable()
	if err != nil {
		return result{}, err
	}
	cmd := exec.Command(program)
	cmd.Env = []string{rowVariable + "=" + name, "GOMAXPROCS=1", "GOGC=off", "TZ=", "GORACE=atexit_sleep_ms=0"}
	out, err := cmd.Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return result{}, fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	if err != nil {
		return result{}, err
	}
	text := strings.TrimSpace(string(out))
	return r, json.Unmarshal([]byte(text[strings.LastIndexByte(text, '\n')+1:]), &r)
}

// child measures the row that the environment names. The figures are the last line, after what a construct has printed.
func child(out io.Writer) error {
	r, err := measureRow(os.Getenv(rowVariable))
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(r)
}
